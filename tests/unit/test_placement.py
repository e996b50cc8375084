"""Placement: examples of what it decides, and what no plan may ever do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.fleet import (
    Assign,
    Command,
    Footprint,
    LoadFailure,
    Release,
    ReplicaState,
    Snapshot,
    VersionState,
    Wait,
    WorkerState,
)
from control_plane.placement import footprint, plan
from tests.unit.fleets import (
    NOW,
    carried_out,
    key,
    replica,
    snapshot,
    version,
    want,
    worker,
)

# --- examples ----------------------------------------------------------------------------------


def one_wait(found: list[object]) -> Wait:
    (wait,) = found
    assert isinstance(wait, Wait)
    return wait


def test_a_want_is_met_where_most_is_free() -> None:
    before = snapshot([worker("w1", 50), worker("w2", 80)], [want("a")])
    assert plan(before, NOW) == [Assign("w2", key("a"), False, "it fits")]


def test_copies_are_spread_over_workers() -> None:
    before = snapshot([worker("w1"), worker("w2"), worker("w3")], [want("a", replicas=2)])
    assert [c.worker for c in plan(before, NOW) if isinstance(c, Assign)] == ["w1", "w2"]


def test_the_least_recently_used_leaves_and_is_forgotten() -> None:
    full = worker("w1", 20, [replica("a", used=9.0), replica("b", used=7.0)])
    before = snapshot([full], [want("a"), want("b"), want("c", since=20.0)])
    release, assign = plan(before, NOW)
    assert isinstance(release, Release)
    assert (release.key, release.forget) == (key("b"), True)
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


def test_no_worker_is_a_reason() -> None:
    assert one_wait([*plan(snapshot([], [want("a")]), NOW)]).reason == "NO_WORKER"
    gone = [
        worker("w1", lease=NOW),
        worker("w2", state=WorkerState.DRAINING),
        worker("w3", state=WorkerState.STARTING),
    ]
    assert one_wait([*plan(snapshot(gone, [want("a")]), NOW)]).reason == "NO_WORKER"


def test_more_copies_than_workers_wait_for_workers() -> None:
    found = plan(snapshot([worker("w1")], [want("a", replicas=2)]), NOW)
    assert isinstance(found[0], Assign)
    assert one_wait([*found[1:]]).reason == "NO_WORKER"


def test_too_large_says_the_numbers() -> None:
    before = snapshot([worker("w1", 100, context=20)], [want("a")], [version("a", 81)])
    wait = one_wait([*plan(before, NOW)])
    assert (wait.reason, wait.final) == ("MODEL_TOO_LARGE", True)
    assert "81" in wait.why
    assert "80" in wait.why


def test_imports_are_waited_for_and_failed_ones_are_not() -> None:
    states = {"a": VersionState.IMPORTING, "b": VersionState.FAILED}
    before = snapshot(
        [worker("w1")], map(want, states), [version(n, state=s) for n, s in states.items()]
    )
    waits = [c for c in plan(before, NOW) if isinstance(c, Wait)]
    assert [(w.reason, w.final) for w in waits] == [
        ("MODEL_NOT_READY", False),
        ("MODEL_IMPORT_FAILED", True),
    ]


def test_a_failed_load_is_tried_elsewhere_then_reported_then_tried_again() -> None:
    failed = {("w1", key("a")): LoadFailure("OUT_OF_MEMORY", "no memory", NOW + 5)}
    elsewhere = plan(snapshot([worker("w1", 200), worker("w2")], [want("a")], (), failed), NOW)
    assert [c.worker for c in elsewhere if isinstance(c, Assign)] == ["w2"]
    alone = snapshot([worker("w1")], [want("a")], (), failed)
    wait = one_wait([*plan(alone, NOW)])
    assert (wait.reason, wait.final, wait.retry_after_s) == ("LOAD_FAILED", True, 5.0)
    assert "no memory" in wait.why
    later = snapshot([worker("w1", lease=NOW + 9)], [want("a")], (), failed)
    assert isinstance(plan(later, NOW + 5)[0], Assign)


def test_a_passing_refusal_is_no_failure() -> None:
    failed = {("w1", key("a")): LoadFailure("LEDGER_FULL", "not yet", NOW + 1)}
    wait = one_wait([*plan(snapshot([worker("w1")], [want("a")], (), failed), NOW)])
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)


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


def test_a_pin_that_changes_is_told() -> None:
    before = snapshot([worker("w1", replicas=[replica("a")])], [want("a", pinned=True)])
    assert plan(before, NOW) == [Assign("w1", key("a"), True, "it was pinned")]


def test_who_is_leaving_keeps_its_room_until_it_is_gone() -> None:
    leaving = worker("w1", 10, [replica("a", state=ReplicaState.RELEASING)])
    wait = one_wait([*plan(snapshot([leaving], [want("b")]), NOW)])
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)


def test_estimates_stand_until_something_is_measured() -> None:
    from dataclasses import replace

    from control_plane.fleet import VersionSettings

    one = version("a", 100)
    assert one.pack is not None
    one = replace(
        one,
        pack=replace(one.pack, activation_bytes_per_megapixel=1_000_000),
        settings=VersionSettings(image_size=1000),
    )
    empty = snapshot([], [], [one])
    unmeasured = Snapshot(empty.desired, {})
    assert footprint(one, "sim", unmeasured) == Footprint(100, 1_000_000 + 15_000_000)
    measured = Snapshot(empty.desired, {}, footprints={("sim", one.key): Footprint(7, 8)})
    assert footprint(one, "sim", measured) == Footprint(7, 8)


# --- what holds of every plan --------------------------------------------------------------------

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
        for name in draw(st.sets(st.sampled_from(NAMES)))
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
            for name in draw(st.sets(st.sampled_from(NAMES), max_size=4))
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
        for name in draw(st.sets(st.sampled_from(NAMES), max_size=2))
    }
    footprints = {("sim", key(name)): size for name, size in sizes.items()}
    return snapshot(workers, wants, versions, failures, footprints)


@given(fleets())
@settings(max_examples=300, deadline=None)
def test_no_plan_overruns_a_ledger(before: Snapshot) -> None:
    after = carried_out(before, plan(before, NOW))
    for one in after.workers.values():
        assert one.ledger.used_bytes <= one.ledger.budget_bytes


def deeds(commands: list[Command]) -> list[Command]:
    return [command for command in commands if not isinstance(command, Wait)]


@given(fleets(settled=True))
@settings(max_examples=300, deadline=None)
def test_a_plan_carried_out_leaves_nothing_to_do(before: Snapshot) -> None:
    commands = plan(before, NOW)
    # One that waits for room may take it in the next plan, from what this one loads.
    if not any(isinstance(c, Wait) and c.reason == "LEDGER_FULL" for c in commands):
        assert deeds(plan(carried_out(before, commands), NOW)) == []


@given(fleets(settled=True))
@settings(max_examples=300, deadline=None)
def test_plans_come_to_rest(before: Snapshot) -> None:
    # Every taking of room forgets a want, so there can't be more rounds than wants and one.
    for _ in range(len(before.desired.wants) + 2):
        commands = deeds(plan(before, NOW))
        if not commands:
            return
        before = carried_out(before, commands)
    raise AssertionError(f"still at it: {commands}")


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=300, deadline=None)
def test_nothing_pinned_or_in_use_leaves_for_room(before: Snapshot) -> None:
    for command in plan(before, NOW):
        if isinstance(command, Release) and command.forget:
            wanted = before.desired.wants[command.key]
            assert not wanted.pinned
            assert before.workers[command.worker].replicas[command.key].outstanding == 0


@given(fleets())
@settings(max_examples=300, deadline=None)
def test_nothing_is_released_and_assigned_in_one_plan(before: Snapshot) -> None:
    commands = plan(before, NOW)
    assigned = {(c.worker, c.key) for c in commands if isinstance(c, Assign)}
    released = [(c.worker, c.key) for c in commands if isinstance(c, Release)]
    assert len(released) == len(set(released))
    assert not assigned & set(released)
    forgotten = {c.key for c in commands if isinstance(c, Release) and c.forget}
    assert not forgotten & {key_ for _, key_ in assigned}


@given(fleets())
@settings(max_examples=300, deadline=None)
def test_every_want_is_met_or_has_its_reason(before: Snapshot) -> None:
    commands = plan(before, NOW)
    after = carried_out(before, commands)
    explained = {c.key for c in commands if isinstance(c, Wait)}
    for wanted in after.desired.wants.values():
        there = sum(
            one.is_live(NOW)
            and wanted.key in one.replicas
            and one.replicas[wanted.key].state not in (ReplicaState.FAILED, ReplicaState.RELEASING)
            for one in after.workers.values()
        )
        assert there >= wanted.replicas or wanted.key in explained
