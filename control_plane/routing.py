"""Which worker answers a request: power of two choices on the estimated finish.

Pure, and on the path of every request: it looks only at the holders of one version.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from control_plane.commands import Wait
from control_plane.fleet import (
    LoadReport,
    Replica,
    ReplicaState,
    VersionKey,
    WorkerInfo,
)
from yolopool.errors import YolopoolError, rebuild_reason

if TYPE_CHECKING:
    from random import Random

# A copy from pinned host memory to the device, as PCIe 4 x8 does it, until it was measured.
SWAP_BYTES_PER_MS = 10_000_000
# Stands for an execution time not measured yet, so that queue lengths still count.
UNMEASURED_MS = 1.0


class RoutingView(Protocol):
    """What a choice may look at."""

    @property
    def workers(self) -> Mapping[str, WorkerInfo]: ...

    @property
    def holders(self) -> Mapping[VersionKey, Sequence[str]]:
        """Ids of the workers that report a replica in any state."""
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
    def waits(self) -> Mapping[VersionKey, Wait]:
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


def choose(
    view: RoutingView,
    key: VersionKey,
    now: float,
    rng: "Random",
    excluded: Collection[str] = (),
) -> Route:
    """Picks a live worker that holds `key`; `excluded` are incarnations tried already.

    now: monotonic seconds. WARM replicas may serve too: the copy to the device is counted.
    """
    serving = []
    for worker_id in view.holders.get(key, ()):
        worker = view.workers[worker_id]
        replica = worker.replicas[key]
        if (
            replica.state in (ReplicaState.HOT, ReplicaState.WARM)
            and worker.is_live(now)
            and worker.incarnation not in excluded
        ):
            serving.append((worker, replica))
    if not serving:
        return _nobody(view, key, now)
    if len(serving) == 1:
        return Send(serving[0][0])
    first = rng.randrange(len(serving))
    second = rng.randrange(len(serving) - 1)
    if second >= first:
        second += 1
    one, other = serving[first], serving[second]
    return Send(one[0] if _finish_ms(view, *one) <= _finish_ms(view, *other) else other[0])


def _finish_ms(view: RoutingView, worker: WorkerInfo, replica: Replica) -> float:
    """When a request sent now would be done, in ms from now.

    The report's own queue, what this process has sent and the report can't know of yet, the
    copy to the device if it is needed, and the request itself.
    """
    report = view.loads.get(worker.id, worker.load)
    run_ms = replica.inference_ms or UNMEASURED_MS
    unreported = max(0, view.outstanding.get(worker.id, 0) - report.outstanding)
    swap_ms = 0.0
    if replica.state is ReplicaState.WARM:
        measured = replica.footprint.swap_ms if replica.footprint is not None else 0.0
        swap_ms = measured or replica.weights_bytes / SWAP_BYTES_PER_MS
    return report.estimated_wait_ms + (unreported + 1) * run_ms + swap_ms


def _nobody(view: RoutingView, key: VersionKey, now: float) -> Hold | Reject:
    if not any(worker.is_live(now) for worker in view.workers.values()):
        return Hold("NO_WORKER", "no worker is connected: start one, or wait for one to come back")
    wait = view.waits.get(key)
    if wait is None:
        return Hold("DEADLINE_EXCEEDED", f"{key} is being loaded")
    if wait.final:
        return Reject(error_of(wait))
    return Hold(wait.reason, wait.why)


def error_of(wait: Wait) -> YolopoolError:
    """The error that a caller gets for what the plan could not do."""
    return rebuild_reason(wait.reason, wait.why, retry_after_s=wait.retry_after_s)
