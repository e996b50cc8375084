"""Where one more replica of a version can go: filter the workers, rank them, or say why not. Pure.

Each filter that leaves no worker answers with its reason.
"""

from collections.abc import Sequence

from control_plane.scheduling import preemption, reasons
from control_plane.scheduling.context import CPU, PlanContext
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.command import Blocked, Command
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint
from control_plane.types.version import ModelVersion, VersionKey


def place_replica(context: PlanContext, want: Want, version: ModelVersion) -> list[Command]:
    """An Assign with the Releases it needs before it, or a Wait."""
    workers = context.fleet.workers
    if not workers:
        return [reasons.no_worker(want.key)]
    first = _most_free(context, want, version)
    if first is not None:
        return [context.assign(want, first, context.size(version, first), "it fits")]
    free = [b for b in workers.values() if not b.holds(want.key)]
    if not free:
        return [reasons.too_few_workers(want.key, want.replicas, len(workers))]
    at_home = [b for b in free if context.is_eligible(want.key, b)]
    if not at_home:
        return [reasons.nowhere_allowed(want.key, version.given)]
    sizes = {b.worker.id: context.size(version, b) for b in at_home}
    allowed = _allowed_to_run(context, version, at_home, sizes)
    if not allowed:
        return [reasons.only_cpus(want.key)]
    roomy = [b for b in allowed if b.fits_empty(sizes[b.worker.id])]
    if not roomy:
        return [reasons.too_large(want.key, allowed, sizes)]
    willing = [b for b in roomy if context.failure(b, want.key) is None]
    if not willing:
        return [_failed(context, want.key, roomy)]
    return _rank(context, want, willing, sizes)


def _most_free(context: PlanContext, want: Want, version: ModelVersion) -> ProposedWorker | None:
    """Of the workers where it fits beside all that is there, the one with most room."""
    fallback = not context.only_cpus and version.given.residency.cpu_fallback

    def suits(proposed: ProposedWorker) -> bool:
        if proposed.holds(want.key) or context.failure(proposed, want.key) is not None:
            return False
        if proposed.worker.device_kind == CPU and not context.may_use_cpus(version):
            return False
        size = context.size(version, proposed)
        return (
            proposed.fits_hot(size)
            and proposed.fits_empty(size)
            and context.is_eligible(want.key, proposed)
            and proposed.fits(size, pinned=want.pinned)
        )

    return None if fallback else context.fleet.most_free(suits)


def _allowed_to_run(
    context: PlanContext,
    version: ModelVersion,
    free: list[ProposedWorker],
    sizes: dict[str, Footprint],
) -> list[ProposedWorker]:
    """Those of `free` that the version may run on: in a fleet with accelerators a CPU only
    takes what falls back to it, once every accelerator there is has failed to load it.
    """
    if context.may_use_cpus(version):
        return free
    fast = [b for b in free if b.worker.device_kind != CPU]
    failed = all(
        not b.fits_empty(sizes[b.worker.id]) or _lasting_failure(context, b, version.key)
        for b in fast
    )
    held = any(b.worker.device_kind != CPU for b in context.present(version.key))
    if version.given.residency.cpu_fallback and failed and not held:
        return [b for b in free if b.worker.device_kind == CPU] or fast
    return fast


def _lasting_failure(context: PlanContext, proposed: ProposedWorker, key: VersionKey) -> bool:
    failure = context.failure(proposed, key)
    return failure is not None and failure.reason not in reasons.PASSING


def _rank(
    context: PlanContext, want: Want, willing: list[ProposedWorker], sizes: dict[str, Footprint]
) -> list[Command]:
    """On the device beside all others, else in turn with others, else by making room."""
    pinned = want.pinned
    fitting = [b for b in willing if b.fits(sizes[b.worker.id], pinned=pinned)]
    hot = [b for b in fitting if b.fits_hot(sizes[b.worker.id])]
    if hot:
        proposed = min(hot, key=lambda b: (-b.free_bytes, b.worker.id))
        return [context.assign(want, proposed, sizes[proposed.worker.id], "it fits")]
    if fitting:
        proposed = min(fitting, key=lambda b: (b.crowding, b.load_share, b.worker.id))
        why = "it takes turns with others there"
        return [context.assign(want, proposed, sizes[proposed.worker.id], why)]
    if any(b.fits(sizes[b.worker.id], pinned=pinned, after_leaving=True) for b in willing):
        return [reasons.leaving(want.key)]
    return [*preemption.preempt(context, want, willing, sizes)]


def _failed(context: PlanContext, key: VersionKey, workers: Sequence[ProposedWorker]) -> Blocked:
    found = [(f, b.worker.id) for b in workers if (f := context.failure(b, key)) is not None]
    return reasons.failed(key, found, context.now)
