"""The plan: what it decides from a whole snapshot, and what holds of every plan."""

from collections.abc import Collection
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.plan import plan, replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.command import Assign, Blocked, DropWant, Release
from control_plane.types.footprint import Footprint
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import VersionKey, VersionState
from control_plane.types.worker import Replica, WorkerInfo, WorkerState
from tests.matrix import examples
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
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
from yolopool.vocabulary import Priority, ReplicaState


def test_imports_are_waited_for_and_failed_ones_are_not() -> None:
    states = {"a": VersionState.IMPORTING, "b": VersionState.FAILED}
    before = snapshot(
        [worker("w1")], map(want, states), [version(n, state=s) for n, s in states.items()]
    )
    waits = [c for c in plan(before, NOW) if isinstance(c, Blocked)]
    assert [(w.reason, w.final) for w in waits] == [
        ("MODEL_NOT_READY", False),
        ("MODEL_IMPORT_FAILED", True),
    ]


def test_a_failed_load_is_tried_elsewhere_then_reported_then_tried_again() -> None:
    failed = {("w1", key("a")): LoadFailure("OUT_OF_MEMORY", "no memory", NOW + 5)}
    elsewhere = plan(snapshot([worker("w1", 200), worker("w2")], [want("a")], (), failed), NOW)
    assert [c.worker for c in elsewhere if isinstance(c, Assign)] == ["w2"]
    alone = snapshot([worker("w1")], [want("a")], (), failed)
    wait, forget = plan(alone, NOW)
    assert isinstance(wait, Blocked)
    assert isinstance(forget, DropWant)
    assert (wait.reason, wait.final, wait.retry_after_s) == ("LOAD_FAILED", True, 5.0)
    assert "no memory" in wait.why
    later = snapshot([worker("w1", lease=NOW + 9)], [want("a")], (), failed)
    assert isinstance(plan(later, NOW + 5)[0], Assign)


def test_a_pin_that_changes_is_told() -> None:
    before = snapshot([worker("w1", replicas=[replica("a")])], [want("a", pinned=True)])
    assert plan(before, NOW) == [Assign("w1", key("a"), True, "it was pinned")]


def test_who_is_leaving_keeps_its_room_until_it_is_gone() -> None:
    leaving = worker("w1", 10, [replica("a", state=ReplicaState.RELEASING)])
    wait = one_wait([*plan(snapshot([leaving], [want("b")]), NOW)])
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)


def test_a_hot_standby_is_wanted_and_pinned_without_being_asked_for() -> None:
    one = version("a", residency=Residency(ResidencyMode.HOT_STANDBY))
    assert plan(snapshot([worker("w1")], [], [one]), NOW) == [
        Assign("w1", key("a"), True, "it fits")
    ]
    missed = snapshot([worker("w1", replicas=[replica("a")])], [want("a")], [one])
    assert plan(missed, NOW) == [Assign("w1", key("a"), True, "it was pinned")]
    importing = version("a", state=VersionState.IMPORTING,
                        residency=Residency(ResidencyMode.HOT_STANDBY))  # fmt: skip
    assert deeds(plan(snapshot([worker("w1")], [], [importing]), NOW)) == []


def test_interactive_models_come_first_and_bulk_ones_leave_first() -> None:
    bulk, urgent = Placement(priority=Priority.BULK), Placement(priority=Priority.INTERACTIVE)
    versions = [version("bulk", placement=bulk), version("urgent", placement=urgent)]
    wants = [want("bulk", 1.0), want("plain", 2.0), want("urgent", 3.0)]
    one_place = snapshot([worker("w", 10)], wants, versions, unix_s=4.0)
    assert assigned(plan(one_place, NOW)) == ["w/urgent"]
    held = [replica("bulk", rate=2.0), replica("plain", rate=1.0)]
    full = snapshot([worker("w", 20, held)], wants, versions, unix_s=UNIX)
    assert released(plan(full, NOW)) == ["w/bulk"]


def test_what_has_waited_long_is_as_urgent_as_the_rest() -> None:
    bulk = version("bulk", placement=Placement(priority=Priority.BULK))
    wants = [want("bulk", 1.0), want("plain", 100.0)]
    assert assigned(plan(snapshot([worker("w", 10)], wants, [bulk], unix_s=50.0), NOW)) == [
        "w/plain"
    ]
    assert assigned(plan(snapshot([worker("w", 10)], wants, [bulk], unix_s=110.0), NOW)) == [
        "w/bulk"
    ]


