"""What metrics show of the fleet, as this control plane sees it at one moment. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from control_plane.types.command import Blocked
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, WorkerInfo, WorkerState

# Workers that have series of their own, the first by their ids.
MAX_WORKERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLook:
    """`now`: monotonic seconds. lease_left_s: of the leader's lease; 0: this control plane does not
    lead. `commands`: in flight to workers.
    """

    now: float
    workers: Mapping[str, WorkerInfo]
    loads: Mapping[str, LoadReport]
    versions: Collection[VersionKey]
    models: int
    held: Collection[VersionKey]
    waits: Mapping[VersionKey, Blocked]
    registry_available: bool
    leads: bool
    lease_left_s: float
    commands: int
    crash_looping: int

    @property
    def here(self) -> list[WorkerInfo]:
        """Workers that are not lost, by id."""
        found = (self.workers[id_] for id_ in sorted(self.workers))
        return [worker for worker in found if worker.state is not WorkerState.LOST]

    def load(self, worker: WorkerInfo) -> LoadReport:
        """The newest that it told."""
        return self.loads.get(worker.id, worker.load)

    def labelled(self) -> Iterator[WorkerInfo]:
        """The workers that have series of their own."""
        yield from self.here[:MAX_WORKERS]
