"""What plans go by beside room: worth, priority, places, copies and what is likely to come."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.plan import plan, replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.command import Assign, Blocked, Command, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import Footprint
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.snapshot import OutstandingCalls, Snapshot
from control_plane.types.version import VersionKey
from control_plane.types.worker import WorkerInfo
from tests.matrix import examples
from tests.unit.control_plane.fleets import (
    NOW,
    carried_out,
    key,
    measured,
    replica,
    snapshot,
    version,
    want,
)
from tests.unit.control_plane.fleets import worker as a_worker
from yolopool.server.arrival_rates import ArrivalRates, Arrivals
from yolopool.vocabulary import Priority, ReplicaState

UNIX = 5000.0


def released(commands: Iterable[Command]) -> list[str]:
    return [f"{c.worker}/{c.key.model}" for c in commands if isinstance(c, Release)]


def assigned(commands: Iterable[Command]) -> list[str]:
    return [f"{c.worker}/{c.key.model}" for c in commands if isinstance(c, Assign)]


# --- worth --------------------------------------------------------------------------------------


def test_what_is_asked_for_least_leaves_and_not_what_was_used_longest_ago() -> None:
    held = [replica("often", used=10.0, rate=2.0), replica("rarely", used=90.0, rate=0.1)]
    full = a_worker("w", 20, held)
    before = snapshot([full], [want("often"), want("rarely"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/rarely"]


def test_what_is_slow_to_load_stays_before_what_is_quick() -> None:
    held = [replica("quick", rate=1.0), replica("slow", rate=1.0)]
    full = a_worker("w", 20, held)
    times = {
        measured("quick"): Footprint(10, 0, swap_ms=5, fetch_ms=20),
        measured("slow"): Footprint(10, 0, swap_ms=50, fetch_ms=900),
    }
    wants = [want("quick"), want("slow"), want("new", 95.0)]
    before = snapshot([full], wants, footprints=times, unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/quick"]


def test_of_two_asked_for_alike_the_one_that_has_stayed_stays() -> None:
    held = [replica("stays", rate=1.0, since=1.0), replica("came", rate=1.1, since=UNIX - 0.5)]
    full = a_worker("w", 20, held)
    before = snapshot([full], [want("stays"), want("came"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/came"]


def test_a_newcomer_waits_a_moment_for_one_worth_less_that_is_just_in_use() -> None:
    held = [replica("often", rate=2.0), replica("rarely", rate=0.1, outstanding=1)]
    full = a_worker("w", 20, held)
    wants = [want("often"), want("rarely"), want("new", UNIX)]
    slow = {measured("new"): Footprint(10, 0, swap_ms=100, fetch_ms=400)}
    soon = snapshot([full], wants, footprints=slow, unix_s=UNIX + 0.5)
    (wait,) = plan(soon, NOW)
    assert isinstance(wait, Blocked)
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)
    assert released(plan(replace(soon, unix_s=UNIX + 1.5), NOW)) == ["w/often"]


def test_tickets_this_process_sent_protect_before_their_worker_reports_them() -> None:
    full = a_worker("w", 10, [replica("a")])
    before = snapshot([full], [want("a"), want("b", 9.0)], unix_s=UNIX)
    busy = replace(before, calls={("w", key("a")): OutstandingCalls(outstanding=1)})
    assert released(plan(before, NOW)) == ["w/a"]
    assert released(plan(busy, NOW)) == []


def test_interactive_models_come_first_and_bulk_ones_leave_first() -> None:
    bulk, urgent = Placement(priority=Priority.BULK), Placement(priority=Priority.INTERACTIVE)
    versions = [version("bulk", placement=bulk), version("urgent", placement=urgent)]
    wants = [want("bulk", 1.0), want("plain", 2.0), want("urgent", 3.0)]
    one_place = snapshot([a_worker("w", 10)], wants, versions, unix_s=4.0)
    assert assigned(plan(one_place, NOW)) == ["w/urgent"]
    held = [replica("bulk", rate=2.0), replica("plain", rate=1.0)]
    full = snapshot([a_worker("w", 20, held)], wants, versions, unix_s=UNIX)
    assert released(plan(full, NOW)) == ["w/bulk"]


def test_what_has_waited_long_is_as_urgent_as_the_rest() -> None:
    bulk = version("bulk", placement=Placement(priority=Priority.BULK))
    wants = [want("bulk", 1.0), want("plain", 100.0)]
    assert assigned(plan(snapshot([a_worker("w", 10)], wants, [bulk], unix_s=50.0), NOW)) == [
        "w/plain"
    ]
    assert assigned(plan(snapshot([a_worker("w", 10)], wants, [bulk], unix_s=110.0), NOW)) == [
        "w/bulk"
    ]


# --- where --------------------------------------------------------------------------------------


def pools() -> list[WorkerInfo]:
    return [
        a_worker("big", 500, labels={"pool": "night"}),
        a_worker("small", 50, labels={"pool": "day", "site": "berlin"}),
    ]


def test_a_version_goes_to_its_pool_only() -> None:
    day = version("a", placement=Placement(pool="day"))
    assert assigned(plan(snapshot(pools(), [want("a")], [day]), NOW)) == ["small/a"]
    site = version("a", placement=Placement(labels={"site": "berlin"}))
    assert assigned(plan(snapshot(pools(), [want("a")], [site]), NOW)) == ["small/a"]


def test_where_nobody_may_take_it_the_reason_names_the_label() -> None:
    elsewhere = version("a", placement=Placement(pool="day", labels={"site": "rome"}))
    (wait,) = plan(snapshot(pools(), [want("a")], [elsewhere]), NOW)
    assert isinstance(wait, Blocked)
    assert (wait.reason, wait.final) == ("NO_WORKER", False)
    assert "pool=day, site=rome" in wait.why


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
    old = a_worker("old", 500, [replica("a"), replica("b")])
    wants = [want("a"), want("b"), want("c")]
    before = cordoned(snapshot([old, a_worker("new", 25)], wants), "old")
    first = plan(before, NOW)
    assert (assigned(first), released(first)) == (["new/a", "new/b"], [])
    assert [c.reason for c in first if isinstance(c, Blocked)] == ["LEDGER_FULL"]
    second = plan(carried_out(before, first), NOW)
    assert {"old/a", "old/b"} <= set(released(second))


def test_the_next_process_of_a_drained_worker_takes_work() -> None:
    again = replace(a_worker("w"), incarnation="w-2")
    before = snapshot([again], [want("a")])
    old = replace(before, desired=replace(before.desired, cordons={"w": "w-1"}))
    assert assigned(plan(old, NOW)) == ["w/a"]


# --- copies -------------------------------------------------------------------------------------


def queued(*held: tuple[str, float, float]) -> list[WorkerInfo]:
    """Workers by (name, queue_ms, busy) of their copy of `a`; an idle one beside."""
    there = [
        a_worker(name, replicas=[replica("a", queue_ms=waits, busy=busy)])
        for name, waits, busy in held
    ]
    return [*there, a_worker("idle")]


def test_where_requests_wait_at_every_copy_there_is_one_more() -> None:
    before = snapshot(queued(("w1", 400.0, 0.95), ("w2", 150.0, 0.9)), [want("a", replicas=2)])
    (more,) = plan(before, NOW)
    assert isinstance(more, Assign)
    assert (more.worker, more.pinned) == ("idle", False)
    assert "wait 150 ms at every copy" in more.why
    calm = snapshot(queued(("w1", 400.0, 0.95), ("w2", 50.0, 0.5)), [want("a", replicas=2)])
    assert plan(calm, NOW) == []


def test_no_copy_beyond_the_bound_or_to_a_busy_or_full_device() -> None:
    waiting = queued(("w1", 400.0, 0.95))
    bound = version("a", placement=Placement(max_replicas=1))
    assert plan(snapshot(waiting, [want("a")], [bound]), NOW) == []
    busy = a_worker("idle", replicas=[replica("b", busy=0.9)])
    assert plan(snapshot([waiting[0], busy], [want("a"), want("b")]), NOW) == []
    full = a_worker("idle", 15, replicas=[replica("b")])
    assert plan(snapshot([waiting[0], full], [want("a"), want("b")]), NOW) == []


def test_copies_stay_as_long_as_they_are_needed() -> None:
    needed = queued(("w1", 5.0, 0.4), ("w2", 5.0, 0.4))
    assert plan(snapshot(needed, [want("a")]), NOW) == []
    idle = queued(("w1", 5.0, 0.2), ("w2", 5.0, 0.2))
    assert released(plan(snapshot(idle, [want("a")]), NOW)) == ["w1/a"]


@given(st.floats(0.0, 6.0), st.integers(1, 8))
@examples(80)
def test_constant_demand_moves_nothing_for_long(demand: float, devices: int) -> None:
    """Devices' worth of work for one version: copies settle, and stay as they are."""
    there = 1
    history = []
    for _ in range(20):
        share = demand / there
        waits = 20.0 / max(0.04, 1.0 - share) if share < 1.0 else 1000.0
        workers = [
            a_worker(
                f"w{n}",
                replicas=[replica("a", queue_ms=waits, busy=min(1.0, share))] if n < there else [],
            )
            for n in range(devices)
        ]
        commands = plan(snapshot(workers, [want("a")]), NOW)
        there += len(assigned(commands)) - len(released(commands))
        history.append(there)
    assert len(set(history[-8:])) == 1, history
    assert 1 <= there <= devices
    if demand < 0.9 * devices:
        assert there > demand


