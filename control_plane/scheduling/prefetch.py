"""Prefetch: which versions are loaded into host memory before a request asks for them. Pure."""

from collections.abc import Iterable

from control_plane.scheduling.context import PlanContext
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.scheduling.retention import cold_start_s
from control_plane.scheduling.scaling import SPARE_BUSY
from control_plane.scheduling.shares import memory_share
from control_plane.types.command import Assign
from control_plane.types.desired import Want, WantSource
from control_plane.types.policy import ResidencyMode
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey, VersionState
from yolopool.vocabulary import ReplicaState

# Prefetches in one plan; and requests a second that make a version worth one.
MAX_PREFETCHES = 4
LIKELY_RATE = 1.0 / 3600.0


def prefetch(context: PlanContext) -> Iterable[Assign]:
    """Prefetches the likeliest versions on workers that are idle and have host memory for them."""
    idle = [worker for worker in context.fleet.workers.values() if _may_fetch(worker)]
    if not idle:
        return
    likely = sorted(_likely(context), key=lambda pair: (-pair[0], pair[1].key))
    for _, version in likely[:MAX_PREFETCHES]:
        if not memory_share.allows(context, version):
            continue
        for worker in sorted(idle, key=lambda worker: (-worker.free_tier_bytes, worker.id)):
            size = context.size(version, worker)
            if (
                context.is_eligible(version.key, worker)
                and context.failure(worker, version.key) is None
                and size.weights_bytes <= worker.free_tier_bytes
                and worker.fits(size)
            ):
                want = Want(version.key, 1, False, WantSource.PREFETCH, context.snapshot.unix_s)
                context.wants.add(want)
                why = "it is likely to be asked for, and there is room"
                yield context.assign(want, worker, size, why, prefetch=True)
                idle.remove(worker)  # one prefetch a worker and plan
                break


def _may_fetch(worker: ProposedWorker) -> bool:
    if not worker.info.ledger.assignable_bytes or worker.busy > SPARE_BUSY / 2 or worker.leaving:
        return False
    return all(replica.state is not ReplicaState.ASSIGNED for replica in worker.replicas.values())


def _likely(context: PlanContext) -> Iterable[tuple[float, ModelVersion]]:
    """Versions that no worker has, and that were asked for lately or follow one that is in use,
    with the cold-start seconds a second that they would cost.
    """
    snapshot = context.snapshot
    for key, arrivals in snapshot.departed.items():
        version = _fetchable(context, key)
        rate = arrivals.now(context.now).estimate
        if version is not None and rate >= LIKELY_RATE:
            yield (
                rate * cold_start_s(version, DeviceVariant.usual(""), snapshot.footprints),
                version,
            )
    for key in list(context.fleet.holder_ids):
        # The name of a model in use means its next version once that is ready.
        newer = _fetchable(context, VersionKey(key.model, key.number + 1))
        if newer is not None and newer.key not in snapshot.departed:
            rate = _rate(context, key)
            if rate >= LIKELY_RATE:
                yield (
                    rate * cold_start_s(newer, DeviceVariant.usual(""), snapshot.footprints),
                    newer,
                )


def _fetchable(context: PlanContext, key: VersionKey) -> ModelVersion | None:
    version = context.version(key)
    if version is None or version.state is not VersionState.READY:
        return None
    nowhere = key not in context.wants and key not in context.fleet.holder_ids
    on_demand = version.given.residency.mode is ResidencyMode.ON_DEMAND
    unloaded = key in context.snapshot.unloaded or key in context.snapshot.releasing
    return version if nowhere and not on_demand and not unloaded else None


def _rate(context: PlanContext, key: VersionKey) -> float:
    return sum(worker.replicas[key].rates.estimate for worker in context.fleet.holders(key))
