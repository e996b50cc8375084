"""Plans and verdicts that are asked for and never carried out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from control_plane.scheduling import explanation
from control_plane.scheduling.explanation import Feasibility
from control_plane.scheduling.plan import plan
from control_plane.types.command import Assign, Blocked, Command, Release
from control_plane.types.desired import Desired
from control_plane.types.footprint import Footprint
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import ServingSpec, VersionState
from control_plane.types.worker import WorkerState
from tests.unit.control_plane.fleets import (
    NOW,
    key,
    measured,
    replica,
    snapshot,
    version,
    want,
    worker,
)
from yolopool.vocabulary import ReplicaState

GIB = 1024**3


def asked(
    before: Snapshot, name: str, *, pinned: bool = False, replicas: int = 1
) -> Sequence[Command]:
    one = want(name, since=before.unix_s, pinned=pinned, replicas=replicas)
    waiting = [command.key for command in plan(before, NOW) if isinstance(command, Blocked)]
    return explanation.plan_for(before, one, None, waiting, NOW)


def test_a_load_is_planned_with_what_leaves_for_it() -> None:
    full = worker("w1", 20, [replica("a", used=2), replica("b", used=3)])
    before = snapshot([full], [want("a"), want("b")], [version("c")], unix_s=9.0)
    release, assign = asked(before, "c", pinned=True)
    assert isinstance(release, Release)
    assert isinstance(assign, Assign)
    assert (release.key, assign.key, assign.pinned) == (key("a"), key("c"), True)


def test_nothing_to_do_is_no_step_and_others_steps_are_not_told() -> None:
    loaded = worker("w1", 100, [replica("a")])
    before = snapshot([loaded], [want("a"), want("b")])
    assert [command.key for command in plan(before, NOW)] == [key("b")]
    assert asked(before, "a") == []
    two = snapshot([loaded, worker("w2", 1000)], [want("a"), want("b")])
    assert {command.key for command in asked(two, "a", replicas=2)} == {key("a")}


def test_a_load_is_tried_in_spite_of_failures_where_it_is_to_be() -> None:
    failures = {("w1", key("a")): LoadFailure("LOAD_FAILED", "no", NOW + 60)}
    before = snapshot([worker("w1")], versions=[version("a")], failures=failures)
    (assign,) = asked(before, "a")
    assert isinstance(assign, Assign)
    assert before.failures == failures


def test_a_load_that_can_not_be_says_why() -> None:
    (wait,) = asked(snapshot([], versions=[version("a")]), "a")
    assert isinstance(wait, Blocked)
    assert wait.reason == "NO_WORKER"


def never(before: Snapshot, *names: str, pinned: bool = False) -> Blocked | None:
    wants = [want(name, since=before.unix_s, pinned=pinned) for name in names]
    return explanation.never_fits(before, wants, {}, NOW)


NEW = [version(name) for name in "cdef"]


@pytest.mark.parametrize("pinned", [True, False])
def test_what_fits_once_others_have_left_may_fit(pinned: bool) -> None:
    others = [replica("a", outstanding=3), replica("b", state=ReplicaState.RELEASING)]
    before = snapshot([worker("w1", 20, others)], [want("a")], NEW, unix_s=9.0)
    assert never(before, "c", "d", pinned=pinned) is None
    blocked = never(before, "c", "d", "e", pinned=pinned)
    assert blocked is not None
    assert blocked.reason == "LEDGER_FULL"
    two = snapshot([worker("w1", 20, others), worker("w2", 10)], [want("a")], NEW, unix_s=9.0)
    assert never(two, "c", "d", "e", pinned=pinned) is None


def test_what_is_pinned_does_not_leave() -> None:
    held = [replica("a", pinned=True), replica("b")]
    before = snapshot([worker("w1", 20, held)], [want("a", pinned=True), want("b")], NEW)
    assert never(before, "c") is None
    blocked = never(before, "c", "d")
    assert blocked is not None
    assert blocked.reason == "LEDGER_FULL"


def test_what_is_loaded_already_takes_its_room() -> None:
    before = snapshot([worker("w1", 20, [replica("c"), replica("a")])], [want("c")], NEW)
    assert never(before, "c", "d") is None
    assert never(before, "c", "d", "e") is not None


def test_one_that_fits_no_worker_never_fits() -> None:
    before = snapshot([worker("w1", 20)], versions=[version("c", weights=30)])
    blocked = never(before, "c")
    assert blocked is not None
    assert blocked.reason == "MODEL_TOO_LARGE"


def test_what_may_pass_is_waited_for() -> None:
    assert never(snapshot([], versions=NEW), "c") is None  # a worker may join
    failures = {("w1", key("c")): LoadFailure("LOAD_FAILED", "no", NOW + 60)}
    assert never(snapshot([worker("w1")], versions=NEW, failures=failures), "c") is None


def test_memory_that_no_replica_explains_may_become_free() -> None:
    one = worker("w1", 20)
    used = replace(one, ledger=replace(one.ledger, weights_bytes=15))
    assert never(snapshot([used], versions=NEW), "c") is None
    assert never(snapshot([used], versions=NEW), "c", "d") is None
    assert never(snapshot([used], versions=NEW), "c", "d", "e") is not None


def test_a_placement_that_is_to_be_set_counts() -> None:
    before = snapshot([worker("w1", 10, labels={"pool": "day"}), worker("w2", 20)], versions=NEW)
    wants = [want("c"), want("d")]
    assert explanation.never_fits(before, wants, {}, NOW) is None
    day = dict.fromkeys((key("c"), key("d")), Placement(pool="day"))
    assert explanation.never_fits(before, wants, day, NOW) is not None


def verdict(before: Snapshot, name: str, worker_id: str = "w1") -> Feasibility:
    one = before.desired.versions[key(name)]
    found = explanation.verdicts(before, one, NOW)
    return next(verdict for verdict in found if verdict.worker.id == worker_id)


@pytest.mark.parametrize(
    ("state", "feasible"),
    [
        (ReplicaState.HOT, True), (ReplicaState.WARM, True), (ReplicaState.ASSIGNED, True),
        (ReplicaState.RELEASING, False), (ReplicaState.FAILED, True),
    ],
)  # fmt: skip
def test_what_is_there_is_said(state: ReplicaState, feasible: bool) -> None:
    before = snapshot([worker("w1", replicas=[replica("a", state=state)])], [want("a")])
    one = verdict(before, "a")
    assert one.feasible is feasible
    assert one.replica is not None
    assert one.why


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (WorkerState.DRAINING, "DRAINING"), (WorkerState.LOST, "WORKER_LOST"),
        (WorkerState.STARTING, "UNAVAILABLE"),
    ],
)  # fmt: skip
def test_a_worker_that_takes_nothing_says_so(state: WorkerState, reason: str) -> None:
    before = snapshot([worker("w1", state=state), worker("w2")], versions=[version("a")])
    assert (verdict(before, "a").feasible, verdict(before, "a").reason) == (False, reason)
    assert verdict(before, "a", "w2").feasible


def test_labels_and_cordons_hinder() -> None:
    placed = replace(version("a"), given=ServingSpec(placement=Placement(pool="line-1")))
    here = replace(worker("w1"), labels={"pool": "line-1"})
    before = snapshot([here, worker("w2")], versions=[placed])
    assert verdict(before, "a", "w1").feasible
    other = verdict(before, "a", "w2")
    assert (other.reason, "pool=line-1" in other.why) == ("NO_WORKER", True)
    desired = replace(before.desired, cordons={"w1": here.incarnation})
    assert verdict(replace(before, desired=desired), "a").reason == "DRAINING"


def test_room_is_what_the_plan_says_it_is() -> None:
    pinned = worker("w1", 10, [replica("p", pinned=True)])
    used = worker("w2", 10, [replica("b", outstanding=1)])
    idle = worker("w3", 10, [replica("c")])
    small, empty = worker("w4", 5), worker("w5", 30)
    wants = [want("p", pinned=True), want("b"), want("c")]
    before = snapshot([pinned, used, idle, small, empty], wants, [version("a")], unix_s=9.0)
    found = {one.worker.id: one for one in explanation.verdicts(before, version("a"), NOW)}
    assert {id_: (one.feasible, one.reason) for id_, one in found.items()} == {
        "w1": (False, "LEDGER_FULL"),
        "w2": (False, "LEDGER_FULL"),
        "w3": (True, ""),
        "w4": (False, "MODEL_TOO_LARGE"),
        "w5": (True, ""),
    }
    assert "c@1 would leave" in found["w3"].why
    assert (found["w5"].free_bytes, found["w5"].weights_bytes) == (30, 10)


def test_a_failure_hinders_until_it_may_be_tried_again() -> None:
    failures = {("w1", key("a")): LoadFailure("LOAD_FAILED", "no such layer", NOW + 60)}
    before = snapshot([worker("w1"), worker("w2")], [want("a")], failures=failures)
    assert verdict(before, "a").reason == "LOAD_FAILED"
    assert "no such layer" in verdict(before, "a").why
    assert verdict(before, "a", "w2").feasible


def test_a_cpu_beside_accelerators_takes_only_what_falls_back() -> None:
    fleet = [worker("w1", kind="cpu"), worker("w2")]
    before = snapshot(fleet, versions=[version("a")])
    assert verdict(before, "a").reason == "NO_WORKER"
    fallback = version("a", residency=Residency(cpu_fallback=True))
    before = snapshot(fleet, versions=[fallback])
    assert not verdict(before, "a").feasible
    failures = {("w2", key("a")): LoadFailure("LOAD_FAILED", "no", NOW + 60)}
    assert verdict(snapshot(fleet, versions=[fallback], failures=failures), "a").feasible
    alone = snapshot(fleet[:1], versions=[version("a")])
    assert verdict(alone, "a").feasible


def test_an_import_that_failed_is_the_reason() -> None:
    before = snapshot([worker("w1")], versions=[version("a", state=VersionState.FAILED)])
    assert verdict(before, "a").reason == "MODEL_IMPORT_FAILED"


def test_value_is_cold_start_seconds_saved_per_gib() -> None:
    size = Footprint(GIB // 2, 0, swap_ms=150.0, fetch_ms=50.0)
    before = snapshot([worker("w1")], [want("a")], footprints={measured("a"): size})
    known = before.desired.versions[key("a")]
    assert explanation.value_per_gib(before, known, 3.0) == pytest.approx(3.0 * 0.2 * 2)


def test_wants_are_sentences() -> None:
    plain = version("a")
    assert explanation.wants_in_words(plain, None, 0.0) == []
    (one,) = explanation.wants_in_words(plain, want("a", since=0.0), 300.0)
    assert one == "1 replica is wanted, asked for since requests found it nowhere, for 5 min now."
    (one,) = explanation.wants_in_words(plain, want("a", pinned=True, replicas=2), 1.0)
    assert one.startswith("2 replicas are wanted, pinned on the device, asked for by name")
    kept = version("a", residency=Residency(ResidencyMode.HOT_STANDBY))
    assert "hot standby" in explanation.wants_in_words(kept, None, 0.0)[0]
    kept = version("a", residency=Residency(ResidencyMode.ON_DEMAND, 30.0))
    assert "idle for 30 s" in explanation.wants_in_words(kept, None, 0.0)[0]
    placed = replace(plain, given=ServingSpec(placement=Placement(labels={"gpu": "a"})))
    assert explanation.wants_in_words(placed, None, 0.0) == ["Only on workers with gpu=a."]


def test_spans_are_for_people() -> None:
    spans = [explanation.span(s) for s in (-1, 45, 720, 12_600, 200_000)]
    assert spans == ["0 s", "45 s", "12 min", "3.5 h", "2 days"]


def test_the_snapshot_of_an_empty_fleet_is_explained() -> None:
    nothing = Snapshot(Desired(1, "c", {key("a"): version("a")}, {}), {})
    assert explanation.verdicts(nothing, version("a"), NOW) == []
    assert explanation.value_per_gib(nothing, version("a"), 1.0) > 0