# --- what is likely to come ----------------------------------------------------------------------


def departed(before: Snapshot, **rates: float) -> Snapshot:
    gone = {key(name): Arrivals(ArrivalRates(r, r, r), NOW) for name, r in rates.items()}
    return replace(before, departed=gone)


def test_what_was_asked_for_is_fetched_ahead_where_there_is_room() -> None:
    idle = a_worker("w", 30, [replica("b", 20)], tier=40)
    before = departed(snapshot([idle], [want("b")], [version("a"), version("b", 20)]), a=0.5)
    (fetch,) = plan(before, NOW)
    assert isinstance(fetch, Assign)
    assert (fetch.worker, fetch.key, fetch.prefetch) == ("w", key("a"), True)
    assert str(fetch).startswith("prefetch a@1 to w: ")


@pytest.mark.parametrize(
    "change",
    [
        {"tier": 0},  # nothing beneath the device
        {"tier": 25},  # no room there
        {"replicas": [replica("b", 20, busy=0.5)]},
        {"replicas": [replica("b", 20, state=ReplicaState.ASSIGNED)]},
    ],
)
def test_nothing_is_fetched_ahead_beside_work_or_without_room(change: dict[str, object]) -> None:
    fields = {"replicas": [replica("b", 20)], "tier": 40, **change}
    one = a_worker("w", 30, **fields)  # type: ignore[arg-type]
    before = departed(snapshot([one], [want("b")], [version("a"), version("b", 20)]), a=0.5)
    assert plan(before, NOW) == []


