"""What stops a deletion, and what a schedule is without the versions."""

from dataclasses import replace

import pytest

from control_plane.models.references import references
from control_plane.types.desired import Desired
from control_plane.types.policy import Residency, ResidencyMode
from control_plane.types.rollout.alias import Alias, AliasKey, Kept, Shadow, Target
from control_plane.types.schedule import Changeover, Preparation, Schedule
from control_plane.types.version import ModelVersion, VersionKey
from tests.unit.control_plane.fleets import key, version, want
from yolopool.errors import ModelReferenced

TWO = {key("a", n): replace(version("a"), key=key("a", n)) for n in (1, 2)}
STABLE = Alias("a", "stable", (Target(1, 1000),), 0.0, 0.0)


def desired(**more: object) -> Desired:
    return replace(Desired(1, "c", {**TWO, key("b"): version("b")}, {}), **more)  # type: ignore[arg-type]


def schedule(*prepare: str, release: tuple[str, ...] = ()) -> dict[str, Schedule]:
    change = Changeover(tuple(Preparation(model) for model in prepare), release)
    return {"day": Schedule("day", "0 6 * * *", "", 0.0, change, 1.0)}


def test_nothing_refers_to_a_version_that_is_only_loaded() -> None:
    held = references(desired(wants={key("a"): want("a")}), [key("a")])
    assert (held.aliases, held.pins, dict(held.changed)) == ((), (), {})
    held.check(force=False)


@pytest.mark.parametrize(
    "alias",
    [
        STABLE,
        replace(STABLE, targets=(Target(2, 1000),), kept=(Kept(1, 9.0),)),
        replace(STABLE, targets=(Target(2, 1000),), shadow=Shadow(1, 10)),
        replace(STABLE, targets=(Target(2, 950), Target(1, 50))),
    ],
)
def test_an_alias_holds_what_it_needs_even_from_force(alias: Alias) -> None:
    held = references(desired(aliases={AliasKey("a", "stable"): alias}), [key("a", 1)])
    for force in (False, True):
        with pytest.raises(ModelReferenced, match="alias a:stable"):
            held.check(force)


def test_a_pin_and_a_hot_standby_are_refused_without_force() -> None:
    pinned = references(desired(wants={key("a"): want("a", pinned=True)}), [key("a")])
    standby: ModelVersion = version("a", residency=Residency(ResidencyMode.HOT_STANDBY))
    kept = references(desired(versions={key("a"): standby}), [key("a")])
    build: VersionKey = key("a+torch-bf16-cpu")
    built = desired(
        versions={**TWO, build: replace(version("a"), key=build)},
        wants={build: replace(want("a", pinned=True), key=build)},
    )
    for held in (pinned, kept, references(built, [key("a")])):
        with pytest.raises(ModelReferenced, match="a pin of a"):
            held.check(force=False)
        held.check(force=True)


@pytest.mark.parametrize(
    ("names", "keys", "left"),
    [
        (("a@1", "b"), [key("a", 1)], ("b",)),
        (("a@1",), [key("a", 1)], None),
        (("a+torch-bf16-cpu@1", "b"), [key("a", 1)], ("b",)),
        (("a", "b"), [key("a", 1), key("a", 2)], ("b",)),
        (("a:live", "b"), [key("a", 1), key("a", 2)], ...),
        (("a", "b"), [key("a", 1)], ...),  # the other version is still there
        (("a@2",), [key("a", 1)], ...),
    ],
)
def test_a_schedule_goes_on_without_the_versions(
    names: tuple[str, ...], keys: list[VersionKey], left: object
) -> None:
    # What only releases it is no reason to keep it.
    assert not references(desired(schedules=schedule("c", release=names)), keys).changed
    held = references(desired(schedules=schedule(*names, release=names)), keys)
    if left is ...:
        assert not held.changed
        return
    with pytest.raises(ModelReferenced, match="schedule day"):
        held.check(force=False)
    held.check(force=True)
    change = held.changed["day"]
    if left is None:
        assert change is None
    else:
        assert change is not None
        assert (tuple(p.model for p in change.prepare), change.release) == (left, left)
