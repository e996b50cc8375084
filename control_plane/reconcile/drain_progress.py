"""How far the models of a cordoned worker have moved to other workers. Pure.

A cordoned worker serves until its wanted models are loaded elsewhere, as far as there is memory.
The plan loads them there; this only tells when the worker may drain.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, WantSource
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, WorkerInfo


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """`moving`: versions whose replacement is awaited; `stuck`: those without one. Both sorted."""

    moving: tuple[VersionKey, ...] = ()
    stuck: tuple[VersionKey, ...] = ()


def progress(
    desired: Desired,
    workers: Mapping[str, WorkerInfo],
    blocked: Mapping[VersionKey, Blocked],
    worker: WorkerInfo,
    now: float,
    patient: bool = True,
) -> DrainProgress:
    """The progress of a cordoned worker; now: monotonic seconds.

    `patient`: a want that is blocked now may still be met; otherwise every blocked want counts as
    stuck. A worker that is gone, or has begun to drain, waits for nothing.
    """
    if not worker.is_live(now):
        return DrainProgress()
    others = [
        other
        for other in workers.values()
        if other.id != worker.id and other.is_live(now) and not desired.is_cordoned(other)
    ]
    moving, stuck = [], []
    for key, replica in sorted(worker.replicas.items()):
        want, version = desired.want(key), desired.versions.get(key)
        asked = want is not None and want.source is not WantSource.PREFETCH
        if want is None or not asked or version is None or replica.state not in LOADED:
            continue
        there = sum(_serves(other, key) for other in others)
        allowed = sum(
            version.given.placement.allows(other.labels) or _serves(other, key) for other in others
        )
        if there >= want.replicas:
            continue
        reason = blocked.get(key)
        if there >= allowed or (reason is not None and (reason.final or not patient)):
            if not there:
                stuck.append(key)
        else:
            moving.append(key)
    return DrainProgress(tuple(moving), tuple(stuck))


def _serves(worker: WorkerInfo, key: VersionKey) -> bool:
    replica = worker.replicas.get(key)
    return replica is not None and replica.state in LOADED