def test_what_was_unloaded_or_is_kept_on_demand_is_not_fetched_ahead() -> None:
    idle = a_worker("w", 30, tier=40)
    before = departed(snapshot([idle], [], [version("a")]), a=0.5)
    assert assigned(plan(before, NOW)) == ["w/a"]
    assert plan(replace(before, unloaded={key("a")}), NOW) == []
    on_demand = version("a", residency=Residency(ResidencyMode.ON_DEMAND))
    assert plan(departed(snapshot([idle], [], [on_demand]), a=0.5), NOW) == []


def test_the_next_version_of_a_model_in_use_is_fetched_ahead() -> None:
    used = a_worker("w", 30, [replica("a", rate=1.0)], tier=40)
    newer = replace(version("a"), key=key("a", 2))
    before = snapshot([used], [want("a")], [version("a"), newer])
    (fetch,) = plan(before, NOW)
    assert isinstance(fetch, Assign)
    assert (fetch.key, fetch.prefetch) == (key("a", 2), True)


def test_what_was_fetched_ahead_leaves_first_and_is_not_replaced() -> None:
    held = [
        replica("ahead", state=ReplicaState.WARM, used=0.0),
        replica("used", rate=0.001, used=9.0),
    ]
    ahead = Want(key("ahead"), 1, False, WantSource.PREFETCH, 50.0)
    full = a_worker("w", 100, held, tier=20)
    before = snapshot([full], [ahead, want("used"), want("new", 95.0)], unix_s=UNIX)
    assert released(plan(before, NOW)) == ["w/ahead"]
    lost = plan(snapshot([a_worker("w", 100, tier=20)], [ahead]), NOW)
    assert [str(c) for c in lost] == [
        "drop want of ahead@1: nobody asked for it, and its worker is gone"
    ]


