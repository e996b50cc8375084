"""The view: what a change of desired state means for the plans and for those who wait."""

from dataclasses import replace

import pytest

from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, DesiredDelta, Want, WantSource
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from tests.unit.control_plane.fleets import key, version
from yolopool.server.clock import Clock

A, B = key("a"), key("b")
FULL = Blocked(A, "LEDGER_FULL", "there is no room")


def a_want(at: VersionKey, replicas: int = 1) -> Want:
    return Want(at, replicas, False, WantSource.ADMIN, 1.0)


class Fixture:
    """A view of two versions; `a` is wanted and the plan has no room for it."""

    def __init__(self) -> None:
        self.view = View(Clock(lambda: 0.0, lambda: 0.0))
        versions = {A: version("a"), B: version("b")}
        self.desired = Desired(5, "c", versions, {A: a_want(A)}, mark="5")
        self.view.take_desired(self.desired)
        self.view.changed()
        self.view.set_blocked({A: FULL})

    def write(self, **wants: Want | None) -> None:
        revision = self.view.desired.revision + 1
        written = {key(name): want for name, want in wants.items()}
        self.view.take_changes(DesiredDelta(revision, str(revision), wants=written))

    @property
    def unloaded(self) -> set[VersionKey]:
        return set(self.view.snapshot().unloaded)


def test_a_want_voids_the_reason_of_an_older_plan_and_an_unload() -> None:
    fixture = Fixture()
    fixture.view.want_nowhere(A)
    fixture.view.force_out(A)
    fixture.view.set_blocked({A: FULL})
    fixture.write(a=a_want(A, 2))
    assert fixture.view.waits == {}
    assert (fixture.unloaded, fixture.view.forced) == (set(), set())
    assert fixture.view.changed() == ({A}, set())


def test_a_whole_read_voids_reasons_as_its_changes_do() -> None:
    fixture = Fixture()
    fixture.view.take_desired(replace(fixture.desired, revision=6))
    assert fixture.view.waits == {A: FULL}
    fixture.view.take_desired(replace(fixture.desired, revision=7, wants={A: a_want(A, 2)}))
    assert fixture.view.waits == {}


def test_a_want_that_ends_is_an_unload() -> None:
    fixture = Fixture()
    fixture.write(a=None)
    assert (fixture.unloaded, fixture.view.waits) == ({A}, {})


def test_a_want_that_the_plan_drops_is_no_unload() -> None:
    fixture = Fixture()
    fixture.view.plan_drops([A])
    fixture.write(a=None)
    assert (fixture.unloaded, fixture.view.waits) == (set(), {A: FULL})
    assert fixture.view.desired.wants == {}
    fixture.write(a=a_want(A))
    fixture.write(a=None)
    assert fixture.unloaded == {A}  # the plan dropped it once


def test_what_a_plan_did_not_drop_after_all_is_forgotten_with_the_next() -> None:
    fixture = Fixture()
    fixture.view.plan_drops([A])
    fixture.view.plan_drops([])
    fixture.write(a=None)
    assert fixture.unloaded == {A}


def test_an_unload_of_what_nobody_wants_counts_until_someone_wants_it() -> None:
    fixture = Fixture()
    fixture.view.want_nowhere(B)
    assert fixture.unloaded == {B}
    fixture.write(b=a_want(B))
    assert fixture.unloaded == set()


def test_a_deleted_version_is_not_remembered() -> None:
    fixture = Fixture()
    fixture.view.take_changes(DesiredDelta(6, "6", versions={A: None}, wants={A: None}))
    assert fixture.unloaded == set()
    assert set(fixture.view.desired.versions) == {B}


async def test_who_asks_again_starts_a_plan() -> None:
    fixture = Fixture()
    seen = fixture.view.waiters.changes
    fixture.view.ask_again(A)
    assert fixture.view.waits == {}
    assert fixture.view.waiters.changes > seen
    assert fixture.view.changed() == ({A}, set())


@pytest.mark.parametrize(
    "read", [Desired(4, "c", {}, {}), Desired(0, "d", {}, {}), Desired(9, "c", {}, {})]
)
def test_what_the_store_holds_is_the_truth(read: Desired) -> None:
    fixture = Fixture()
    fixture.view.take_desired(read)
    assert fixture.view.desired.versions == {}
