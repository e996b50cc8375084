"""What a plan keeps while it is made: proposed wants, and the order in which wants are served."""

from dataclasses import replace

from control_plane.scheduling.context import AGING_S, PlanContext, ProposedWants
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.snapshot import LoadFailure, Snapshot
from tests.unit.control_plane.fleets import NOW, key, replica, snapshot, version, want, worker
from yolopool.vocabulary import Priority

STANDBY = version("s", residency=Residency(ResidencyMode.HOT_STANDBY))


def context_of(before: Snapshot) -> PlanContext:
    return PlanContext(before, ProposedFleet.of(before, NOW), NOW, ProposedWants(before))


def test_wants_are_those_of_desired_state_less_what_was_dropped() -> None:
    before = snapshot([], [want("a"), want("b"), want("c")], [STANDBY])
    wants = ProposedWants(replace(before, releasing={key("c")}))
    wants.drop(key("b"))
    wants.add(want("d"))
    assert [name for name in "abcds" if key(name) in wants] == ["a", "d", "s"]
    assert {one.key for one in wants.of(None)} == {key("a"), key("s")}
    assert [one.key for one in wants.of([key("a"), key("b"), key("d")])] == [key("a"), key("d")]
    assert set(wants.dropped) == {key("b"), key("c")}


def test_wants_are_ordered_by_pin_then_priority_then_age() -> None:
    versions = [version("bulk", placement=Placement(priority=Priority.BULK)),
                version("fast", placement=Placement(priority=Priority.INTERACTIVE))]  # fmt: skip
    wants = [want("bulk", 1.0), want("old", 2.0), want("new", 3.0), want("fast", 4.0),
             want("pin", 5.0, pinned=True)]  # fmt: skip
    order = context_of(snapshot([], wants, versions, unix_s=5.0)).urgency
    assert [w.key.model for w in sorted(wants, key=order)] == ["pin", "fast", "old", "new", "bulk"]
    aged = context_of(snapshot([], wants, versions, unix_s=1.0 + 2 * AGING_S)).urgency
    assert min(wants[:3], key=aged).key == key("bulk")


def test_a_failure_counts_until_its_retry() -> None:
    failures = {("w1", key("a")): LoadFailure("OUT_OF_MEMORY", "no", NOW + 1)}
    context = context_of(snapshot([worker("w1")], [want("a")], failures=failures))
    one = context.fleet.workers["w1"]
    assert context.failure(one, key("a")) is not None
    context.now = NOW + 1
    assert context.failure(one, key("a")) is None


def test_what_is_released_may_be_reused_by_an_assign_that_waits_for_it() -> None:
    context = context_of(snapshot([worker("w1", 10, [replica("a")])], [want("a"), want("b")]))
    one = context.fleet.workers["w1"]
    context.evict(one, key("a"), "it was worth least", "ROOM")
    assign = context.assign(want("b"), one, context.size(version("b"), one), "it fits")
    assert assign.after == (key("a"),)
    assert key("a") not in context.wants


def test_an_eviction_leaves_the_other_copies_wanted() -> None:
    fleet = [worker(name, 10, [replica("a")]) for name in ("w1", "w2")]
    context = context_of(snapshot(fleet, [want("a", replicas=2)]))
    release = context.evict(context.fleet.workers["w1"], key("a"), "idle", "ROOM")
    assert (release.drop_want, release.replicas_left) == (True, 1)
    left = context.wants.get(key("a"))
    assert left is not None
    assert left.replicas == 1
