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
    desired_cache.take(changes(6, wants={key("a"): a_want("a", 3)}))
    assert before.wants == {key("a"): a_want("a")}
    assert desired_cache.frozen().wants == {key("a"): a_want("a", 3)}


def test_a_store_that_lost_writes_is_right() -> None:
    for read in (Desired(4, "c", {}, {}, mark="4"), Desired(5, "c", {}, {}, mark="other")):
        desired_cache = a_cache()
        desired_cache.take_all(read)
        assert desired_cache.desired.versions == {}
        assert desired_cache.catalogue.models == {}


STATES = st.sampled_from([None, *VersionState])
STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), STATES, st.one_of(st.none(), st.integers(1, 3))), max_size=12
)


@given(STEPS)
def test_changes_add_up_to_a_whole_read(
    steps: list[tuple[str, VersionState | None, int | None]],
) -> None:
    """After each change a cache fed by changes shows what the store holds."""
    desired_cache = a_cache()
    versions: dict[VersionKey, ModelVersion] = {key("a"): version("a")}
    wants: dict[VersionKey, Want] = {key("a"): a_want("a")}
    revision = 5
    for name, state, replicas in steps:
        revision += 1
        written = version(name, state=state) if state is not None else None
        want = a_want(name, replicas) if replicas is not None else None
        news = changes(revision, versions={key(name): written}, wants={key(name): want})
        versions = {k: v for k, v in {**versions, key(name): written}.items() if v is not None}
        wants = {k: w for k, w in {**wants, key(name): want}.items() if w is not None}
        desired_cache.take(news)
        assert desired_cache.desired.versions == versions
        assert desired_cache.desired.wants == wants
        listed = {one.key: one for of in desired_cache.catalogue.models.values() for one in of}
        assert listed == versions
