"""Preemption: which replicas a worker evicts for another, the least valuable and fewest. Pure."""

from collections.abc import Collection, Sequence
from heapq import nsmallest

from control_plane.scheduling import reasons
from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import PRESENT, ProposedWorker, size_of
from control_plane.scheduling.retention import cold_start_s
from control_plane.types.command import Assign, Blocked, Release
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint
from control_plane.types.worker import Replica

# Before it evicts a more valuable replica, a want waits at most this many times its own load time
# for one that is worth less than this share of it to become idle.
PATIENCE_PER_LOAD, MUCH_LESS = 2.0, 0.9
# Of the workers that could evict, so many with the least to lose are compared.
MAX_OFFERS = 16


def preempt(
    context: PlanContext, want: Want, willing: Sequence[ProposedWorker], sizes: dict[str, Footprint]
) -> list[Release | Assign | Blocked]:
    """The Releases and the Assign that needs them, where the least value is lost; or Blocked."""
    offers = []
    for worker in nsmallest(MAX_OFFERS, willing, key=lambda worker: (worker.min_value, worker.id)):
        size = sizes[worker.id]
        victims = victims_of(context, want, worker, size)
        if victims:
            lost = sum(
                context.retention_value(worker, replica) * replica.weights_bytes
                for replica in victims
            )
            last = max(worker.last_used(replica) for replica in victims)
            offers.append((lost, last, len(victims), worker.id, worker, victims))
    if not offers:
        return [why_no_victims(context, want, willing, sizes)]
    *_, worker, victims = min(offers, key=lambda offer: offer[:4])
    if _is_better_to_wait(context, want, worker, victims):
        return [reasons.in_use(want.key)]
    releases = context.evict_for(want, worker, victims)
    return [
        *releases,
        context.assign(want, worker, sizes[worker.id], "it fits once others have left"),
    ]


def _is_better_to_wait(
    context: PlanContext, want: Want, worker: ProposedWorker, victims: Sequence[Replica]
) -> bool:
    """Whether a replica worth much less than the victims is only in use right now, and this want
    has not waited long. Rarely used models share little memory; a moment's work must not widen it.
    """
    if want.pinned:
        return False
    version = context.version(want.key)
    cost_s = cold_start_s(version, worker.build, context.snapshot.footprints) if version else 0
    since = min(want.since_unix_s, context.snapshot.waiting.get(want.key, want.since_unix_s))
    if context.snapshot.unix_s - since > PATIENCE_PER_LOAD * cost_s:
        return False
    dearest = max(context.retention_value(worker, replica) for replica in victims)
    return any(
        context.retention_value(worker, replica) < MUCH_LESS * dearest
        for replica in worker.replicas.values()
        if replica not in victims and replica.state in PRESENT and not context.is_pinned(replica)
    )


def victims_of(
    context: PlanContext,
    want: Want,
    worker: ProposedWorker,
    size: Footprint,
    beside: Collection[Replica] = (),
) -> list[Replica]:
    """The fewest replicas of the least value without which `size` fits, if those `beside` left too.

    Empty: no replicas do.
    """

    def is_enough(gone: list[Replica]) -> bool:
        without = {replica.key for replica in (*beside, *gone)}
        return worker.fits(size, pinned=want.pinned, without=without)

    chosen: list[Replica] = []
    for replica in sorted(
        (
            replica
            for replica in worker.replicas.values()
            if may_preempt(context, worker, replica, want)
        ),
        key=lambda replica: (
            not context.was_used(worker, replica),
            context.retention_value(worker, replica),
            worker.last_used(replica),
            replica.key,
        ),
    ):
        chosen.append(replica)
        if is_enough(chosen):
            break
    else:
        return []
    # The last victim made the difference; earlier ones may not be needed beside it.
    for replica in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other is not replica]
        if is_enough(fewer):
            chosen = fewer
    return chosen


def may_preempt(context: PlanContext, worker: ProposedWorker, replica: Replica, want: Want) -> bool:
    """Whether a replica may be evicted for `want`: it is unpinned, idle, kept for no alias, and was
    used since it was wanted, or its want comes before `want` in order of urgency.

    A replica that was loaded for a later want and not used yet stays: otherwise two wants could
    evict each other's replicas, and neither would be served.
    """
    if not is_loaded(replica) or replica.key in context.assigned or worker.outstanding(replica):
        return False
    wanted = context.wants.get(replica.key)
    if wanted is None:
        return True
    if wanted.pinned:
        return False
    if want.pinned:
        return True
    if context.is_kept(replica.key):
        return False
    return context.was_used(worker, replica) or context.urgency(wanted) < context.urgency(want)


def why_no_victims(
    context: PlanContext, want: Want, workers: Sequence[ProposedWorker], sizes: dict[str, Footprint]
) -> Blocked:
    """Why no worker can evict for it: the replicas there are in use, or are pinned."""
    for worker in workers:
        soft = [
            replica.key for replica in worker.replicas.values() if not context.is_pinned(replica)
        ]
        size = sizes[worker.id]
        if worker.fits(size, pinned=want.pinned, without=[*soft, want.key], after_leaving=True):
            return reasons.in_use(want.key)
    return reasons.pinned_full(want.key)


def pin_replica(
    context: PlanContext, want: Want, worker: ProposedWorker
) -> list[Release | Assign | Blocked]:
    """The pin that a replica lacks, with the Releases it needs before it; or Blocked."""
    replica = worker.replicas[want.key]
    if not want.pinned or replica.pinned or not is_loaded(replica):
        return []
    # Less urgent replicas are to be pinned too: they take the memory that this one leaves.
    rivals = [
        other for other in worker.replicas.values() if not other.pinned and context.is_pinned(other)
    ]
    if worker.can_pin(want.key, without=[rival.key for rival in rivals]):
        return [context.pin(worker, want, "it was pinned")]
    victims = victims_of(context, want, worker, size_of(replica), rivals)
    if not victims:
        return [why_no_victims(context, want, [worker], {worker.id: size_of(replica)})]
    releases = context.evict_for(want, worker, victims)
    return [*releases, context.pin(worker, want, "it was pinned", worker.released_now)]
