"""Releases without preemption: unwanted, idle, surplus, misplaced, unschedulable. Pure."""

from collections.abc import Iterable

from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.scheduling.scaling import copies_to_keep
from control_plane.types.command import Assign, Release
from control_plane.types.desired import Want
from control_plane.types.policy import POOL, ResidencyMode
from control_plane.types.version import VersionKey
from yolopool.vocabulary import ReplicaState

# What was asked for within so many seconds is in use.
IN_USE_S = 60.0


def unpin(context: PlanContext, workers: Iterable[ProposedWorker]) -> Iterable[Assign]:
    """Unpins what is not wanted pinned any more, first: others may need that device memory."""
    for worker in workers:
        for replica in context.replicas(worker):
            want = context.wants.get(replica.key) if replica.pinned and is_loaded(replica) else None
            if want is not None and not want.pinned:
                yield context.pin(worker, want, "it was unpinned")


def release_idle(context: PlanContext, wants: Iterable[Want]) -> Iterable[Release]:
    """Releases of on-demand versions that were not used within their idle limit."""
    for want in wants:
        limit_s = _idle_limit_s(context, want)
        if limit_s is None:
            continue
        places = context.present(want.key)
        # The want ends with its replicas, so one replica in use keeps all of them.
        if not places or not all(_is_idle(context, worker, want, limit_s) for worker in places):
            continue
        for worker in places:
            why = f"idle for {limit_s:g} s: it is kept on demand only"
            yield context.release(worker, want.key, why, drop_want=True, reason="IDLE")


def _idle_limit_s(context: PlanContext, want: Want) -> float | None:
    version = context.version(want.key)
    if version is None or want.pinned:
        return None
    residency = version.given.residency
    if residency.mode is not ResidencyMode.ON_DEMAND or context.is_kept(want.key):
        return None
    return residency.idle_release_s


def _is_idle(context: PlanContext, worker: ProposedWorker, want: Want, limit_s: float) -> bool:
    replica = worker.replicas[want.key]
    idle_s = context.snapshot.unix_s - max(worker.last_used(replica), want.since_unix_s)
    return is_loaded(replica) and not worker.outstanding(replica) and idle_s >= limit_s


def release_unschedulable(
    context: PlanContext, workers: Iterable[ProposedWorker]
) -> Iterable[Release]:
    """Releases of replicas that can't come to their device any more beside the pinned ones."""
    for worker in workers:
        for key in worker.unschedulable():
            replica = worker.replicas[key]
            if not is_loaded(replica) or worker.outstanding(replica):
                continue
            why = "pinned models leave no room for it on the device"
            if context.is_pinned(replica):
                yield context.release(worker, key, why, reason="STRANDED")
            else:
                yield context.evict(worker, key, why, "STRANDED")


def release_unwanted(context: PlanContext, workers: Iterable[ProposedWorker]) -> Iterable[Release]:
    """Releases of versions that nobody wants; a load under way is left to end first."""
    for worker in workers:
        for replica in context.replicas(worker):
            if replica.key not in context.wants and replica.state is not ReplicaState.ASSIGNED:
                deleted = replica.key not in context.snapshot.desired.versions
                why = "it was deleted" if deleted else "nobody wants it"
                yield context.release(worker, replica.key, why)


def scale_down(
    context: PlanContext, want: Want, holders: list[ProposedWorker]
) -> Iterable[Release]:
    """Releases of loaded copies beyond what is wanted; copies still loading do not count."""
    loaded = [worker for worker in holders if is_loaded(worker.replicas[want.key])]
    if len(loaded) <= want.replicas:
        return
    keep = copies_to_keep(context, want, [worker.replicas[want.key] for worker in loaded])
    for worker in sorted(loaded, key=lambda worker: _surplus_order(context, want, worker))[
        : len(loaded) - keep
    ]:
        why = f"{len(loaded)} replicas are there and {keep} are wanted"
        yield context.release(worker, want.key, why, reason="SURPLUS")


def _surplus_order(
    context: PlanContext, want: Want, worker: ProposedWorker
) -> tuple[bool, bool, float, int, float, str]:
    """Sort key of surplus copies: the first leaves first. Of copies that are all in use it is the
    one that was asked least: a copy made while a worker was away leaves, and not the one of the
    worker that came back, where callers know it.
    """
    replica = worker.replicas[want.key]
    in_use = context.snapshot.unix_s - IN_USE_S
    idle = not worker.outstanding(replica) and worker.last_used(replica) < in_use
    return (
        want.pinned and replica.pinned,
        replica.state is ReplicaState.HOT,
        worker.last_used(replica) if idle else in_use,
        replica.requests_total,
        -worker.crowding,
        worker.id,
    )


def migrate(context: PlanContext, want: Want, holders: list[ProposedWorker]) -> Iterable[Release]:
    """Releases of replicas where they may not be any more, once enough are loaded elsewhere."""
    holders = [worker for worker in holders if context.is_still_at(worker, want.key)]
    misplaced = [worker for worker in holders if not context.is_eligible(want.key, worker)]
    eligible = [worker.replicas[want.key] for worker in holders if worker not in misplaced]
    if not misplaced or sum(map(is_loaded, eligible)) < want.replicas:
        return
    for worker in misplaced:
        replica = worker.replicas[want.key]
        if is_loaded(replica):
            why = _why_misplaced(context, want.key, worker)
            yield context.release(worker, want.key, why, reason="MOVED")


def _why_misplaced(context: PlanContext, key: VersionKey, worker: ProposedWorker) -> str:
    if context.snapshot.desired.is_cordoned(worker.info):
        return "its worker drains, and it is loaded elsewhere"
    owner = context.owners.of(key.model)
    if not context.owners.allows(key.model, worker.info.labels.get(POOL, "")):
        who = f"tenant {owner.name}" if owner is not None else "nobody"
        return f"it is of {who}, and its worker is for others; it is loaded elsewhere"
    version = context.version(key)
    asked = version.given.placement.requires if version is not None else ""
    return f"it may only be where {asked}, and it is loaded there"
