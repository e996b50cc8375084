"""Which workers may answer, which is preferred, and the outcome when none can."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from control_plane.routing.balancer import (
    FLOOR_S,
    UNMEASURED_FLOOR_S,
    Hold,
    Reject,
    Send,
    choose,
    per_try_timeout_s,
)
from control_plane.types.command import Blocked
from control_plane.types.footprint import Footprint
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, WorkerInfo, WorkerState
from control_plane.view.replica_index import ReplicaIndex, rank
from tests.unit.control_plane.fleets import NOW, key, replica, worker
from yolopool import errors
from yolopool.vocabulary import ReplicaState


@dataclass
class FrozenView:
    """A view that does not change."""

    workers: dict[str, WorkerInfo]
    loads: dict[str, LoadReport] = field(default_factory=dict)
    outstanding: dict[str, int] = field(default_factory=dict)
    waits: dict[VersionKey, Blocked] = field(default_factory=dict)

    @property
    def holders(self) -> dict[VersionKey, ReplicaIndex]:
        found = ReplicaIndex(key("a"))
        for holder in self.workers.values():
            if key("a") in holder.replicas:
                found.put(holder)
        return {key("a"): found} if found else {}


def view_of(*workers: WorkerInfo) -> FrozenView:
    return FrozenView({known.id: known for known in workers})


def with_a(name: str, **changes: object) -> WorkerInfo:
    return replace(worker(name, replicas=[replica("a")]), **changes)  # type: ignore[arg-type] # any field


def chosen(view: FrozenView, rounds: int = 50, excluded: Sequence[str] = ()) -> set[str]:
    rng = Random(1)
    routes = [choose(view, key("a"), NOW, rng, excluded) for _ in range(rounds)]
    return {route.worker.id for route in routes if isinstance(route, Send)}


def test_only_live_workers_with_a_loaded_replica() -> None:
    assigned = replica("a", state=ReplicaState.ASSIGNED)
    leaving = replica("a", state=ReplicaState.RELEASING)
    view = view_of(
        with_a("good"),
        with_a("late", lease_until_s=NOW),
        with_a("draining", state=WorkerState.DRAINING),
        worker("loading", replicas=[assigned]),
        worker("leaving", replicas=[leaving]),
        worker("empty"),
    )
    assert chosen(view) == {"good"}


def test_a_warm_replica_serves_and_a_hot_one_is_preferred() -> None:
    warm = worker("warm", replicas=[replica("a", 500_000_000, state=ReplicaState.WARM)])
    assert chosen(view_of(warm)) == {"warm"}
    assert chosen(view_of(warm, with_a("hot"))) == {"hot"}


def test_a_swap_counts_with_its_measured_time() -> None:
    def warm(name: str, swap_ms: float) -> WorkerInfo:
        off_device = replica("a", 500_000_000, state=ReplicaState.WARM)
        return worker(
            name, replicas=[replace(off_device, footprint=Footprint(1, 1, swap_ms=swap_ms))]
        )

    assert chosen(view_of(warm("slow", 80.0), warm("fast", 2.0))) == {"fast"}
    # Not measured: 50 ms at 10 GB/s.
    assert chosen(view_of(warm("slow", 80.0), warm("unknown", 0.0))) == {"unknown"}
    assert chosen(view_of(warm("unknown", 0.0), warm("fast", 2.0))) == {"fast"}


def test_workers_that_failed_are_excluded_by_incarnation() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    assert chosen(view, excluded=["w1-1"]) == {"w2"}
    assert chosen(view, excluded=["w2-1"]) == {"w1"}
    assert isinstance(choose(view, key("a"), NOW, Random(1), ["w1-1", "w2-1"]), Hold)


def test_the_worker_that_finishes_first_wins() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    view.loads["w1"] = LoadReport(outstanding=3, estimated_wait_ms=30.0)
    assert chosen(view) == {"w2"}


def test_own_calls_count_before_they_are_reported() -> None:
    view = view_of(with_a("w1"), with_a("w2"))
    view.outstanding["w1"] = 2
    assert chosen(view) == {"w2"}
    view.outstanding["w2"] = 2
    view.loads["w1"] = LoadReport(outstanding=2, estimated_wait_ms=0.0)
    assert chosen(view) == {"w1"}


def test_all_control_planes_fill_idle_workers_in_the_same_order() -> None:
    names = [f"w{n}" for n in range(40)]
    first = min(names, key=lambda name: rank(key("a"), name))
    for order in (names, names[::-1]):
        assert chosen(view_of(*[with_a(name) for name in order])) == {first}
    # Each version has its own order, so that they do not all prefer the same worker.
    tops = {min(names, key=lambda name: rank(key(f"m{n}"), name)) for n in range(40)}
    assert len(tops) > 15


def test_the_preferred_worker_is_skipped_once_it_is_more_than_a_pass_behind() -> None:
    names = sorted(("w1", "w2"), key=lambda name: rank(key("a"), name))
    view = view_of(*[timed(name, 10.0) for name in names])
    view.loads[names[0]] = LoadReport(outstanding=1, estimated_wait_ms=10.0)
    assert chosen(view) == {names[0]}
    view.loads[names[0]] = LoadReport(outstanding=2, estimated_wait_ms=10.1)
    assert chosen(view) == {names[1]}


def test_a_slow_device_is_not_preferred_for_its_rank() -> None:
    first, second = sorted(("w1", "w2"), key=lambda name: rank(key("a"), name))
    assert chosen(view_of(timed(first, 100.0), timed(second, 5.0))) == {second}


@pytest.mark.parametrize("share", [0.3, 0.95, 0.999])
def test_live_workers_are_found_among_many_stale_ones(share: float) -> None:
    stale = int(share * 1000)
    names = [f"w{n}" for n in range(1000)]
    Random(7).shuffle(names)
    late = [with_a(name, lease_until_s=NOW) for name in names[:stale]]
    view = view_of(*late, *[with_a(name) for name in names[stale:]])
    frozen = FrozenLists(view)
    rng = Random(3)
    for _ in range(200):
        route = choose(frozen, key("a"), NOW, rng, [f"{names[-1]}-1"] if share < 0.99 else [])
        assert isinstance(route, Send)
        assert route.worker.is_live(NOW)


class FrozenLists(FrozenView):
    """Makes its index once."""

    def __init__(self, view: FrozenView) -> None:
        super().__init__(view.workers)
        self._made = view.holders

    @property
    def holders(self) -> dict[VersionKey, ReplicaIndex]:
        return self._made


def timed(name: str, run_ms: float) -> WorkerInfo:
    return worker(name, replicas=[replace(replica("a"), inference_ms=run_ms)])


# --- many requests ------------------------------------------------------------------------------

RUN_MS = 10.0


def served(workers: int, load: float, requests: int, seed: int) -> Counter[str]:
    """Requests by worker. They arrive at random times, each takes a pass of RUN_MS, and each answer
    carries a report. `load` 1 keeps all workers busy. Nothing is batched: queues are longest then.
    """
    rng = Random(seed)
    names = [f"w{n}" for n in range(workers)]
    view = FrozenLists(view_of(*[timed(name, RUN_MS) for name in names]))
    busy_until = dict.fromkeys(names, 0.0)
    queued = dict.fromkeys(names, 0)
    answers: list[tuple[float, str]] = []
    counts: Counter[str] = Counter()
    now = 0.0
    for _ in range(requests):
        now += rng.expovariate(load * workers / RUN_MS)
        while answers and answers[0][0] <= now:
            done, name = heapq.heappop(answers)
            queued[name] -= 1
            view.outstanding[name] -= 1
            wait = max(0.0, busy_until[name] - done)
            view.loads[name] = LoadReport(queued[name], 64, wait)
        route = choose(view, key("a"), NOW, rng)
        assert isinstance(route, Send)
        name = route.worker.id
        counts[name] += 1
        queued[name] += 1
        view.outstanding[name] = view.outstanding.get(name, 0) + 1
        busy_until[name] = max(now, busy_until[name]) + RUN_MS
        heapq.heappush(answers, (busy_until[name], name))
    return counts


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_low_load_few_workers_answer(seed: int) -> None:
    """Half of the load that one of the twenty workers could take."""
    counts = served(20, 0.025, 4000, seed)
    first, second = counts.most_common(2)
    assert first[1] > 0.8 * counts.total()
    assert first[1] + second[1] > 0.98 * counts.total()


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("workers", [4, 20])
def test_at_high_load_all_workers_answer_equally(seed: int, workers: int) -> None:
    counts = served(workers, 0.95, 8000, seed)
    assert len(counts) == workers
    assert max(counts.values()) < 1.15 * counts.total() / workers


# --- the timeout of an attempt --------------------------------------------------------------------


def limit(run_ms: float, left_s: float, wait_ms: float = 0.0, body_bytes: int = 0) -> float | None:
    view = view_of(timed("w1", run_ms))
    view.loads["w1"] = LoadReport(outstanding=1, estimated_wait_ms=wait_ms)
    return per_try_timeout_s(view, view.workers["w1"], key("a"), left_s, body_bytes)


def test_an_attempt_has_five_times_its_estimate_and_never_less_than_the_floor() -> None:
    assert limit(10.0, 30.0) == FLOOR_S
    assert limit(100.0, 30.0, wait_ms=100.0) == pytest.approx(1.0)
    assert limit(100.0, 30.0, body_bytes=10_000_000) == pytest.approx(5.5)


def test_an_attempt_leaves_time_for_a_second_one() -> None:
    assert limit(1000.0, 6.0) == pytest.approx(3.0)
    assert limit(1000.0, 2.5) == pytest.approx(1.25)
    assert limit(1000.0, 1.9) is None
    assert limit(10.0, 0.2) is None


def test_an_unmeasured_version_has_time_for_its_first_pass() -> None:
    assert limit(0.0, 30.0) == UNMEASURED_FLOOR_S
    assert limit(0.0, 1.0) is None


def test_a_replica_that_left_has_no_limit() -> None:
    view = view_of(worker("w1"))
    assert per_try_timeout_s(view, view.workers["w1"], key("a"), 30.0, 0) is None


def test_without_workers_it_holds() -> None:
    route = choose(view_of(), key("a"), NOW, Random(1))
    assert isinstance(route, Hold)
    assert route.reason == "NO_WORKER"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("MODEL_TOO_LARGE", errors.ModelTooLarge),
        ("LOAD_FAILED", errors.LoadFailed),
        ("LEDGER_FULL", errors.LedgerFull),
    ],
)
def test_a_final_refusal_of_the_plan_is_an_error(
    reason: str, kind: type[errors.YolopoolError]
) -> None:
    view = view_of(worker("w1"))
    view.waits[key("a")] = Blocked(key("a"), reason, "because", True, 2.0)
    route = choose(view, key("a"), NOW, Random(1))
    assert isinstance(route, Reject)
    assert type(route.error) is kind
    assert (route.error.message, route.error.retry_after_s) == ("because", 2.0)


def test_otherwise_it_holds_with_the_reason() -> None:
    view = view_of(worker("w1"))
    view.waits[key("a")] = Blocked(key("a"), "LEDGER_FULL", "all are busy")
    assert choose(view, key("a"), NOW, Random(1)) == Hold("LEDGER_FULL", "all are busy")
    view.waits.clear()
    assert isinstance(choose(view, key("a"), NOW, Random(1)), Hold)
