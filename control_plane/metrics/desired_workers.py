"""How many workers of a kind of device the present load asks for: what an autoscaler reads. Pure.

The most of: what keeps their devices busy TARGET_BUSY of the time; what holds the weights that are
on devices, with those that wait for room; one more than there are, where requests wait long; one.
"""

from collections.abc import Mapping, Sequence
from math import ceil

from control_plane.metrics.fleet_look import FleetLook
from control_plane.types.worker import WorkerInfo, WorkerState
from yolopool.vocabulary import ReplicaState

TARGET_BUSY = 0.7
# Requests that wait this long ask for one worker more, however busy devices are.
LONG_WAIT_MS = 500.0
_WAITS = "LEDGER_FULL"


def desired_workers(look: FleetLook) -> Mapping[str, int]:
    """By the kind of device, of those that there are."""
    kinds: dict[str, list[WorkerInfo]] = {}
    for worker in look.here:
        if worker.state is not WorkerState.DRAINING:
            kinds.setdefault(worker.device_kind, []).append(worker)
    waiting = sum(wait.reason == _WAITS for wait in look.waits.values())
    # Versions that wait would go to where most workers are.
    most = max(kinds, key=lambda kind: len(kinds[kind]), default="")
    return {
        kind: _desired(look, workers, waiting if kind == most else 0)
        for kind, workers in kinds.items()
    }


def _desired(look: FleetLook, workers: Sequence[WorkerInfo], waiting: int) -> int:
    busy = sum(
        min(1.0, sum(replica.busy for replica in worker.replicas.values())) for worker in workers
    )
    waits_ms = min(look.load(worker).estimated_wait_ms for worker in workers)
    queued = len(workers) + 1 if waits_ms > LONG_WAIT_MS else 0
    return max(1, ceil(busy / TARGET_BUSY), queued, _for_memory(workers, waiting))


def _for_memory(workers: Sequence[WorkerInfo], waiting: int) -> int:
    """For weights on devices, and those of `waiting` versions more, each of the mean size."""
    room = [
        worker.ledger.budget_bytes - worker.ledger.used_bytes + worker.ledger.weights_bytes
        for worker in workers
    ]
    mean_room = sum(room) / len(room)
    hot = [
        replica.weights_bytes
        for worker in workers
        for replica in worker.replicas.values()
        if replica.state is ReplicaState.HOT
    ]
    if mean_room <= 0 or not hot:
        return len(workers) + (1 if waiting else 0)
    return ceil((sum(hot) + waiting * sum(hot) / len(hot)) / mean_room)
