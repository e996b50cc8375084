"""Preemption: who is evicted for whom, who never is, and pins that need memory."""

from dataclasses import replace
from typing import Any

from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign, Blocked, Release
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint
from control_plane.types.rollout.alias import Alias, Kept, Target
from control_plane.types.snapshot import OutstandingCalls, Snapshot
from tests.unit.control_plane.fleets import (
    NOW,
    carried_out,
    deeds,
    key,
    measured,
    one_wait,
    released,
    replica,
    snapshot,
    version,
    want,
    worker,
)

UNIX = 5000.0


def test_the_least_recently_used_leaves_and_is_forgotten() -> None:
    full = worker("w1", 20, [replica("a", used=9.0), replica("b", used=7.0)])
    before = snapshot([full], [want("a"), want("b"), want("c", since=20.0)])
    release, assign = plan(before, NOW)
    assert isinstance(release, Release)
    assert (release.key, release.drop_want) == (key("b"), True)
    assert isinstance(assign, Assign)
    assert (assign.key, assign.after) == (key("c"), (key("b"),))


def test_only_as_many_leave_as_are_needed() -> None:
    full = worker("w1", 60, [replica("a", 10, used=1.0), replica("b", 50, used=2.0)])
    before = snapshot(
        [full],
        [want("a", since=0.5), want("b", since=0.5), want("c", since=20.0)],
        [version("a"), version("b", 50), version("c", 50)],
    )
    assert [c.key for c in plan(before, NOW) if isinstance(c, Release)] == [key("b")]


def test_what_a_moving_alias_needs_stays_but_for_pinned_ones() -> None:
    full = worker("w1", 20, [replica("a", used=9.0), replica("b", used=7.0)])
    before = snapshot([full], [want("a"), want("b"), want("c", since=20.0)])
    kept = Alias("b", "stable", (Target(2, 1000),), 600.0, 0.0, kept=(Kept(1, 9e9),))
    held = replace(before, desired=replace(before.desired, aliases={kept.key: kept}))
    assert [c.key for c in plan(held, NOW) if isinstance(c, Release)] == [key("a")]
    settled = replace(kept, kept=())
    loose = replace(before, desired=replace(before.desired, aliases={kept.key: settled}))
    assert [c.key for c in plan(loose, NOW) if isinstance(c, Release)] == [key("b")]
    urgent = snapshot([full], [want("a"), want("b"), want("c", since=20.0, pinned=True)])
    pinned = replace(urgent, desired=replace(urgent.desired, aliases={kept.key: kept}))
    assert [c.key for c in plan(pinned, NOW) if isinstance(c, Release)] == [key("b")]


def test_replicas_with_tickets_and_pinned_ones_stay() -> None:
    full = worker("w1", 20, [replica("a", outstanding=1), replica("b", pinned=True)])
    before = snapshot([full], [want("a"), want("b", pinned=True), want("c", since=20.0)])
    wait = one_wait([*plan(before, NOW)])
    assert (wait.key, wait.reason, wait.final) == (key("c"), "LEDGER_FULL", False)


def test_room_taken_by_pins_is_a_final_no() -> None:
    full = worker("w1", 10, [replica("a", pinned=True)])
    wait = one_wait([*plan(snapshot([full], [want("a", pinned=True), want("b")]), NOW)])
    assert (wait.reason, wait.final) == ("LEDGER_FULL", True)


def test_what_was_just_loaded_for_a_newer_want_is_not_taken_unused() -> None:
    full = worker("w1", 10, [replica("new", used=0.0)])
    wait = one_wait([*plan(snapshot([full], [want("old", 1.0), want("new", 2.0)]), NOW)])
    assert (wait.key, wait.final) == (key("old"), False)


def test_a_pinned_want_takes_the_room_of_a_soft_one() -> None:
    full = worker("w1", 10, [replica("soft", used=9.0)])
    found = plan(snapshot([full], [want("soft"), want("a", 2.0, pinned=True)]), NOW)
    assert [type(c) for c in found] == [Release, Assign]


def test_a_tier_that_is_full_releases_the_least_recently_used() -> None:
    held = [replica("a", 40, used=1.0), replica("b", 40, used=2.0)]
    before = snapshot([worker("w1", 50, held, tier=100)], [want("a"), want("b"), want("c", 9.0)],
                      [version(name, 40) for name in "abc"])  # fmt: skip
    commands = plan(before, NOW)
    assert [c.key for c in commands if isinstance(c, Release)] == [key("a")]


