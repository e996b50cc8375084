"""What a plan is made from: desired and observed state at one moment. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from control_plane.types.desired import Desired
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.version import VersionKey
from control_plane.types.worker import ReplicaKey, WorkerInfo
from yolopool.server.arrival_rates import Arrivals


@dataclass(slots=True)
class OutstandingCalls:
    """Calls of this process to one replica, ahead of what its worker reports.

    `foreign` are tickets of others: what the worker reported beyond our own calls at the time.
    """

    outstanding: int = 0
    foreign: int = 0
    last_used_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a plan may look at. `failures` are loads that failed: when a retry is allowed;
    `footprints` are what workers measured; `unix_s` is the time of day that uses are told in.
    `calls` are by worker and version; `departed` are arrivals of versions where they are held no
    more (monotonic); `unloaded` are versions that someone wanted nowhere; `releasing` are those
    whose wants wait until a release is done.
    """

    desired: Desired
    workers: Mapping[str, WorkerInfo]
    failures: Mapping[ReplicaKey, "LoadFailure"] = field(default_factory=dict)
    footprints: Mapping[FootprintKey, Footprint] = field(default_factory=dict)
    unix_s: float = 0.0
    calls: Mapping[ReplicaKey, OutstandingCalls] = field(default_factory=dict)
    departed: Mapping[VersionKey, Arrivals] = field(default_factory=dict)
    unloaded: Collection[VersionKey] = ()
    # Since when (Unix seconds) a version has waited for room, however young its want is.
    waiting: Mapping[VersionKey, float] = field(default_factory=dict)
    releasing: Collection[VersionKey] = ()


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A load that failed on a worker: not tried again there before `retry_at_s` (monotonic)."""

    reason: str
    message: str
    retry_at_s: float
