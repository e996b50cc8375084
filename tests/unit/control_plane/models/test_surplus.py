"""Which versions go where only so many are kept."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.models.surplus import surplus
from control_plane.types.desired import Desired
from control_plane.types.policy import Gate, ModelRule, Validation
from control_plane.types.rollout.alias import Alias, Target
from control_plane.types.version import ModelVersion, VersionState
from control_plane.view.catalogue import Catalogue
from tests.unit.control_plane.fleets import key, version, want

READY, FAILED, PENDING = VersionState.READY, VersionState.FAILED, VersionState.IMPORTING


def a(number: int, state: VersionState = READY) -> ModelVersion:
    return replace(version("a", state=state), key=key("a", number))


def goes(versions: Iterable[ModelVersion], keep: int = 2, **more: object) -> list[int]:
    known = {one.key: one for one in versions}
    rules = {"*": ModelRule("*", keep_versions=keep)} if keep else {}
    desired = replace(Desired(1, "c", known, {}, rules=rules), **more)  # type: ignore[arg-type]
    catalogue = Catalogue(desired.versions.values(), desired.aliases, desired.rules)
    return sorted(one.key.number for one in surplus(desired, catalogue))


def test_the_newest_ready_ones_are_kept() -> None:
    assert goes([a(n) for n in range(1, 6)]) == [1, 2, 3]
    assert goes([a(n) for n in range(1, 6)], keep=0) == []
    assert goes([a(1), a(2)]) == []


def test_a_failed_import_counts_as_none_and_goes_with_its_elders() -> None:
    assert goes([a(1), a(2, FAILED), a(3), a(4, FAILED), a(5)]) == [1, 2]


def test_what_is_being_imported_stays() -> None:
    assert goes([a(1, PENDING), a(2), a(3), a(4)]) == [2]


def test_what_something_needs_stays() -> None:
    versions = [a(n) for n in range(1, 6)]
    alias = Alias("a", "stable", (Target(2, 1000),), 0.0, 0.0)
    assert goes(versions, aliases={alias.key: alias}) == [1, 3]
    wants = {key("a", 1): replace(want("a"), key=key("a", 1))}
    assert goes(versions, wants=wants) == [2, 3]


def test_what_the_bare_name_means_stays() -> None:
    versions = [replace(a(n), created_unix_s=10.0) for n in range(1, 5)]
    passed, failed = (Validation("zip", 1.0, map50_95=value) for value in (0.9, 0.1))
    versions = [replace(versions[0], validation=passed)] + [
        replace(one, validation=failed) for one in versions[1:]
    ]
    rule = ModelRule("a", Gate("zip", 0.5), keep_versions=2)
    assert goes(versions, rules={"a": rule}) == [2]


@given(st.lists(st.sampled_from([READY, FAILED, PENDING]), max_size=12), st.integers(1, 5))
def test_as_many_as_the_rule_says_are_always_left(states: list[VersionState], keep: int) -> None:
    versions = [a(number, state) for number, state in enumerate(states, 1)]
    gone = goes(versions, keep)
    left = [v for v in versions if v.state is READY and v.key.number not in gone]
    assert len(left) == min(keep, states.count(READY))