def test_what_is_asked_for_least_leaves_and_not_what_was_used_longest_ago() -> None:
    held = [replica("often", used=10.0, rate=2.0), replica("rarely", used=90.0, rate=0.1)]
    full = worker("w", 20, held)
    before = snapshot([full], [want("often"), want("rarely"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/rarely"]


def test_what_is_slow_to_load_stays_before_what_is_quick() -> None:
    held = [replica("quick", rate=1.0), replica("slow", rate=1.0)]
    full = worker("w", 20, held)
    times = {
        measured("quick"): Footprint(10, 0, swap_ms=5, fetch_ms=20),
        measured("slow"): Footprint(10, 0, swap_ms=50, fetch_ms=900),
    }
    wants = [want("quick"), want("slow"), want("new", 95.0)]
    before = snapshot([full], wants, footprints=times, unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/quick"]


def test_of_two_asked_for_alike_the_one_that_has_stayed_stays() -> None:
    held = [replica("stays", rate=1.0, since=1.0), replica("came", rate=1.1, since=UNIX - 0.5)]
    full = worker("w", 20, held)
    before = snapshot([full], [want("stays"), want("came"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/came"]


def test_a_newcomer_waits_a_moment_for_one_worth_less_that_is_just_in_use() -> None:
    held = [replica("often", rate=2.0), replica("rarely", rate=0.1, outstanding=1)]
    full = worker("w", 20, held)
    wants = [want("often"), want("rarely"), want("new", UNIX)]
    slow = {measured("new"): Footprint(10, 0, swap_ms=100, fetch_ms=400)}
    soon = snapshot([full], wants, footprints=slow, unix_s=UNIX + 0.5)
    (wait,) = plan(soon, NOW)
    assert isinstance(wait, Blocked)
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)
    assert released(plan(replace(soon, unix_s=UNIX + 1.5), NOW)) == ["w/often"]


def test_tickets_this_process_sent_protect_before_their_worker_reports_them() -> None:
    full = worker("w", 10, [replica("a")])
    before = snapshot([full], [want("a"), want("b", 9.0)], unix_s=UNIX)
    busy = replace(before, calls={("w", key("a")): OutstandingCalls(outstanding=1)})
    assert released(plan(before, NOW)) == ["w/a"]
    assert released(plan(busy, NOW)) == []


def tier_of(*wants: Want, sizes: int = 60, **fields: Any) -> Snapshot:
    """One worker of 100 bytes with a large tier, and versions of so many bytes."""
    versions = [version(one.key.model, sizes) for one in wants]
    return snapshot([worker("w1", 100, tier=1000, **fields)], wants, versions)


def test_what_cannot_be_pinned_beside_the_pinned_hears_why() -> None:
    held = [replica("a", 60, pinned=True), replica("b", 60, outstanding=1)]
    wants = [want("a", pinned=True), want("b", pinned=True)]
    versions = [version("a", 60), version("b", 60)]
    before = snapshot([worker("w1", 100, held, tier=1000)], wants, versions)
    wait = one_wait(plan(before, NOW))
    assert (wait.reason, wait.final) == ("LEDGER_FULL", True)
    assert "pinned models leave no room" in wait.why


def test_a_limit_of_count_is_of_the_pinned_where_there_is_a_tier() -> None:
    held = [replica("a", 1, pinned=True)]
    wants = [want("a", pinned=True), want("b", pinned=True)]
    assert not deeds(plan(snapshot([worker("w1", 100, held, max_hot=1)], wants), NOW))
    assert not deeds(plan(snapshot([worker("w1", 100, held, max_hot=1, tier=99)], wants), NOW))
    assert deeds(plan(snapshot([worker("w1", 100, held, max_hot=2, tier=99)], wants), NOW))


def test_of_two_pins_the_more_urgent_has_the_room() -> None:
    wants = [want("a", 2.0, pinned=True), want("b", 1.0, pinned=True)]
    before = tier_of(*wants, replicas=[replica("a", 60), replica("b", 60)])
    pin, wait = plan(before, NOW)
    assert pin == Assign("w1", key("b"), True, "it was pinned")
    assert isinstance(wait, Blocked)
    assert (wait.key, wait.reason, wait.final) == (key("a"), "LEDGER_FULL", True)
    # It is of no use where it can't come to the device, and goes on being wanted.
    release, *_ = plan(carried_out(before, [pin]), NOW)
    assert isinstance(release, Release)
    assert (release.key, release.drop_want) == (key("a"), False)


def test_a_pin_makes_its_room_first_and_waits_for_those_in_use() -> None:
    wants = [want("a", pinned=True), want("b", 0.5)]
    release, pin = plan(tier_of(*wants, replicas=[replica("a", 60), replica("b", 60)]), NOW)
    assert isinstance(release, Release)
    assert (release.key, release.drop_want) == (key("b"), True)
    assert pin == Assign("w1", key("a"), True, "it was pinned", (key("b"),))
    busy = [replica("a", 60), replica("b", 60, outstanding=1)]
    wait = one_wait(plan(tier_of(*wants, replicas=busy), NOW))
    assert (wait.key, wait.reason, wait.final) == (key("a"), "LEDGER_FULL", False)


def test_a_pin_that_ends_gives_its_room_to_another_in_the_same_plan() -> None:
    held = [replica("a", 60, pinned=True, outstanding=1), replica("b", 40)]
    before = tier_of(want("a", 0.5), want("b", pinned=True), sizes=40, replicas=held)
    assert plan(before, NOW) == [
        Assign("w1", key("a"), False, "it was unpinned"),
        Assign("w1", key("b"), True, "it was pinned"),
    ]


def test_a_pin_without_room_goes_to_a_worker_that_has_it() -> None:
    held = [replica("a", 60, pinned=True), replica("b", 30), replica("c", 30, outstanding=1)]
    wants = [want("a", pinned=True), want("b", pinned=True), want("c")]
    versions = [version("a", 60), version("b", 30), version("c", 30)]
    workers = [worker("w1", 100, held, tier=1000), worker("w2", 100, tier=1000)]
    before = snapshot(workers, wants, versions)
    commands = plan(before, NOW)
    assert commands == [Assign("w2", key("b"), True, "it fits")]
    # It serves where it is until the other has it, then it leaves.
    (release,) = plan(carried_out(before, commands), NOW)
    assert isinstance(release, Release)
    assert (release.worker, release.key, release.drop_want) == ("w1", key("b"), False)
