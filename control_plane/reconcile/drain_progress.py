"""What keeps a worker that is to leave: models that nobody else could serve yet. Pure.

A cordoned worker serves on until what is wanted of its models is loaded elsewhere, as far as there
is room; the plan loads it there, this only tells when the worker may go.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, WantSource
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, WorkerInfo


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """`moving`: replacements that are awaited; `stuck`: none will come. Both sorted."""

    moving: tuple[VersionKey, ...] = ()
    stuck: tuple[VersionKey, ...] = ()


def progress(
    desired: Desired,
    workers: Mapping[str, WorkerInfo],
    waits: Mapping[VersionKey, Blocked],
    worker: WorkerInfo,
    now: float,
    patient: bool = True,
) -> DrainProgress:
    """How far the models of a cordoned worker have moved; now: monotonic seconds.

    `patient`: a wait of the plan may pass (another model leaves to make room); else every wait
    counts as for good. A worker that is gone, or has begun to drain, keeps nothing back.
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
        wait = waits.get(key)
        if there >= allowed or (wait is not None and (wait.final or not patient)):
            if not there:
                stuck.append(key)
        else:
            moving.append(key)
    return DrainProgress(tuple(moving), tuple(stuck))


def _serves(worker: WorkerInfo, key: VersionKey) -> bool:
    replica = worker.replicas.get(key)
    return replica is not None and replica.state in LOADED
