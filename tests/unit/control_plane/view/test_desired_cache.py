"""The cache of desired state: changes applied one by one are what a whole read is."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.desired import Desired, DesiredDelta, Want, WantSource
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.view.desired_cache import DesiredCache
from tests.unit.control_plane.fleets import key, version

NAMES = "abc"


def a_want(name: str, replicas: int = 1) -> Want:
    return Want(key(name), replicas, False, WantSource.ADMIN, 1.0)


def changes(revision: int, **parts: object) -> DesiredDelta:
    return replace(DesiredDelta(revision, str(revision)), **parts)  # type: ignore[arg-type] # its fields


def a_cache() -> DesiredCache:
    desired_cache = DesiredCache()
    desired_cache.take_all(
        Desired(5, "c", {key("a"): version("a")}, {key("a"): a_want("a")}, mark="5")
    )
    return desired_cache


def test_a_change_touches_what_it_is_about() -> None:
    desired_cache = a_cache()
    news = desired_cache.take(changes(6, wants={key("a"): a_want("a", 2)}, numbers={"a": 7}))
    assert news == {key("a")}
    assert desired_cache.desired.wants == {key("a"): a_want("a", 2)}
    assert (desired_cache.desired.revision, desired_cache.desired.mark) == (6, "6")
    assert desired_cache.desired.numbers == {"a": 7}
    desired_cache.take(changes(7, versions={key("a"): None, key("b"): version("b")}, wants={}))
    assert set(desired_cache.desired.versions) == {key("b")}
    assert set(desired_cache.catalogue.models) == {"b"}


def test_a_value_stays_what_it_was() -> None:
    desired_cache = a_cache()
    before = desired_cache.frozen()
    assert desired_cache.frozen() is before
    desired_cache.put_want(a_want("a", 3))
    assert before.wants == {key("a"): a_want("a")}
    assert desired_cache.frozen().wants == {key("a"): a_want("a", 3)}


def test_an_own_write_is_ahead_until_the_store_is_past_it() -> None:
    desired_cache, uploaded = a_cache(), version("b", state=VersionState.UPLOADED)
    desired_cache.put_version(version("b"))  # registered at 6, adopted at 7
    desired_cache.take(changes(6, versions={key("b"): uploaded}))
    assert desired_cache.desired.versions[key("b")] == version("b")
    desired_cache.take(changes(7, versions={key("b"): version("b")}))
    desired_cache.take(changes(8, versions={key("b"): None}))
    assert key("b") not in desired_cache.desired.versions


def test_what_an_own_write_hid_is_shown_when_it_is_old() -> None:
    """The change that was hidden is told once only, not with every read."""
    desired_cache = a_cache()
    half = replace(version("b", state=VersionState.IMPORTING), progress=0.5)
    desired_cache.take(changes(6, versions={key("b"): half}))
    desired_cache.put_version(half)
    again = replace(half, progress=0.0)  # another importer began anew
    desired_cache.take(changes(7, versions={key("b"): again}))
    assert desired_cache.desired.versions[key("b")] == half
    assert desired_cache.take(changes(8)) == {key("b")}
    assert desired_cache.desired.versions[key("b")] == again
    assert desired_cache.catalogue.models["b"] == (again,)


def test_a_store_that_lost_writes_is_right() -> None:
    for read in (Desired(4, "c", {}, {}, mark="4"), Desired(5, "c", {}, {}, mark="other")):
        desired_cache = a_cache()
        desired_cache.put_version(version("b"))
        desired_cache.take_all(read)
        assert desired_cache.desired.versions == {}


STATES = st.sampled_from([None, *VersionState])
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), STATES, st.one_of(st.none(), st.integers(1, 3))), max_size=12
)


@given(STEPS, st.lists(st.booleans(), min_size=12, max_size=12))
def test_changes_add_up_to_a_whole_read(
    steps: list[tuple[str, VersionState | None, int | None]], owns: list[bool]
) -> None:
    """Whatever is written here or elsewhere: once the store is two writes past the last own one,
    a cache fed by changes shows what the store holds.
    """
    desired_cache = a_cache()
    versions: dict[VersionKey, ModelVersion] = {key("a"): version("a")}
    wants: dict[VersionKey, Want] = {key("a"): a_want("a")}
    revision = 5
    for (name, state, replicas), own in zip(steps, owns, strict=False):
        revision += 1
        written = version(name, state=state) if state is not None else None
        want = a_want(name, replicas) if replicas is not None else None
        if own and written is not None:
            desired_cache.put_version(written)
        news = changes(revision, versions={key(name): written}, wants={key(name): want})
        versions = {k: v for k, v in {**versions, key(name): written}.items() if v is not None}
        wants = {k: w for k, w in {**wants, key(name): want}.items() if w is not None}
        desired_cache.take(news)
    for _ in range(2):
        revision += 1
        desired_cache.take(changes(revision))
    assert desired_cache.desired.versions == versions
    assert desired_cache.desired.wants == wants
    listed = {
        one.key: one for of_name in desired_cache.catalogue.models.values() for one in of_name
    }
    assert listed == versions