def test_a_pinned_copy_too_many_is_told_to_leave_and_nothing_else() -> None:
    def warm(name: str, pinned: bool = False) -> Replica:
        return replace(
            replica(name, pinned=pinned),
            state=ReplicaState.WARM, weights_bytes=1, workspace_bytes=0,
        )  # fmt: skip

    workers = [
        worker("w0", 2, [warm("b"), warm("a", pinned=True)], tier=3),
        worker("w2", 1, [warm("a")], tier=2),
    ]
    sizes = {measured(name): Footprint(1, 0) for name in "ab"}
    before = snapshot(workers, [want("a"), want("b")], [version("a"), version("b")], {}, sizes)
    about = [c for c in plan(before, NOW) if not isinstance(c, Blocked) and c.key == key("a")]
    assert [type(command) for command in about] == [Release]


UNIX = 5000.0
NAMES = "abcdefg"


@st.composite
def fleets(draw: st.DrawFn, settled: bool = False) -> Snapshot:
    """Any fleet within its ledgers, replicas of wanted and other versions in all states, or in
    those (`settled`) in which no command is under way.
    """
    moving = {ReplicaState.ASSIGNED, ReplicaState.RELEASING} if settled else set()
    replica_states = st.sampled_from([s for s in ReplicaState if s not in moving])
    sizes = {name: Footprint(draw(st.integers(1, 60)), draw(st.integers(0, 20))) for name in NAMES}
    wants = [
        want(
            name,
            float(draw(st.integers(0, 9))),
            pinned=draw(st.booleans()),
            replicas=draw(st.integers(1, 3)),
        )
        for name in sorted(draw(st.sets(st.sampled_from(NAMES))))
    ]
    pinned = {w.key.model for w in wants if w.pinned}
    workers = []
    for number in range(draw(st.integers(0, 4))):
        replicas = [
            replica(
                name,
                sizes[name].weights_bytes,
                sizes[name].workspace_bytes,
                state=draw(replica_states),
                used=float(draw(st.integers(0, 9))),
                pinned=name in pinned,
                outstanding=draw(st.integers(0, 1)),
            )
            for name in sorted(draw(st.sets(st.sampled_from(NAMES), max_size=4)))
        ]
        full = worker(f"w{number}", 0, replicas, context=draw(st.integers(0, 10)))
        workers.append(
            worker(
                full.id,
                full.ledger.used_bytes + draw(st.integers(0, 60)),
                replicas,
                context=full.ledger.context_bytes,
                state=draw(st.sampled_from([WorkerState.READY] * 3 + [WorkerState.DRAINING])),
                lease=NOW + draw(st.sampled_from([1.0, 1.0, 1.0, 0.0])),
            )
        )
    states = st.sampled_from([VersionState.READY] * 4 + [VersionState.FAILED])
    versions = [version(name, state=draw(states)) for name in NAMES]
    failures = {
        (w.id, key(name)): LoadFailure("LOAD_FAILED", "broken", NOW + draw(st.integers(-1, 1)))
        for w in workers
        for name in sorted(draw(st.sets(st.sampled_from(NAMES), max_size=2)))
    }
    footprints = {measured(name): size for name, size in sizes.items()}
    return snapshot(workers, wants, versions, failures, footprints)


@st.composite
def tiered(draw: st.DrawFn) -> Snapshot:
    """A fleet whose workers take more than fit their devices; what is pinned there is not always
    what is wanted pinned.
    """
    before = draw(fleets(settled=True))
    workers = {}
    for one in before.workers.values():
        replicas = [replace(r, pinned=draw(st.booleans())) for r in one.replicas.values()]
        held = [r for r in replicas if r.state is not ReplicaState.FAILED]
        pinned = [r for r in held if r.pinned]
        largest = max((r.weights_bytes for r in held if not r.pinned), default=0)
        device = one.ledger.context_bytes + sum(r.weights_bytes for r in pinned) + largest
        device += max((r.workspace_bytes for r in held), default=0) + draw(st.integers(0, 40))
        weights = sum(r.weights_bytes for r in held)
        workers[one.id] = worker(
            one.id, device, replicas, context=one.ledger.context_bytes,
            state=one.state, lease=one.lease_until_s, tier=weights + draw(st.integers(1, 80)),
            max_hot=draw(st.sampled_from([0, len(pinned) + 1, len(pinned) + 2])),
        )  # fmt: skip
    return replace(before, workers=workers)


def fits_at_once(one: WorkerInfo, replicas: Collection[Replica]) -> bool:
    weights = sum(r.weights_bytes for r in replicas)
    workspace = max((r.workspace_bytes for r in replicas), default=0)
    counted = not one.ledger.max_hot or len(replicas) <= one.ledger.max_hot
    return counted and one.ledger.context_bytes + weights + workspace <= one.ledger.budget_bytes


@given(fleets())
@examples(120)
def test_no_plan_overruns_a_ledger(before: Snapshot) -> None:
    after = carried_out(before, plan(before, NOW))
    for one in after.workers.values():
        assert one.ledger.used_bytes <= one.ledger.budget_bytes


