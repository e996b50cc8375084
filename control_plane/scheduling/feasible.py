"""Where one more replica of a version can go: filter the workers, rank them, or say why not. Pure.

Each filter that leaves no worker answers with its reason.
"""

from collections.abc import Sequence

from control_plane.scheduling import preemption, reasons
from control_plane.scheduling.context import CPU, PlanContext
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.scheduling.shares import memory_share
from control_plane.types.command import Blocked, Command
from control_plane.types.desired import Want
from control_plane.types.footprint import Footprint
from control_plane.types.version import ModelVersion, VersionKey


def place_replica(context: PlanContext, want: Want, version: ModelVersion) -> list[Command]:
    """An Assign with the Releases it needs before it; or Blocked, last, and alone but for the
    Releases that its tenant's share needs.
    """
    workers = context.fleet.workers
    if not workers:
        return [reasons.no_worker(want.key)]
    waits = memory_share.make_room(context, want, version)
    if waits:
        return waits
    first = _most_free(context, want, version)
    if first is not None:
        return [context.assign(want, first, context.size(version, first), "it fits")]
    free = [worker for worker in workers.values() if not worker.holds(want.key)]
    if not free:
        return [reasons.too_few_workers(want.key, want.replicas, len(workers))]
    eligible = [worker for worker in free if context.is_eligible(want.key, worker)]
    if not eligible:
        owner = context.owners.of(want.key.model)
        return [reasons.no_eligible_worker(want.key, version.given, owner)]
    sizes = {worker.id: context.size(version, worker) for worker in eligible}
    allowed = _allowed_to_run(context, version, eligible, sizes)
    if not allowed:
        return [reasons.only_cpus(want.key)]
    roomy = [worker for worker in allowed if worker.fits_empty(sizes[worker.id])]
    if not roomy:
        return [reasons.too_large(want.key, allowed, sizes)]
    willing = [worker for worker in roomy if context.failure(worker, want.key) is None]
    if not willing:
        return [_failed(context, want.key, roomy)]
    return _rank(context, want, willing, sizes)


def _most_free(context: PlanContext, want: Want, version: ModelVersion) -> ProposedWorker | None:
    """Of the workers whose device has memory for it beside all replicas, the one with most."""
    fallback = not context.only_cpus and version.given.residency.cpu_fallback

    def suits(worker: ProposedWorker) -> bool:
        if worker.holds(want.key) or context.failure(worker, want.key) is not None:
            return False
        if worker.device_kind == CPU and not context.may_use_cpus(version):
            return False
        size = context.size(version, worker)
        return (
            worker.fits_hot(size)
            and worker.fits_empty(size)
            and context.is_eligible(want.key, worker)
            and worker.fits(size, pinned=want.pinned)
        )

    return None if fallback else context.fleet.most_free(suits)


def _allowed_to_run(
    context: PlanContext,
    version: ModelVersion,
    free: list[ProposedWorker],
    sizes: dict[str, Footprint],
) -> list[ProposedWorker]:
    """Those of `free` whose kind of device the version may use.

    In a fleet with accelerators a CPU takes only a version that may fall back to it, once every
    accelerator has failed to load it.
    """
    if context.may_use_cpus(version):
        return free
    fast = [worker for worker in free if worker.device_kind != CPU]
    failed = all(
        not worker.fits_empty(sizes[worker.id]) or _lasting_failure(context, worker, version.key)
        for worker in fast
    )
    held = any(worker.device_kind != CPU for worker in context.present(version.key))
    if version.given.residency.cpu_fallback and failed and not held:
        return [worker for worker in free if worker.device_kind == CPU] or fast
    return fast


def _lasting_failure(context: PlanContext, worker: ProposedWorker, key: VersionKey) -> bool:
    failure = context.failure(worker, key)
    return failure is not None and failure.reason not in reasons.TRANSIENT


def _rank(
    context: PlanContext, want: Want, willing: list[ProposedWorker], sizes: dict[str, Footprint]
) -> list[Command]:
    """On a device beside all others, else in turn with others, else by preemption."""
    pinned = want.pinned
    fitting = [worker for worker in willing if worker.fits(sizes[worker.id], pinned=pinned)]
    hot = [worker for worker in fitting if worker.fits_hot(sizes[worker.id])]
    if hot:
        worker = min(hot, key=lambda worker: (-worker.free_bytes, worker.id))
        return [context.assign(want, worker, sizes[worker.id], "it fits")]
    if fitting:
        worker = min(fitting, key=lambda worker: (worker.crowding, worker.weights_share, worker.id))
        why = "it takes turns with other models there"
        return [context.assign(want, worker, sizes[worker.id], why)]
    if any(worker.fits(sizes[worker.id], pinned=pinned, after_leaving=True) for worker in willing):
        return [reasons.room_is_being_freed(want.key)]
    return [*preemption.preempt(context, want, willing, sizes)]


def _failed(context: PlanContext, key: VersionKey, workers: Sequence[ProposedWorker]) -> Blocked:
    found = [
        (f, worker.id) for worker in workers if (f := context.failure(worker, key)) is not None
    ]
    return reasons.load_failed(key, found, context.now)
