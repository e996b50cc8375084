"""The registry: desired state, the import queue, the reconciler's lease, and what was observed.

`Registry` is the door to the only state store; `MemoryRegistry` (memory_registry) is its
executable specification, `RedisRegistry` (redis_registry) the real one, and one contract suite
runs on both. Every write is atomic. Methods raise RegistryUnavailable when the store does not
answer within the setting's time, and change nothing then that a repeat would not change too.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from control_plane.types.desired import Desired, DesiredDelta, Want
from control_plane.types.event import Event
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.policy import BatchingConfig, Placement, Residency
from control_plane.types.schedule import Schedule
from control_plane.types.version import (
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
)
from control_plane.types.worker import WorkerInfo
from yolopool.errors import RegistryUnavailable

REQUEST_ID_KEPT_S = 86_400.0  # how long a repeated `register` is known as a repeat
LOG_KEPT = 4096  # writes that `desired_since` can tell of


class StoreEmptied(RegistryUnavailable):
    """The store answers and holds nothing: to be restored or created, else nothing can be written.

    To callers it is a registry that is away.
    """

    def __init__(self) -> None:
        super().__init__(
            "the store holds nothing: it is restored from a control plane's copy, or created "
            "anew; try again",
            retry_after_s=1.0,
        )


class DesiredState(Protocol):
    """Versions, wants, cordons and schedules, all at one revision.

    Reads and writes raise StoreEmptied where there is no cluster.
    """

    async def open(self) -> str:
        """Connects and returns the cluster id, drawn when the store was created; empty: the store
        is new or was emptied.
        """
        ...

    async def create(self) -> str:
        """Draws a cluster id if there is none, and returns the one there is."""
        ...

    async def restore(self, copy: Desired, above: FencingToken | None, wait_s: float = 1.0) -> bool:
        """Fills a store that is empty (or new: nothing was ever written) from a copy: its cluster
        id stays, its revision and epoch (above that of `above`) grow. Imports begin again.

        Of several control planes that ask within `wait_s` the one with the highest revision does
        it; answers whether the caller did.
        """
        ...

    async def desired(self) -> Desired:
        """All desired state at one revision."""
        ...

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        """What was written since `known` was read, all at one revision; None: too long ago, or of
        another store or history: read all.
        """
        ...

    def changes(self) -> AsyncIterator[int]:
        """The present revision, then another one after each change by anyone; may skip some.

        While the store is away it waits and goes on when it is back; raises StoreEmptied.
        """
        ...

    # --- models ---------------------------------------------------------------------------

    async def register(
        self,
        name: str,
        artifact: str,
        settings: VersionSettings,
        source_name: str,
        request_id: str,
        now: float,
        given: ServingSpec = ServingSpec(),  # noqa: B008 - frozen
    ) -> ModelVersion:
        """A new version, numbered one above the highest the name ever had, UPLOADED.

        The same non-empty request_id within a day answers the version it made.
        """
        ...

    async def add_build(self, build: ModelVersion) -> ModelVersion | None:
        """Keeps the row of a build, and queues it for an importer where it is UPLOADED. One that is
        there, did not fail and is calibrated by the same images stays as it is. Answers what holds
        now; None if the version that it is of does not exist.
        """
        ...

    async def set_served(
        self, key: VersionKey, device_kind: str, served: ServedBuild | None
    ) -> ModelVersion | None:
        """By which build a version is served on a kind of device from now on (None: as its workers
        make it); None if there is no such version.
        """
        ...

    async def adopt_pack(
        self, key: VersionKey, pack: Pack, settings: VersionSettings
    ) -> ModelVersion | None:
        """UPLOADED -> READY with a pack made earlier of the same artifact and settings; None if
        the version is not UPLOADED any more.
        """
        ...

    async def delete(self, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
        """Removes versions with their builds and wants; answers those that were there. Numbers stay
        used.
        """
        ...

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion | None:
        """How a version is kept from now on; None if there is no such version."""
        ...

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion | None:
        """Where a version may run from now on; None if there is no such version."""
        ...

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion | None:
        """How a version is batched on a kind of device from now on (None: as its workers were
        started); None if there is no such version.
        """
        ...

    async def cordon(self, worker_id: str, incarnation: str) -> None:
        """Notes that a worker process is to drain; forgotten with the process's id's next one."""
        ...

    # --- wants ----------------------------------------------------------------------------

    async def want(self, want: Want, token: FencingToken | None = None) -> Want | None:
        """Sets what is wanted of a version; answers what holds now, None if there is no version.
        With a token (a plan's prefetch) StaleToken is raised if it is not current.

        Idempotent; what becomes of one that was there, `Want.following` says.
        """
        ...

    async def renew(self, key: VersionKey, since_unix_s: float) -> Want | None:
        """As if what is wanted of a version were wanted since then; answers what holds now."""
        ...

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        """Removes a want, or lowers it to the replicas that are `left`; answers whether there was
        one. With a token (a plan's release) only a want that is not pinned is removed, and
        StaleToken is raised if the token is not current.
        """
        ...

    async def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> tuple[Want, ...]:
        """Sets these wants as they are given, ends those of `drop`, and keeps `end_standby` as
        normal from now on if they were hot standbys: all at once. What is of a version that does
        not exist is left out. Idempotent.

        Answers the wants there were of the versions in `put` and `drop`.
        """
        ...

    # --- schedules ------------------------------------------------------------------------

    async def put_schedule(self, schedule: Schedule) -> Schedule:
        """Makes or replaces the schedule of this name; answers what holds now. One that says as
        much already stays as it is, with what is noted of it.
        """
        ...

    async def delete_schedule(self, name: str) -> bool:
        """Removes a schedule; answers whether there was one."""
        ...

    async def note_schedule(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        """Notes what became of a moment of a schedule (`Schedule.noted`); None: there is none."""
        ...


class ImportQueue(Protocol):
    """Versions that wait for an importer, and who holds which."""

    async def claim_import(self, importer: str, lease_s: float, now: float) -> ModelVersion | None:
        """The oldest version that is UPLOADED, or IMPORTING with a lease that ran out; now the
        caller's, IMPORTING, for lease_s. None: nothing to do.
        """
        ...

    async def report_progress(
        self, importer: str, key: VersionKey, fraction: float, step: str, lease_s: float, now: float
    ) -> None:
        """Keeps the lease and notes the progress. Raises ImportNotYours."""
        ...

    async def finish_import(
        self, importer: str, key: VersionKey, pack: Pack, settings: VersionSettings, now: float
    ) -> ModelVersion:
        """IMPORTING -> READY. Raises ImportNotYours. A repeat of the same pack answers the same."""
        ...

    async def fail_import(
        self, importer: str, key: VersionKey, reason: str, message: str, now: float
    ) -> ModelVersion:
        """IMPORTING -> FAILED. Raises ImportNotYours."""
        ...


class LeaseStore(Protocol):
    """The lease of the leader: who alone may change the fleet, and under which fencing token."""

    async def take_lease(
        self, leader: str, lease_s: float, above: FencingToken | None, address: str = ""
    ) -> FencingToken | None:
        """The lease of the one writer if it is free: a token higher than every one given out and
        than `above` (the highest that is known). None: another holds it. `address`: host:port
        where the holder answers other control planes.
        """
        ...

    async def keep_lease(self, token: FencingToken, lease_s: float) -> bool:
        """Renews; False: lost, stop writing."""
        ...

    async def drop_lease(self, token: FencingToken) -> None:
        """Gives the lease up if it is still held under this token."""
        ...

    async def leader(self) -> Leader | None:
        """Who holds the lease now; None: nobody."""
        ...


class ObservedState(Protocol):
    """What was observed: read when a control plane starts, and by people. Makes no revision."""

    async def record_workers(self, workers: Sequence[WorkerInfo], keep_s: float) -> None:
        """Notes workers with ledgers and replicas; gone after keep_s unless recorded again."""
        ...

    async def drop_worker(self, worker_id: str, incarnation: str) -> None:
        """Removes a worker's record if it is of this incarnation."""
        ...

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """The workers on record, by id; lease_until_s is 0."""
        ...

    async def record_footprint(self, key: FootprintKey, footprint: Footprint) -> None:
        """Keeps what was measured of a pack on a kind of device, for good."""
        ...

    async def footprints(self) -> Mapping[FootprintKey, Footprint]:
        """All that was measured."""
        ...


class EventLog(Protocol):
    """The events of the fleet. Makes no revision."""

    async def append_event(self, event: Event) -> str:
        """Keeps an event as the newest and answers its id; about EVENTS_KEPT are kept. A repeat
        is another event.
        """
        ...

    async def events(self, after: str = "", last: int = 0) -> tuple[Event, ...]:
        """Those after an id (empty: all that are kept), oldest first; with `last` only the newest
        so many of them.
        """
        ...

    async def next_events(self, after: str, wait_s: float) -> tuple[Event, ...]:
        """As `events`, and where there are none it waits for one, at most wait_s; then empty."""
        ...


class Registry(DesiredState, ImportQueue, LeaseStore, ObservedState, EventLog, Protocol):
    """The whole store. All times are Unix seconds and arguments; leases are durations."""

    async def close(self) -> None: ...
