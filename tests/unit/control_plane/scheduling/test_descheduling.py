"""Releases without preemption: unwanted, surplus, idle, unschedulable, misplaced."""

from dataclasses import replace

from control_plane.scheduling.plan import plan
from control_plane.types.command import Blocked, Command, Release
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.snapshot import Snapshot
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
    carried_out,
    key,
    pools,
    released,
    replica,
    snapshot,
    version,
    want,
    worker,
)
from yolopool.vocabulary import ReplicaState


def test_what_nobody_wants_leaves_once_it_is_loaded() -> None:
    held = [replica("a"), replica("b", state=ReplicaState.ASSIGNED), replica("c")]
    before = snapshot([worker("w1", replicas=held)], [], [version("a")])
    found = [c for c in plan(before, NOW) if isinstance(c, Release)]
    assert [(c.key, c.why) for c in found] == [
        (key("a"), "nobody wants it"),
        (key("c"), "it was deleted"),
    ]


def test_surplus_copies_leave_least_recently_used_first() -> None:
    workers = [worker(f"w{n}", replicas=[replica("a", used=float(n))]) for n in (1, 2, 3)]
    found = plan(snapshot(workers, [want("a", replicas=1)]), NOW)
    assert [c.worker for c in found if isinstance(c, Release)] == ["w1", "w2"]


def test_of_copies_in_use_the_one_leaves_that_was_asked_least() -> None:
    """Made while a worker was away that is back now: callers know the others."""
    asked = {"w1": 5_000, "w2": 12, "w3": 4_000}
    workers = [
        worker(name, replicas=[replace(replica("a", used=1000.0 - n), requests_total=count)])
        for n, (name, count) in enumerate(asked.items())
    ]
    found = plan(snapshot(workers, [want("a", replicas=2)], unix_s=1000.0), NOW)
    assert [c.worker for c in found if isinstance(c, Release)] == ["w2"]


def test_what_cannot_come_to_the_device_beside_the_pinned_is_released() -> None:
    held = [replica("a", 60, pinned=True), replica("b", 60, used=1.0)]
    before = snapshot([worker("w1", 100, held, tier=1000)], [want("a", pinned=True), want("b")],
                      [version("a", 60), version("b", 60)])  # fmt: skip
    (release,) = plan(before, NOW)
    assert isinstance(release, Release)
    assert (release.key, release.drop_want) == (key("b"), True)
    assert "pinned models leave no room" in release.why


def test_a_stranded_copy_leaves_the_others() -> None:
    pinned = replica("p", 60, pinned=True)
    tight = worker("w1", 80, [pinned, replica("a", 30)], tier=500)
    fine = worker("w2", 80, [replica("a", 30, outstanding=2)], tier=500)
    wants = [want("p", pinned=True), want("a")]
    versions = [version("p", 60), version("a", 30)]
    commands = plan(snapshot([tight, fine], wants, versions), NOW)
    assert released(commands) == ["w1/a"]
    (release,) = [c for c in commands if isinstance(c, Release)]
    assert (release.drop_want, release.replicas_left) == (True, 1)


ON_DEMAND = Residency(ResidencyMode.ON_DEMAND, idle_release_s=30.0)


def test_what_is_kept_on_demand_leaves_when_idle() -> None:
    def planned(unix_s: float, outstanding: int = 0, pinned: bool = False) -> list[Command]:
        held = [replica("a", used=100.0, outstanding=outstanding, pinned=pinned)]
        return plan(
            snapshot([worker("w1", replicas=held)], [want("a", 90.0, pinned=pinned)],
                     [version("a", residency=ON_DEMAND)], unix_s=unix_s),
            NOW,
        )  # fmt: skip

    assert planned(129.0) == []
    (release,) = planned(130.0)
    assert isinstance(release, Release)
    assert (release.drop_want, release.why) == (True, "idle for 30 s: it is kept on demand only")
    assert planned(999.0, outstanding=1) == []
    assert planned(999.0, pinned=True) == []


def test_a_version_on_demand_is_idle_from_when_it_was_wanted() -> None:
    held = [replica("a", used=0.0)]
    one = version("a", residency=ON_DEMAND)
    early = snapshot([worker("w1", replicas=held)], [want("a", 100.0)], [one], unix_s=129.0)
    assert plan(early, NOW) == []
    late = snapshot([worker("w1", replicas=held)], [want("a", 100.0)], [one], unix_s=130.0)
    assert len(plan(late, NOW)) == 1


def test_replicas_on_demand_leave_together_when_all_are_idle() -> None:
    one = version("a", residency=ON_DEMAND)

    def planned(used: float) -> list[Command]:
        workers = [
            worker("w1", replicas=[replica("a", used=100.0)]),
            worker("w2", replicas=[replica("a", used=used)]),
        ]
        return plan(snapshot(workers, [want("a", replicas=2)], [one], unix_s=150.0), NOW)

    assert planned(121.0) == []
    assert [c.worker for c in planned(120.0) if isinstance(c, Release) and c.drop_want] == [
        "w1",
        "w2",
    ]


def test_one_that_may_not_stay_is_replaced_first() -> None:
    day = version("a", placement=Placement(pool="day"))
    big, small = pools()
    there = replace(big, replicas={key("a"): replica("a")})
    before = snapshot([there, small], [want("a")], [day])
    first = plan(before, NOW)
    assert (assigned(first), released(first)) == (["small/a"], [])
    second = plan(carried_out(before, first), NOW)
    assert (assigned(second), released(second)) == ([], ["big/a"])
    assert plan(carried_out(carried_out(before, first), second), NOW) == []


def cordoned(before: Snapshot, *workers: str) -> Snapshot:
    cordons = {id_: before.workers[id_].incarnation for id_ in workers}
    return replace(before, desired=replace(before.desired, cordons=cordons))


def test_a_worker_that_is_to_drain_takes_nothing_and_gives_up_what_is_replaced() -> None:
    old = worker("old", 500, [replica("a"), replica("b")])
    wants = [want("a"), want("b"), want("c")]
    before = cordoned(snapshot([old, worker("new", 25)], wants), "old")
    first = plan(before, NOW)
    assert (assigned(first), released(first)) == (["new/a", "new/b"], [])
    assert [c.reason for c in first if isinstance(c, Blocked)] == ["LEDGER_FULL"]
    second = plan(carried_out(before, first), NOW)
    assert {"old/a", "old/b"} <= set(released(second))
