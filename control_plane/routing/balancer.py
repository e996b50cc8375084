"""Chooses the worker for a request by estimated finish, and the timeout of one attempt.

Pure, and on the path of every request: it compares a few replicas of a version, however many there
are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.types.command import Blocked
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo
from control_plane.view.replica_index import Entry, ReplicaIndex
from yolopool.errors import YolopoolError
from yolopool.vocabulary import ReplicaState

# A copy from pinned host memory to the device over PCIe 4 x8, until it is measured.
SWAP_BYTES_PER_MS = 10_000_000
# Stands for an execution time not measured yet, so that queue lengths still count.
UNMEASURED_MS = 1.0
# Candidates that are compared: the first by rank, and some at random.
RANKED, RANDOM = 3, 2
# Replicas that are examined to find them: a lease may have run out, or the worker failed before.
RANKED_LOOKS, RANDOM_LOOKS = 10, 8
# An attempt may take this many times its estimate, but at least the floor. The floor is higher
# until a pass was measured, since a first pass takes longer.
PATIENCE = 5.0
FLOOR_S, UNMEASURED_FLOOR_S = 0.25, 2.0
# The slowest network and codec that the limit allows for.
BODY_BYTES_PER_S = 10e6


class RandomSource(Protocol):
    """The part of `random.Random` that a choice uses."""

    def random(self) -> float: ...


class RoutingView(Protocol):
    """What a choice may read."""

    @property
    def workers(self) -> Mapping[str, WorkerInfo]: ...

    @property
    def holders(self) -> Mapping[VersionKey, ReplicaIndex]:
        """The replicas of each version, in any state."""
        ...

    @property
    def loads(self) -> Mapping[str, LoadReport]:
        """The newest report of each worker."""
        ...

    @property
    def outstanding(self) -> Mapping[str, int]:
        """This process's open calls to each worker."""
        ...

    @property
    def waits(self) -> Mapping[VersionKey, Blocked]:
        """What blocked the last plan."""
        ...


@dataclass(frozen=True, slots=True)
class Send:
    worker: WorkerInfo


@dataclass(frozen=True, slots=True)
class Hold:
    """No worker can answer now; `reason` is the error's reason if the deadline passes."""

    reason: str
    why: str


@dataclass(frozen=True, slots=True)
class Reject:
    error: YolopoolError


Route = Send | Hold | Reject
Candidate = tuple[WorkerInfo, Replica]


def choose(
    view: RoutingView,
    key: VersionKey,
    now: float,
    rng: RandomSource,
    excluded: Collection[str] = (),
) -> Route:
    """Picks a live worker with a replica of `key`; `excluded`: incarnations that failed already.

    now: monotonic seconds. A WARM replica may serve too: its estimate has the copy to the device.

    It compares the first few replicas by rank, HOT before WARM, and two at random (Mitzenmacher,
    "The Power of Two Choices in Randomized Load Balancing", 2001). The first of them that would
    finish at most one pass after the best wins. At low load the same few workers answer, so that
    their batches fill and the others can sleep or be released. Under load these few are at most one
    pass behind what two random choices find, so that none becomes a hot spot.
    """
    candidates = candidates_of(view, key, now, rng, excluded)
    if not candidates:
        return _no_candidate(view, key, now)
    if len(candidates) == 1:
        return Send(candidates[0][0])
    finishes = [finish_ms(view, worker, replica) for worker, replica in candidates]
    best_ms = min(finishes)
    limit_ms = best_ms + (candidates[finishes.index(best_ms)][1].inference_ms or UNMEASURED_MS)
    for candidate, done_ms in zip(candidates, finishes, strict=True):
        if done_ms <= limit_ms:
            return Send(candidate[0])
    raise AssertionError("the best is within its own limit")


def candidates_of(
    view: RoutingView,
    key: VersionKey,
    now: float,
    rng: RandomSource,
    excluded: Collection[str] = (),
) -> list[Candidate]:
    """The few live replicas that are compared for one request."""
    replicas = view.holders.get(key)
    if replicas is None:
        return []
    search = _Search(view.workers, key, now, excluded)
    candidates = search.few(replicas.hot, RANKED, RANDOM, rng)
    if replicas.warm:
        candidates += search.few(replicas.warm, *((1, 1) if candidates else (RANKED, RANDOM)), rng)
    # Else almost all are stale or excluded. To examine each is cheaper than to fail the request.
    return candidates or search.all(replicas.hot) + search.all(replicas.warm)


