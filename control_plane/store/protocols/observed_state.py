"""What a registry keeps beside desired state and makes no revision of."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from control_plane.types.event import Event
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.worker import WorkerInfo


class ObservedState(Protocol):
    """What was observed of the fleet: read by a control plane that starts, and by people. It makes
    no revision.
    """

    async def record_workers(self, workers: Sequence[WorkerInfo], keep_s: float) -> None:
        """Records workers with ledgers and replicas. A record expires after keep_s."""
        ...

    async def drop_worker(self, worker_id: str, incarnation: str) -> None:
        """Removes the record of a worker if it is of this incarnation."""
        ...

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """The recorded workers, by id; their lease_until_s is 0."""
        ...

    async def record_footprint(self, key: FootprintKey, footprint: Footprint) -> None:
        """Keeps, without expiry, what a pack was measured to take on a kind of device."""
        ...

    async def footprints(self) -> Mapping[FootprintKey, Footprint]:
        """All recorded footprints."""
        ...


class EventLog(Protocol):
    """The events of the fleet. They make no revision."""

    async def append_event(self, event: Event) -> str:
        """Appends an event and returns its id. About EVENTS_KEPT are kept. Repeating the call
        appends it twice.
        """
        ...

    async def events(self, after: str = "", last: int = 0) -> tuple[Event, ...]:
        """Events after an id (empty: all), oldest first. With `last` only so many of the newest."""
        ...

    async def next_events(self, after: str, wait_s: float) -> tuple[Event, ...]:
        """As `events`, but waits up to wait_s for the first one; then empty."""
        ...
