"""Scaling: how many copies of a version there are. Pure.

A copy is added where requests queue at all copies, and released when the others can carry the
load. The two bounds lie apart, so that constant demand changes nothing.
"""

from collections.abc import Iterable, Sequence

from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.scheduling.shares import memory_share
from control_plane.types.command import Assign
from control_plane.types.desired import Want
from control_plane.types.version import ModelVersion
from control_plane.types.worker import Replica

# One more copy where requests wait this long at every copy and another device is idle; one less
# where the others would be busy for less than this share of their time and requests hardly wait.
SCALE_UP_QUEUE_MS, SCALE_DOWN_QUEUE_MS = 100.0, 25.0
SCALE_DOWN_BUSY = 0.5
# A copy whose device works this share of the time for it is full, however short its queue is.
SCALE_UP_BUSY = 0.9
# A device that works less than this share of the time may take another copy, and one that works
# less than half of it may prefetch.
SPARE_BUSY = 0.6


def copies_to_keep(context: PlanContext, want: Want, loaded: Sequence[Replica]) -> int:
    """How many of the loaded copies stay: those wanted, and more if the load needs them."""
    there = len(loaded)
    if there <= want.replicas:
        return there
    busy = sum(replica.busy for replica in loaded)
    waits = max(replica.queue_ms for replica in loaded)
    needed = there if waits > SCALE_DOWN_QUEUE_MS else int(busy / SCALE_DOWN_BUSY) + 1
    return max(want.replicas, min(there, needed, _max_replicas(context, want)))


def is_calm(replica: Replica) -> bool:
    """Whether nothing speaks for another copy."""
    return replica.queue_ms < SCALE_UP_QUEUE_MS and replica.busy < SCALE_UP_BUSY


def scale_up(context: PlanContext, want: Want, version: ModelVersion) -> Iterable[Assign]:
    """One more copy where requests wait at every copy and a device of the same kind is idle."""
    holders = context.present(want.key)
    replicas = [worker.replicas[want.key] for worker in holders]
    if (
        not replicas
        or len(replicas) >= _max_replicas(context, want)
        or not all(map(is_loaded, replicas))
    ):
        return
    waits_ms = min(replica.queue_ms for replica in replicas)
    if waits_ms < SCALE_UP_QUEUE_MS and min(replica.busy for replica in replicas) < SCALE_UP_BUSY:
        return

    def suits(worker: ProposedWorker) -> bool:
        if (
            worker.holds(want.key)
            or not context.is_eligible(want.key, worker)
            or worker.busy > SPARE_BUSY
        ):
            return False
        size = context.size(version, worker)
        same = any(worker.device_kind == holder.device_kind for holder in holders)
        return (
            same
            and memory_share.allows(context, version)
            and context.failure(worker, want.key) is None
            and worker.fits(size)
            and (worker.fits_hot(size) or worker.crowding < SPARE_BUSY)
        )

    worker = context.fleet.most_free(suits)
    if worker is not None:
        why = f"its requests wait {waits_ms:.0f} ms at every copy, which are busy"
        yield context.assign(want, worker, context.size(version, worker), why, pinned=False)


def _max_replicas(context: PlanContext, want: Want) -> int:
    version = context.version(want.key)
    bound = version.given.placement.max_replicas if version is not None else 0
    return max(want.replicas, bound) if bound else max(want.replicas, len(context.fleet.workers))