class _Search:
    """Finds the replicas that could answer one request."""

    __slots__ = ("_excluded", "_key", "_now", "_workers")

    def __init__(
        self,
        workers: Mapping[str, WorkerInfo],
        key: VersionKey,
        now: float,
        excluded: Collection[str],
    ) -> None:
        self._workers = workers
        self._key = key
        self._now = now
        self._excluded = excluded

    def few(
        self, entries: Sequence[Entry], ranked: int, drawn: int, rng: RandomSource
    ) -> list[Candidate]:
        """Up to `ranked` from the front, and up to `drawn` at random from the rest."""
        # On the path of every request: the two loops are inlined, a call would double their cost.
        workers, key, now, excluded = self._workers, self._key, self._now, self._excluded
        found: list[Candidate] = []
        looked = 0
        for _, worker_id in entries[:RANKED_LOOKS]:
            looked += 1
            worker = workers[worker_id]
            if worker.is_live(now) and worker.incarnation not in excluded:
                found.append((worker, worker.replicas[key]))
                if len(found) == ranked:
                    break
        rest = len(entries) - looked
        enough = len(found) + drawn
        for _ in range(RANDOM_LOOKS if rest else 0):
            worker = workers[entries[looked + int(rng.random() * rest)][1]]
            if worker.is_live(now) and worker.incarnation not in excluded:
                found.append((worker, worker.replicas[key]))
                if len(found) == enough:
                    break
        return found

    def all(self, entries: Sequence[Entry]) -> list[Candidate]:
        workers = (self._workers[worker_id] for _, worker_id in entries)
        return [
            (worker, worker.replicas[self._key])
            for worker in workers
            if worker.is_live(self._now) and worker.incarnation not in self._excluded
        ]


def per_try_timeout_s(
    view: RoutingView, worker: WorkerInfo, key: VersionKey, left_s: float, body_bytes: int
) -> float | None:
    """How long one attempt may take before the request goes to another worker. None: until the
    deadline, since another worker would have no time to answer.

    `left_s`: until the deadline. `body_bytes`: to be sent and decoded. The limit is generous: it
    tells a stalled worker from a slow one, and does not race two workers.
    """
    replica = worker.replicas.get(key)
    if replica is None:
        return None
    finish_s = finish_ms(view, worker, replica) / 1000 + body_bytes / BODY_BYTES_PER_S
    floor_s = FLOOR_S if replica.inference_ms else UNMEASURED_FLOOR_S
    limit_s = max(floor_s, min(PATIENCE * finish_s, left_s / 2))
    return limit_s if limit_s + finish_s < left_s else None


def unreported(view: RoutingView, worker: WorkerInfo) -> int:
    """Calls of this process to a worker that its last report can't contain yet."""
    report = view.loads.get(worker.id, worker.load)
    return max(0, view.outstanding.get(worker.id, 0) - report.outstanding)


def finish_ms(
    view: RoutingView, worker: WorkerInfo, replica: Replica, unreported_ms: float | None = None
) -> float:
    """When a request that is sent now would be done, in ms from now.

    It adds the queue that the worker reported, the calls of this process that the report can't
    contain yet, a copy to the device if the replica is WARM, and the request itself.
    `unreported_ms`: what such a call takes; None: as much as this one.
    """
    report = view.loads.get(worker.id, worker.load)
    run_ms = replica.inference_ms or UNMEASURED_MS
    unreported = view.outstanding.get(worker.id, 0) - report.outstanding
    total_ms = report.estimated_wait_ms + run_ms
    if unreported > 0:
        total_ms += unreported * (run_ms if unreported_ms is None else unreported_ms)
    if replica.state is ReplicaState.WARM:
        measured = replica.footprint.swap_ms if replica.footprint is not None else 0.0
        total_ms += measured or replica.weights_bytes / SWAP_BYTES_PER_MS
    return total_ms


def _no_candidate(view: RoutingView, key: VersionKey, now: float) -> Hold | Reject:
    if not any(worker.is_live(now) for worker in view.workers.values()):
        return Hold("NO_WORKER", "no worker is connected: start one, or wait for one to come back")
    blocked = view.waits.get(key)
    if blocked is None:
        return Hold("DEADLINE_EXCEEDED", f"{key} is being loaded")
    if blocked.final:
        return Reject(blocked.as_error())
    return Hold(blocked.reason, blocked.why)
