"""How many copies of a version there are, and what is brought near before it is asked for. Pure.

Copies are added where requests queue, and dropped when the others can carry what there is: the two
bounds lie apart, so that constant demand moves nothing.
"""

from collections.abc import Iterable, Sequence

from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.command import Assign
from control_plane.types.desired import Want
from control_plane.types.version import ModelVersion
from control_plane.types.worker import Replica

# One more where requests wait so long at every copy and a device stands idle; one less where the
# others would work less than this share of their time, and nobody waits.
QUEUE_MS, CALM_MS = 100.0, 25.0
CARRY = 0.5
# A copy that works so much of the time for it is full, however short its queue is kept.
FULL = 0.9
# A device that works less than this may take a copy, and one that works less than half of it may
# fetch what nobody asked for yet.
SPARE = 0.6


def copies_to_keep(context: PlanContext, want: Want, loaded: Sequence[Replica]) -> int:
    """Of those loaded: what is wanted, and as many more as it takes to carry what there is."""
    there = len(loaded)
    if there <= want.replicas:
        return there
    busy = sum(replica.busy for replica in loaded)
    waits = max(replica.queue_ms for replica in loaded)
    needed = there if waits > CALM_MS else int(busy / CARRY) + 1
    return max(want.replicas, min(there, needed, _most(context, want)))


def is_calm(replica: Replica) -> bool:
    """Whether nothing speaks for another copy."""
    return replica.queue_ms < QUEUE_MS and replica.busy < FULL


def scale_up(context: PlanContext, want: Want, version: ModelVersion) -> Iterable[Assign]:
    """A copy of a version whose requests wait at every copy, where a device stands idle."""
    holders = context.present(want.key)
    replicas = [proposed.replicas[want.key] for proposed in holders]
    if not replicas or len(replicas) >= _most(context, want) or not all(map(is_loaded, replicas)):
        return
    waits_ms = min(replica.queue_ms for replica in replicas)
    if waits_ms < QUEUE_MS and min(replica.busy for replica in replicas) < FULL:
        return

    def suits(proposed: ProposedWorker) -> bool:
        if (
            proposed.holds(want.key)
            or not context.is_eligible(want.key, proposed)
            or proposed.busy > SPARE
        ):
            return False
        size = context.size(version, proposed)
        same = any(proposed.worker.device_kind == b.worker.device_kind for b in holders)
        return (
            same
            and context.failure(proposed, want.key) is None
            and proposed.fits(size)
            and (proposed.fits_hot(size) or proposed.crowding < SPARE)
        )

    proposed = context.fleet.most_free(suits)
    if proposed is not None:
        why = f"its requests wait {waits_ms:.0f} ms at every copy, which are busy"
        yield context.assign(want, proposed, context.size(version, proposed), why, pinned=False)


def _most(context: PlanContext, want: Want) -> int:
    version = context.version(want.key)
    bound = version.given.placement.max_replicas if version is not None else 0
    return max(want.replicas, bound) if bound else max(want.replicas, len(context.fleet.workers))
