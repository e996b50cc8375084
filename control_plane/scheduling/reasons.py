"""Why a want is blocked: every "no" of a plan as a reason code and a sentence for the caller. Pure.

Callers get a final reason at once, any other one when their deadline passes.
"""

from collections.abc import Mapping, Sequence

from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.access.tenant import Tenant
from control_plane.types.command import Blocked
from control_plane.types.footprint import Footprint
from control_plane.types.policy import POOL
from control_plane.types.snapshot import LoadFailure
from control_plane.types.version import (
    DeviceVariant,
    ModelVersion,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionState,
)
from yolopool.vocabulary import INT8, can_compute

MIB = 2**20
# The worker may load the version, but not the build that serves it on others of its kind.
BUILD_UNCHECKED = "BUILD_UNCHECKED"
# Transient refusals: neither the worker nor the pack is at fault, so no caller gets LOAD_FAILED.
TRANSIENT = frozenset({"LEDGER_FULL", "DRAINING", "WORKER_LOST", "UNAVAILABLE"})


def not_ready(key: VersionKey, version: ModelVersion) -> Blocked:
    if version.state is VersionState.FAILED:
        why = f"the import of {key} failed: {version.reason}: {version.message}"
        return Blocked(key, "MODEL_IMPORT_FAILED", why, final=True)
    return Blocked(key, "MODEL_NOT_READY", f"{key} is {version.state}: wait for its import")


def no_worker(key: VersionKey) -> Blocked:
    return Blocked(key, "NO_WORKER", "no worker is connected: start one")


def unchecked(key: VersionKey, served: ServedBuild, build: DeviceVariant) -> str:
    """Why a build does not serve a version on a worker, and how to have it checked there."""
    backend, precision = served.backend, served.precision
    name = f"{backend}/{precision}"
    if not can_compute(name, build.compute_class):
        return (
            f"{build.variant} serves it here: this worker's processor ({build.compute_class}) does "
            f"not compute {name}"
        )
    checked = ", ".join(sorted(served.checks))
    found = f"was compared on {checked} alone" if checked else "was compared on no compute class"
    if not build.compute_class:
        return (
            f"{build.variant} serves it here: {name} {found}, and this worker does not say which "
            "one it is: bring it to this release"
        )
    calibration = " --calibration FOLDER" if precision == INT8 else ""
    return (
        f"{build.variant} serves it here: {name} {found}, and this worker is "
        f"{build.compute_class}: run yolopool models build {key} --backend {backend} "
        f"--precision {precision} --device {build.device_kind} "
        f"--compute-class {build.compute_class} --images FOLDER{calibration} --serve"
    )


def too_few_workers(key: VersionKey, replicas: int, workers: int) -> Blocked:
    why = f"{replicas} replicas are wanted and {workers} workers are connected"
    return Blocked(key, "NO_WORKER", f"{why}: start more, or want fewer")


def only_cpus(key: VersionKey) -> Blocked:
    why = (
        "only CPU workers are free, and beside accelerators they take only what has cpu_fallback "
        "and failed to load on every accelerator: set cpu_fallback, or start another worker"
    )
    return Blocked(key, "NO_WORKER", why)


def no_eligible_worker(key: VersionKey, given: ServingSpec, owner: Tenant | None = None) -> Blocked:
    placement = given.placement
    if owner is not None and owner.pool:
        asked = " and ".join(filter(None, (f"{POOL}={owner.pool}", placement.requires)))
        why = (
            f"tenant {owner.name} has workers of its own, and none with {asked} takes work: start "
            f"one with --labels {POOL}={owner.pool}"
        )
        return Blocked(key, "NO_WORKER", why)
    if given.build_of is not None:
        built = " or ".join(f"{kind} ({made.variant})" for kind, made in given.served.items())
        asked = " and ".join(filter(None, (built, placement.requires)))
        why = f"it is a build for {asked}, and no worker that computes it takes work: start one"
    elif not placement.requires:
        why = "every worker that does not have it yet is cordoned, or a tenant's own: start another"
    else:
        asked = placement.requires
        why = f"no worker that takes work has {asked}: start one, or place {key} elsewhere"
    return Blocked(key, "NO_WORKER", why)


def too_large(
    key: VersionKey, workers: Sequence[ProposedWorker], sizes: Mapping[str, Footprint]
) -> Blocked:
    largest = max(workers, key=lambda worker: (worker.capacity_bytes, worker.id))
    needed = sizes[largest.id].device_bytes / MIB
    why = (
        f"{key} needs {needed:,.1f} MiB and the largest worker, {largest.id}, has "
        f"{max(0, largest.capacity_bytes) / MIB:,.1f} MiB for models: raise its memory budget"
    )
    return Blocked(key, "MODEL_TOO_LARGE", why, final=True)


def load_failed(key: VersionKey, found: Sequence[tuple[LoadFailure, str]], now: float) -> Blocked:
    """`found`: the failures with the ids of their workers, at least one."""
    first, worker = min(found, key=lambda pair: (pair[0].retry_at_s, pair[1]))
    left_s = max(0.0, first.retry_at_s - now)
    # Callers get LOAD_FAILED only if no worker refused for a transient reason.
    if any(failure.reason in TRANSIENT for failure, _ in found):
        return Blocked(key, first.reason, f"{worker}: {first.message}", retry_after_s=left_s)
    why = f"loading {key} on {worker} failed: {first.reason}: {first.message}"
    return Blocked(key, "LOAD_FAILED", why, final=True, retry_after_s=left_s)


def room_is_being_freed(key: VersionKey) -> Blocked:
    return Blocked(key, "LEDGER_FULL", f"{key} waits until another model has left")


def in_use(key: VersionKey) -> Blocked:
    why = f"{key} waits for memory: every other model is in use or being loaded"
    return Blocked(key, "LEDGER_FULL", why)


def too_many(key: VersionKey) -> Blocked:
    why = f"the others to be loaded with {key} leave it no room: load fewer, or add a worker"
    return Blocked(key, "LEDGER_FULL", why, final=True)


def pinned_full(key: VersionKey) -> Blocked:
    why = f"pinned models leave no room for {key}: unload or unpin one, or add a worker"
    return Blocked(key, "LEDGER_FULL", why, final=True)
