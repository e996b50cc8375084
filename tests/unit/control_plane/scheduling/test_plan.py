"""Placement: examples of what it decides, and what no plan may ever do."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign, Blocked, Command, DropWant, Release
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint, footprint
from control_plane.types.policy import Residency, ResidencyMode
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import DeviceVariant, VersionSettings, VersionState
from control_plane.types.worker import Replica, WorkerInfo, WorkerState
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
    worker,
)
from yolopool.vocabulary import ReplicaState

# --- examples ----------------------------------------------------------------------------------


def one_wait(found: Sequence[object]) -> Blocked:
    (wait,) = found
    assert isinstance(wait, Blocked)
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
    mib = 2**20
    before = snapshot(
        [worker("w1", 100 * mib, context=20 * mib)], [want("a")], [version("a", 81 * mib)]
    )
    wait = one_wait([*plan(before, NOW)])
    assert (wait.reason, wait.final) == ("MODEL_TOO_LARGE", True)
    assert "needs 81.0 MiB" in wait.why
    assert "has 80.0 MiB" in wait.why


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
    one = version("a", 100)
    assert one.pack is not None
    one = replace(
        one,
        pack=replace(one.pack, activation_bytes_per_megapixel=1_000_000),
        settings=VersionSettings(image_size=1000),
    )
    assert footprint(one, DeviceVariant.usual("sim"), {}) == Footprint(100, 1_000_000 + 15_000_000)
    assert footprint(
        one, DeviceVariant.usual("sim"), {measured("a"): Footprint(7, 8)}
    ) == Footprint(7, 8)
    assert (
        footprint(one, DeviceVariant.usual("cpu"), {measured("a"): Footprint(7, 8)}).weights_bytes
        == 100
    )


# --- more than fit the device --------------------------------------------------------------------


def test_a_worker_with_a_tier_takes_more_than_fit_its_device() -> None:
    held = [replica(name, 40) for name in "ab"]
    before = snapshot([worker("w1", 100, held, tier=1000)], [want("a"), want("b"), want("c")],
                      [version("a", 40), version("b", 40), version("c", 40)])  # fmt: skip
    assert plan(before, NOW) == [Assign("w1", key("c"), False, "it takes turns with others there")]


def test_where_it_fits_beside_all_is_better_than_turns() -> None:
    full = worker("w1", 100, [replica("a", 90)], tier=1000)
    before = snapshot([full, worker("w2", 50, tier=1000)], [want("a"), want("b")],
                      [version("a", 90), version("b", 40)])  # fmt: skip
    assert plan(before, NOW) == [Assign("w2", key("b"), False, "it fits")]


def test_turns_are_taken_where_least_take_them() -> None:
    one = worker("w1", 100, [replica("a", 90), replica("b", 90)], tier=1000)
    other = worker("w2", 100, [replica("c", 90)], tier=1000)
    versions = [version(name, 90) for name in "abcd"]
    before = snapshot([one, other], [want(name) for name in "abcd"], versions)
    assert [c.worker for c in plan(before, NOW) if isinstance(c, Assign)] == ["w2"]


def test_a_tier_that_is_full_releases_the_least_recently_used() -> None:
    held = [replica("a", 40, used=1.0), replica("b", 40, used=2.0)]
    before = snapshot([worker("w1", 50, held, tier=100)], [want("a"), want("b"), want("c", 9.0)],
                      [version(name, 40) for name in "abc"])  # fmt: skip
    commands = plan(before, NOW)
    assert [c.key for c in commands if isinstance(c, Release)] == [key("a")]


def test_what_cannot_come_to_the_device_beside_the_pinned_is_released() -> None:
    held = [replica("a", 60, pinned=True), replica("b", 60, used=1.0)]
    before = snapshot([worker("w1", 100, held, tier=1000)], [want("a", pinned=True), want("b")],
                      [version("a", 60), version("b", 60)])  # fmt: skip
    (release,) = plan(before, NOW)
    assert isinstance(release, Release)
    assert (release.key, release.drop_want) == (key("b"), True)
    assert "pinned models leave no room" in release.why


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


def tier_of(*wants: Want, sizes: int = 60, **fields: Any) -> Snapshot:
    """One worker of 100 bytes with a large tier, and versions of so many bytes."""
    versions = [version(one.key.model, sizes) for one in wants]
    return snapshot([worker("w1", 100, tier=1000, **fields)], wants, versions)


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


def test_private_bytes_are_on_the_device_with_their_replica() -> None:
    measured_a = Footprint(40, 0, private_bytes=20)
    held = [replace(replica("a", 40, pinned=True), footprint=measured_a)]
    one = worker("w1", 100, held, tier=1000)
    one = replace(one, ledger=replace(one.ledger, backend_private_bytes=20))
    versions = [version("a", 40), version("b", 40)]
    wants = [want("a", pinned=True), want("b")]
    assert plan(snapshot([one], wants, versions), NOW) == [Assign("w1", key("b"), False, "it fits")]
    private = {measured("b"): Footprint(40, 0, private_bytes=1)}
    wait = one_wait(plan(snapshot([one], wants, versions, footprints=private), NOW))
    assert (wait.reason, wait.final) == ("LEDGER_FULL", True)


# --- how versions are kept ------------------------------------------------------------------------

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


# --- CPU workers beside accelerators --------------------------------------------------------------

FALLBACK = Residency(cpu_fallback=True)
BROKEN = LoadFailure("OUT_OF_MEMORY", "broken", NOW + 9)


def mixed(**fields: object) -> list[WorkerInfo]:
    return [worker("fast", **fields), worker("slow", 1000, kind="cpu")]  # type: ignore[arg-type]


def test_a_cpu_takes_nothing_beside_an_accelerator() -> None:
    assert plan(snapshot(mixed(), [want("a")]), NOW) == [Assign("fast", key("a"), False, "it fits")]
    failed = {("fast", key("a")): BROKEN}
    wait, _ = plan(snapshot(mixed(), [want("a")], failures=failed), NOW)
    assert isinstance(wait, Blocked)
    assert wait.final


def test_a_cpu_takes_what_may_fall_back_and_failed_on_every_accelerator() -> None:
    one = version("a", residency=FALLBACK)
    failed = {("fast", key("a")): BROKEN}
    assert plan(snapshot(mixed(), [want("a")], [one], failed), NOW) == [
        Assign("slow", key("a"), False, "it fits")
    ]
    assert plan(snapshot(mixed(), [want("a")], [one]), NOW) == [
        Assign("fast", key("a"), False, "it fits")
    ]
    passing = {("fast", key("a")): LoadFailure("LEDGER_FULL", "busy", NOW + 9)}
    assert not deeds(plan(snapshot(mixed(), [want("a")], [one], passing), NOW))


def test_a_cpu_takes_what_may_fall_back_and_is_too_large_for_every_accelerator() -> None:
    one = version("a", 500, residency=FALLBACK)
    assert [c.worker for c in plan(snapshot(mixed(), [want("a")], [one]), NOW)
            if isinstance(c, Assign)] == ["slow"]  # fmt: skip


def test_a_cpu_does_not_step_in_for_a_lost_accelerator_unless_it_may() -> None:
    lost = [worker("fast", state=WorkerState.LOST), worker("slow", 1000, kind="cpu")]
    wait = one_wait(plan(snapshot(lost, [want("a")]), NOW))
    assert wait.reason == "NO_WORKER"
    assert "cpu_fallback" in wait.why
    one = version("a", residency=FALLBACK)
    assert len(deeds(plan(snapshot(lost, [want("a")], [one]), NOW))) == 1


def test_a_fleet_of_cpus_takes_everything() -> None:
    only = [worker("slow", 1000, kind="cpu")]
    assert len(deeds(plan(snapshot(only, [want("a")]), NOW))) == 1


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


@given(fleets())
@examples(120)
def test_no_plan_overruns_a_ledger(before: Snapshot) -> None:
    after = carried_out(before, plan(before, NOW))
    for one in after.workers.values():
        assert one.ledger.used_bytes <= one.ledger.budget_bytes


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


def deeds(commands: list[Command]) -> list[Command]:
    return [command for command in commands if not isinstance(command, Blocked)]


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