def ahead(used: float, **fields: object) -> Snapshot:
    """`a` was fetched ahead at 50, and used last at `used`."""
    there = replica("a", state=ReplicaState.WARM, used=used, **fields)  # type: ignore[arg-type]
    want_of = Want(key("a"), 1, False, WantSource.PREFETCH, 50.0)
    return snapshot([a_worker("w", 100, [there], tier=200)], [want_of], unix_s=UNIX)


def test_what_was_fetched_ahead_and_is_used_is_wanted_from_then_on() -> None:
    assert plan(ahead(used=0.0), NOW) == []
    assert next(str(c) for c in plan(ahead(used=60.0), NOW)).startswith("keep a@1")


def test_what_was_fetched_ahead_is_loaded_once_somebody_wants_it() -> None:
    before = ahead(used=0.0)
    loaded = replace(before, desired=replace(before.desired, wants={key("a"): want("a", 60.0)}))
    (assign,) = plan(loaded, NOW)
    assert isinstance(assign, Assign)
    assert (assign.worker, assign.prefetch) == ("w", False)


def test_a_stranded_copy_leaves_the_others() -> None:
    pinned = replica("p", 60, pinned=True)
    tight = a_worker("w1", 80, [pinned, replica("a", 30)], tier=500)
    fine = a_worker("w2", 80, [replica("a", 30, outstanding=2)], tier=500)
    wants = [want("p", pinned=True), want("a")]
    versions = [version("p", 60), version("a", 30)]
    commands = plan(snapshot([tight, fine], wants, versions), NOW)
    assert released(commands) == ["w1/a"]
    (release,) = [c for c in commands if isinstance(c, Release)]
    assert (release.drop_want, release.replicas_left) == (True, 1)


def test_copies_beyond_what_is_wanted_are_not_pinned() -> None:
    held = [
        a_worker("w1", replicas=[replica("a", pinned=True, queue_ms=300, busy=0.9)]),
        a_worker("w2", replicas=[replica("a", queue_ms=300, busy=0.9)]),
    ]
    assert plan(snapshot(held, [want("a", pinned=True)]), NOW) == []


# --- plans of what changed -----------------------------------------------------------------------


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = st.sampled_from(["want", "drop", "lose", "join"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 5)), min_size=1, max_size=12))


@given(changes())
@examples(80)
def test_plans_of_what_changed_come_to_where_whole_plans_do(steps: list[tuple[str, int]]) -> None:
    versions = [version(name) for name in NAMES]
    now = snapshot([a_worker(id_, 30) for id_ in WORKERS], [], versions)
    fleet, waiting = ProposedFleet.of(now, NOW), set[VersionKey]()
    for kind, number in steps:
        now, about = changed(now, fleet, kind, number)
        for _ in range(8):
            about |= waiting
            planned = replan(fleet, now, NOW, about)
            waiting = {c.key for c in planned if isinstance(c, Blocked)}
            commands = [c for c in planned if not isinstance(c, Blocked)]
            after = carried_out(now, commands)
            for one in after.workers.values():
                if one != now.workers.get(one.id):
                    fleet.put(one, after, NOW)
                    about |= one.replicas.keys()
            now = after
            if not commands:
                break
    assert [c for c in plan(now, NOW) if not isinstance(c, Blocked)] == []


NAMES, WORKERS = "abcdef", ("w0", "w1", "w2")


def changed(
    now: Snapshot, fleet: ProposedFleet, kind: str, number: int
) -> tuple[Snapshot, set[VersionKey]]:
    """After one change, with the versions it is about."""
    name, worker_id = NAMES[number], WORKERS[number % 3]
    wants, held = dict(now.desired.wants), dict(now.workers)
    about = {key(name)}
    if kind == "want":
        wants[key(name)] = want(name, replicas=1 + number % 2)
    elif kind == "drop":
        wants.pop(key(name), None)
    elif kind == "lose" and worker_id in held:
        about |= held.pop(worker_id).replicas.keys()
        fleet.drop(worker_id)
    elif kind == "join" and worker_id not in held:
        held[worker_id] = a_worker(worker_id, 30)
        fleet.put(held[worker_id], now, NOW)
        about |= wants.keys()
    return replace(now, workers=held, desired=replace(now.desired, wants=wants)), about
