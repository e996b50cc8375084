"""Which worker answers a request, by estimated finish, and how long it may be waited for.

Pure, and on the path of every request: it looks at a few holders of one version, however many
there are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from control_plane.types.command import Blocked
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo
from control_plane.view.replica_index import Entry, ReplicaIndex
from yolopool.errors import YolopoolError
from yolopool.vocabulary import ReplicaState

if TYPE_CHECKING:
    from random import Random

# A copy from pinned host memory to the device, as PCIe 4 x8 does it, until it was measured.
SWAP_BYTES_PER_MS = 10_000_000
# Stands for an execution time not measured yet, so that queue lengths still count.
UNMEASURED_MS = 1.0
# Of the holders by rank, and at random, those that are compared; and how many are looked at for
# each, since some have let their lease run out or were tried already.
RANKED, RANDOM = 3, 2
HOME_LOOKS, DRAWN_LOOKS = 10, 8
# An attempt may take so many times its estimate, but never less than the floor; where a pass was
# not measured yet, never less than a first one may take.
PATIENCE = 5.0
FLOOR_S, UNMEASURED_FLOOR_S = 0.25, 2.0
# At least this much is sent and decoded a second, however slow the network or the codec.
BODY_BYTES_PER_S = 10e6


class RoutingView(Protocol):
    """What a choice may look at."""

    @property
    def workers(self) -> Mapping[str, WorkerInfo]: ...

    @property
    def holders(self) -> Mapping[VersionKey, ReplicaIndex]:
        """The workers that report a replica in any state."""
        ...

    @property
    def loads(self) -> Mapping[str, LoadReport]:
        """The newest report of each worker."""
        ...

    @property
    def outstanding(self) -> Mapping[str, int]:
        """Calls of this process that a worker has not answered yet."""
        ...

    @property
    def waits(self) -> Mapping[VersionKey, Blocked]:
        """What the last plan could not do."""
        ...


@dataclass(frozen=True, slots=True)
class Send:
    worker: WorkerInfo


@dataclass(frozen=True, slots=True)
class Hold:
    """Nobody can answer now; `reason` is an error reason for when the time runs out."""

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
    rng: "Random",
    excluded: Collection[str] = (),
) -> Route:
    """Picks a live worker that holds `key`; `excluded` are incarnations tried already.

    now: monotonic seconds. WARM replicas may serve too: the copy to the device is counted.

    Compared are the first few holders by rank, HOT before WARM, and two at random (Mitzenmacher,
    "The Power of Two Choices in Randomized Load Balancing", 2001). The first of them wins that
    would be done at most one pass later than the best: at low load the same few answer, so that
    their batches fill and the others may sleep or be released; under load the first ones are at
    most that pass behind what two random choices find, so that none becomes a hot spot.
    """
    holders = view.holders.get(key)
    if holders is None:
        return _nobody(view, key, now)
    look = _Look(view.workers, key, now, excluded)
    candidates = look.few(holders.hot, RANKED, RANDOM, rng)
    if holders.warm:
        candidates += look.few(holders.warm, *((1, 1) if candidates else (RANKED, RANDOM)), rng)
    if not candidates:
        # Almost all are stale or tried: one look at each is cheaper than a request turned away.
        candidates = look.all(holders.hot) + look.all(holders.warm)
        if not candidates:
            return _nobody(view, key, now)
    if len(candidates) == 1:
        return Send(candidates[0][0])
    finishes = [_finish_ms(view, worker, replica) for worker, replica in candidates]
    best_ms = min(finishes)
    limit_ms = best_ms + (candidates[finishes.index(best_ms)][1].inference_ms or UNMEASURED_MS)
    for candidate, finish_ms in zip(candidates, finishes, strict=True):
        if finish_ms <= limit_ms:
            return Send(candidate[0])
    raise AssertionError("the best is within its own limit")


class _Look:
    """Which of many holders could answer one request."""

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
        self, entries: Sequence[Entry], home: int, drawn: int, rng: "Random"
    ) -> list[Candidate]:
        """Up to `home` from the front and `drawn` at random of the rest."""
        # On the path of every request: written out, since a call costs as much as what it does.
        workers, key, now, excluded = self._workers, self._key, self._now, self._excluded
        found: list[Candidate] = []
        looked = 0
        for _, worker_id in entries[:HOME_LOOKS]:
            looked += 1
            worker = workers[worker_id]
            if worker.is_live(now) and worker.incarnation not in excluded:
                found.append((worker, worker.replicas[key]))
                if len(found) == home:
                    break
        rest = len(entries) - looked
        most = len(found) + drawn
        for _ in range(DRAWN_LOOKS if rest else 0):
            worker = workers[entries[looked + int(rng.random() * rest)][1]]
            if worker.is_live(now) and worker.incarnation not in excluded:
                found.append((worker, worker.replicas[key]))
                if len(found) == most:
                    break
        return found

    def all(self, entries: Sequence[Entry]) -> list[Candidate]:
        """Every one of these."""
        everyone = (self._workers[worker_id] for _, worker_id in entries)
        return [
            (worker, worker.replicas[self._key])
            for worker in everyone
            if worker.is_live(self._now) and worker.incarnation not in self._excluded
        ]


def per_try_timeout_s(
    view: RoutingView, worker: WorkerInfo, key: VersionKey, left_s: float, body_bytes: int
) -> float | None:
    """How long one attempt at a worker may take before another worker is asked; None: as long as
    the request has, since the other would have no time to answer.

    `left_s` until the deadline; `body_bytes` are to be sent and decoded. The limit is generous:
    it tells a worker that stands still from one that works, it does not race two workers.
    """
    replica = worker.replicas.get(key)
    if replica is None:
        return None
    finish_s = _finish_ms(view, worker, replica) / 1000 + body_bytes / BODY_BYTES_PER_S
    floor_s = FLOOR_S if replica.inference_ms else UNMEASURED_FLOOR_S
    limit_s = max(floor_s, min(PATIENCE * finish_s, left_s / 2))
    return limit_s if limit_s + finish_s < left_s else None


def _finish_ms(view: RoutingView, worker: WorkerInfo, replica: Replica) -> float:
    """When a request sent now would be done, in ms from now.

    The report's own queue, what this process has sent and the report can't know of yet, the
    copy to the device if it is needed, and the request itself.
    """
    report = view.loads.get(worker.id, worker.load)
    run_ms = replica.inference_ms or UNMEASURED_MS
    unreported = view.outstanding.get(worker.id, 0) - report.outstanding
    finish_ms = report.estimated_wait_ms + run_ms
    if unreported > 0:
        finish_ms += unreported * run_ms
    if replica.state is ReplicaState.WARM:
        measured = replica.footprint.swap_ms if replica.footprint is not None else 0.0
        finish_ms += measured or replica.weights_bytes / SWAP_BYTES_PER_MS
    return finish_ms


def _nobody(view: RoutingView, key: VersionKey, now: float) -> Hold | Reject:
    if not any(worker.is_live(now) for worker in view.workers.values()):
        return Hold("NO_WORKER", "no worker is connected: start one, or wait for one to come back")
    wait = view.waits.get(key)
    if wait is None:
        return Hold("DEADLINE_EXCEEDED", f"{key} is being loaded")
    if wait.final:
        return Reject(wait.as_error())
    return Hold(wait.reason, wait.why)