@given(tiered())
@examples(150)
def test_all_that_is_assigned_can_come_to_its_device_beside_the_pinned(before: Snapshot) -> None:
    commands = plan(before, NOW)
    after = carried_out(before, commands)
    told = {(c.worker, c.key) for c in commands if isinstance(c, Assign)}
    for one in after.workers.values():
        held = [r for r in one.replicas.values() if r.state is not ReplicaState.FAILED]
        assert sum(r.weights_bytes for r in held) <= one.ledger.assignable_bytes
        pinned = [r for r in held if r.pinned]
        assert fits_at_once(one, pinned)
        for new in (r for r in held if (one.id, r.key) in told and not r.pinned):
            assert fits_at_once(one, [*pinned, new])


@given(tiered())
@examples(120)
def test_plans_with_turns_come_to_rest(before: Snapshot) -> None:
    for _ in range(2 * len(before.desired.wants) + 4):
        commands = deeds(plan(before, NOW))
        if not commands:
            return
        before = carried_out(before, commands)
    raise AssertionError(f"still at it: {commands}")


@given(fleets(settled=True))
@examples(120)
def test_a_plan_carried_out_leaves_nothing_to_do(before: Snapshot) -> None:
    commands = plan(before, NOW)
    # One that waits for room may take it in the next plan, from what this one loads.
    if not any(isinstance(c, Blocked) and c.reason == "LEDGER_FULL" for c in commands):
        assert deeds(plan(carried_out(before, commands), NOW)) == []


@given(fleets(settled=True))
@examples(120)
def test_plans_come_to_rest(before: Snapshot) -> None:
    # Every taking of room forgets a want, so there can't be more rounds than wants and one.
    for _ in range(len(before.desired.wants) + 2):
        commands = deeds(plan(before, NOW))
        if not commands:
            return
        before = carried_out(before, commands)
    raise AssertionError(f"still at it: {commands}")


@given(fleets(), st.randoms(use_true_random=False))
@examples(100)
def test_the_order_of_workers_does_not_matter(before: Snapshot, rng: object) -> None:
    from random import Random

    assert isinstance(rng, Random)
    ids = list(before.workers)
    rng.shuffle(ids)
    shuffled = Snapshot(
        before.desired,
        {id_: before.workers[id_] for id_ in ids},
        before.failures,
        before.footprints,
    )
    assert plan(shuffled, NOW) == plan(before, NOW)


@given(fleets())
@examples(120)
def test_nothing_pinned_or_in_use_leaves_for_room(before: Snapshot) -> None:
    for command in plan(before, NOW):
        if isinstance(command, Release) and command.drop_want:
            wanted = before.desired.wants[command.key]
            assert not wanted.pinned
            assert before.workers[command.worker].replicas[command.key].outstanding == 0


@given(fleets())
@examples(120)
def test_nothing_is_released_and_assigned_in_one_plan(before: Snapshot) -> None:
    commands = plan(before, NOW)
    assigned = {(c.worker, c.key) for c in commands if isinstance(c, Assign)}
    released = [(c.worker, c.key) for c in commands if isinstance(c, Release)]
    assert len(released) == len(set(released))
    assert not assigned & set(released)
    dropped = {
        c.key for c in commands if isinstance(c, Release) and c.drop_want and not c.replicas_left
    }
    assert not dropped & {key_ for _, key_ in assigned}


@given(fleets())
@examples(120)
def test_every_want_is_met_or_has_its_reason(before: Snapshot) -> None:
    commands = plan(before, NOW)
    after = carried_out(before, commands)
    explained = {c.key for c in commands if isinstance(c, Blocked)}
    for wanted in after.desired.wants.values():
        there = sum(
            one.is_live(NOW)
            and wanted.key in one.replicas
            and one.replicas[wanted.key].state not in (ReplicaState.FAILED, ReplicaState.RELEASING)
            for one in after.workers.values()
        )
        assert there >= wanted.replicas or wanted.key in explained


# --- plans about what changed --------------------------------------------------------------------

WORKERS = ("w0", "w1", "w2")


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, int]]:
    kinds = st.sampled_from(["want", "drop", "lose", "join"])
    return draw(st.lists(st.tuples(kinds, st.integers(0, 5)), min_size=1, max_size=12))


@given(changes())
@examples(80)
def test_plans_of_what_changed_come_to_where_whole_plans_do(steps: list[tuple[str, int]]) -> None:
    versions = [version(name) for name in NAMES]
    now = snapshot([worker(id_, 30) for id_ in WORKERS], [], versions)
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
        held[worker_id] = worker(worker_id, 30)
        fleet.put(held[worker_id], now, NOW)
        about |= wants.keys()
    return replace(now, workers=held, desired=replace(now.desired, wants=wants)), about
