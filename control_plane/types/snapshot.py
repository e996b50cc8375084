"""What a plan is made from: desired and observed state at one moment. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from control_plane.types.desired import Desired
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.version import VersionKey
from control_plane.types.worker import ReplicaKey, WorkerInfo
from yolopool.server.arrival_rates import Arrivals

# Names in a repr.
MAX_LISTED = 3


@dataclass(slots=True)
class OutstandingCalls:
    """Calls of this control plane to one replica, ahead of what its worker reports.

    `foreign`: open requests of others, which is what the worker last reported beyond our own.
    """

    outstanding: int = 0
    foreign: int = 0
    last_used_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A load that failed on a worker: not retried there before `retry_at_s` (monotonic)."""

    reason: str
    message: str
    retry_at_s: float


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """All that a plan may look at.

    `failures`: failed loads, with the end of their back-off. `footprints`: as measured. `unix_s`:
    the clock of last uses. `calls`: our open calls. `departed`: arrivals of versions on workers
    that have them no more (monotonic). `unloaded`: versions that an operator unloaded everywhere.
    `releasing`: versions whose wants are ignored until their release is done.
    """

    desired: Desired
    workers: Mapping[str, WorkerInfo]
    failures: Mapping[ReplicaKey, LoadFailure] = field(default_factory=dict)
    footprints: Mapping[FootprintKey, Footprint] = field(default_factory=dict)
    unix_s: float = 0.0
    calls: Mapping[ReplicaKey, OutstandingCalls] = field(default_factory=dict)
    departed: Mapping[VersionKey, Arrivals] = field(default_factory=dict)
    unloaded: Collection[VersionKey] = ()
    # Since when (Unix seconds) a version has waited for memory, however young its want is.
    waiting: Mapping[VersionKey, float] = field(default_factory=dict)
    releasing: Collection[VersionKey] = ()

    def __repr__(self) -> str:
        """Such as `Snapshot(revision 7: 2 workers, 5 hot, 6 wants, 1 failed: a@3 on w1 REASON)`."""
        states = Counter(
            replica.state
            for worker in self.workers.values()
            for replica in worker.replicas.values()
        )
        counts = [
            f"{len(self.workers)} workers",
            *(f"{count} {state.lower()}" for state, count in sorted(states.items())),
            f"{len(self.desired.wants)} wants",
        ]
        if self.waiting:
            counts.append(f"{len(self.waiting)} waiting: {_listed(map(str, self.waiting))}")
        if self.failures:
            failures = (
                f"{key} on {worker} {failure.reason}"
                for (worker, key), failure in self.failures.items()
            )
            counts.append(f"{len(self.failures)} failed: {_listed(failures)}")
        return f"Snapshot(revision {self.desired.revision}: {', '.join(counts)})"


def _listed(names: Iterable[str]) -> str:
    """The first few, in order."""
    found = sorted(names)
    more = f" and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    return "; ".join(found[:MAX_LISTED]) + more
