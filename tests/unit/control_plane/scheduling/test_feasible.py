"""Where one more replica goes: filters, ranking, and the reason when no worker is left."""

from dataclasses import replace

from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign, Blocked
from control_plane.types.footprint import Footprint
from control_plane.types.policy import Placement, Residency
from control_plane.types.snapshot import LoadFailure
from control_plane.types.worker import WorkerInfo, WorkerState
from tests.unit.control_plane.fleets import (
    NOW,
    assigned,
    deeds,
    key,
    measured,
    one_wait,
    pools,
    replica,
    snapshot,
    version,
    want,
    worker,
)


def test_a_want_is_met_where_most_is_free() -> None:
    before = snapshot([worker("w1", 50), worker("w2", 80)], [want("a")])
    assert plan(before, NOW) == [Assign("w2", key("a"), False, "it fits")]


def test_copies_are_spread_over_workers() -> None:
    before = snapshot([worker("w1"), worker("w2"), worker("w3")], [want("a", replicas=2)])
    assert [c.worker for c in plan(before, NOW) if isinstance(c, Assign)] == ["w1", "w2"]


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


def test_a_passing_refusal_is_no_failure() -> None:
    failed = {("w1", key("a")): LoadFailure("LEDGER_FULL", "not yet", NOW + 1)}
    wait = one_wait([*plan(snapshot([worker("w1")], [want("a")], (), failed), NOW)])
    assert (wait.reason, wait.final) == ("LEDGER_FULL", False)


def test_a_worker_with_a_tier_takes_more_than_fit_its_device() -> None:
    held = [replica(name, 40) for name in "ab"]
    before = snapshot([worker("w1", 100, held, tier=1000)], [want("a"), want("b"), want("c")],
                      [version("a", 40), version("b", 40), version("c", 40)])  # fmt: skip
    assert plan(before, NOW) == [
        Assign("w1", key("c"), False, "it takes turns with other models there")
    ]


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


def test_the_next_process_of_a_drained_worker_takes_work() -> None:
    again = replace(worker("w"), incarnation="w-2")
    before = snapshot([again], [want("a")])
    old = replace(before, desired=replace(before.desired, cordons={"w": "w-1"}))
    assert assigned(plan(old, NOW)) == ["w/a"]
