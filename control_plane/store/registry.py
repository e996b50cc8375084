"""The registry: the only state store, as six protocols and their sum.

`MemoryRegistry` is its executable specification, `RedisRegistry` the real one; one contract suite
runs on both. Every write is atomic. A method raises RegistryUnavailable when the store does not
answer in time; repeating the call is then safe.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol

from control_plane.store.accounts import Accounts
from control_plane.store.alerts.alert_records import AlertRecords
from control_plane.store.protocols.observed_state import EventLog, ObservedState
from control_plane.store.rollouts.evidence_texts import EvidenceTexts
from control_plane.store.rules.rule_state import RuleState
from control_plane.store.transaction import Writer
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import NO_CHANGES, Desired, DesiredDelta, Want, WantChanges
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.policy import BatchingConfig, Placement, Residency
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.version import (
    Drift,
    Imported,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
)
from yolopool.errors import RegistryUnavailable

REQUEST_ID_KEPT_S = 86_400.0  # how long `register` recognises a repeated request id
LOG_KEPT = 4096  # how many writes back `desired_since` can answer


class StoreEmptied(RegistryUnavailable):
    """The store answers but is empty: it must be restored or created before anyone writes.

    Callers treat it as a registry that does not answer.
    """

    def __init__(self) -> None:
        super().__init__(
            "the store is empty: a control plane restores it from its backup or creates it anew; "
            "try again",
            retry_after_s=1.0,
        )


class StoreDamaged(RegistryUnavailable):
    """The store answers and has lost a part: it must be restored before anyone writes.

    `lost` names the parts. Callers treat it as a registry that does not answer.
    """

    def __init__(self, lost: Sequence[str]) -> None:
        super().__init__(
            f"the store has lost {', '.join(lost)}: a control plane with a copy restores it; "
            "start one if none runs, and check that the server evicts no keys",
            retry_after_s=1.0,
        )
        self.lost = tuple(lost)


class DesiredState(Protocol):
    """Versions, wants, cordons, schedules, keys, tenants. Each write that changes one makes a
    revision.

    Reads and writes raise StoreEmptied when the store has no cluster id, and StoreDamaged when it
    does not hold all that its revision says.
    """

    async def open(self) -> str:
        """Connects and returns the cluster id, which was drawn when the store was created. An
        empty id: the store is new or was emptied.
        """

    async def create(self) -> str:
        """Draws a cluster id if there is none. Returns the cluster id. Raises StoreDamaged if the
        id is lost and models are not.
        """

    async def restore(
        self, copy: Desired | None, above: FencingToken | None, wait_s: float = 1.0
    ) -> str:
        """Fills what is lost of a store from a copy (`salvage`): all of one that is empty, or that
        nobody wrote to yet. The cluster id stays; the revision grows. With the id lost the epoch
        grows above that of `above`. Unfinished imports whose queue is lost begin again.

        If several control planes ask within `wait_s`, the one with the highest revision restores.
        Returns what the caller restored, for people; empty: nothing. Raises StoreDamaged if the
        copy is not of this store, or there is none.
        """
        ...

    async def eviction_policy(self) -> str:
        """How a server whose memory is full chooses keys to drop, or noeviction; empty: unsaid."""
        ...

    async def desired(self) -> Desired:
        """All desired state at one revision."""
        ...

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        """What was written since `known` was read, all at one revision. It names what changed and
        nothing else. None: `known` is too old, or is of another store or history; read `desired`.
        """
        ...

    def changes(self) -> AsyncIterator[int]:
        """The present revision, then a newer one after each change by anyone. It may skip some.

        While the store does not answer, the iterator waits. Raises StoreEmptied.
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
        imported: Imported | None = None,
        above: int = 0,
        number: int = 0,
    ) -> ModelVersion:
        """Adds an UPLOADED version, or with `imported` a READY one. Its number is one above the
        highest that the name ever had, and above `above`, the highest that the caller knows of; or
        it is `number`. Raises InvalidOption if that is not above them. A repeat of a non-empty
        request_id within a day returns the version that it made.
        """
        ...

    async def add_build(self, build: ModelVersion) -> ModelVersion | None:
        """Adds or replaces the row of a build, and queues it for an importer if it is UPLOADED. A
        row that did not fail and is calibrated with the same images stays as it is. Returns the
        row that holds now; None if the version that it is a build of does not exist.
        """
        ...

    async def set_served(
        self,
        key: VersionKey,
        device_kind: str,
        served: ServedBuild | None,
        drift: Drift | None = None,
    ) -> ModelVersion | None:
        """Sets the build that serves a version on a kind of device (None: what its workers make).
        `drift`, a comparison, joins those on record of this build and its pack; the build's own
        row keeps them too. Returns the version; None if there is none.
        """
        ...

    async def delete(self, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
        """Removes versions with their builds and wants; returns their keys. Their numbers are not
        given again. Raises ModelReferenced for one that an alias needs.
        """
        ...

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion | None:
        """Sets how a version is kept. Returns the version; None if there is none."""
        ...

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion | None:
        """Sets where a version may run. Returns the version; None if there is none."""
        ...

    async def set_labels(
        self, key: VersionKey, put: Mapping[str, str], drop: Collection[str]
    ) -> ModelVersion | None:
        """Sets labels of a version and takes others away. Raises InvalidOption for too many."""
        ...

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion | None:
        """Sets how it is batched on a kind of device; None: as its workers were started."""
        ...

    async def cordon(self, worker_id: str, incarnation: str) -> None:
        """Tells a worker process to drain. The next process of that worker is not cordoned."""
        ...

    # --- wants ----------------------------------------------------------------------------

    async def want(self, want: Want, token: FencingToken | None = None) -> Want | None:
        """Sets the want of a version, merged with an earlier one as `Want.following` says. Returns
        the want that holds now; None if there is no such version. Idempotent. With a token (a
        plan's prefetch) it raises StaleToken if the token is not the lease's.
        """
        ...

    async def renew(self, key: VersionKey, since_unix_s: float) -> Want | None:
        """Sets since when a version is wanted. Returns the want; None if there is none."""
        ...

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        """Removes a want, or lowers it to `left` replicas. Returns whether there was one. With a
        token (a plan's release) it leaves a pinned want as it is, and raises StaleToken if the
        token is not the lease's.
        """
        ...

    async def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> tuple[Want, ...]:
        """In one write: sets the wants in `put` as given, removes those of `drop`, and makes the
        hot standbys in `end_standby` normal. Ignores versions that do not exist. Idempotent.
        Returns the wants that the versions in `put` and `drop` had before.
        """
        ...

    # --- keys -----------------------------------------------------------------------------

    async def put_api_key(self, key: ApiKey) -> ApiKey:
        """Adds or replaces the key of this id."""
        ...

    async def change_api_key(self, id_: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        """Replaces a key by what a pure function makes of it. Returns the key that holds now;
        None: there is no such key.
        """
        ...

    async def drop_api_key(self, id_: str) -> bool:
        """Removes a key. Returns whether there was one."""
        ...

    # --- tenants --------------------------------------------------------------------------

    async def put_tenant(self, tenant: Tenant) -> Tenant:
        """Adds or replaces the tenant of this name."""
        ...

    async def drop_tenant(self, name: str) -> bool:
        """Removes a tenant. Returns whether there was one."""
        ...

    # --- aliases --------------------------------------------------------------------------

    async def put_alias(
        self,
        alias: Alias,
        expected_revision: int,
        wants: WantChanges = NO_CHANGES,
        token: FencingToken | None = None,
    ) -> Alias:
        """Adds or replaces an alias if its revision is still the expected one (0: there is none),
        and changes wants in the same write. Returns it with its new revision.

        Raises AliasChanged, VersionNotFound for a version that it newly names and that is not
        there, StaleToken with a token that is not the lease's.
        """
        ...

    async def drop_alias(
        self, key: AliasKey, expected_revision: int, wants: WantChanges = NO_CHANGES
    ) -> None:
        """Removes an alias as `put_alias` puts it; AliasChanged also if there is none."""
        ...

    # --- schedules ------------------------------------------------------------------------

    async def put_schedule(self, schedule: Schedule) -> Schedule:
        """Adds or replaces the schedule of this name. One that asks for the same stays, with the
        outcome of its last moment. Returns the schedule that holds now.
        """
        ...

    async def delete_schedule(self, name: str) -> bool:
        """Removes a schedule. Returns whether there was one."""
        ...

    async def note_schedule(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        """Records the outcome of one moment (`Schedule.noted`). None: there is no such schedule."""
        ...


class ImportQueue(Protocol):
    """Versions that wait for an importer, and the importer that holds each. `by`: whose certificate
    or key it has; who reports has the same.
    """

    async def claim_import(
        self, importer: str, lease_s: float, now: float, by: str = ""
    ) -> ModelVersion | None:
        """Gives the caller the oldest version that is UPLOADED, or IMPORTING under a lease that
        expired. It is IMPORTING then, for lease_s. None: there is nothing to import.
        """
        ...

    async def report_progress(
        self,
        importer: str,
        key: VersionKey,
        fraction: float,
        step: str,
        lease_s: float,
        now: float,
        by: str = "",
    ) -> None:
        """Renews the lease and records the progress. Raises ImportNotYours."""
        ...

    async def finish_import(
        self,
        importer: str,
        key: VersionKey,
        pack: Pack,
        settings: VersionSettings,
        by: str = "",
    ) -> ModelVersion:
        """IMPORTING -> READY. Repeating it with the same pack changes nothing. Raises
        ImportNotYours.
        """
        ...

    async def fail_import(
        self, importer: str, key: VersionKey, reason: str, message: str, by: str = ""
    ) -> ModelVersion:
        """IMPORTING -> FAILED. Repeating it changes nothing. Raises ImportNotYours."""
        ...


class LeaseStore(Protocol):
    """The lease of the leader, who alone may change the fleet, under a fencing token."""

    async def take_lease(
        self, leader: str, lease_s: float, above: FencingToken | None, address: str = ""
    ) -> FencingToken | None:
        """Takes the lease if it is free. The token is higher than every earlier one and than
        `above`, the highest that the caller knows. None: another holds the lease. `address`:
        host:port where this control plane answers the others.
        """
        ...

    async def keep_lease(self, token: FencingToken, lease_s: float) -> bool:
        """Renews the lease. False: it is lost, and the caller must stop writing."""
        ...

    async def drop_lease(self, token: FencingToken) -> None:
        """Gives the lease up if this token still holds it."""
        ...

    async def leader(self) -> Leader | None:
        """The holder of the lease; None: nobody."""
        ...


class Registry(
    DesiredState, RuleState, ImportQueue, LeaseStore, ObservedState, EventLog, Writer, Protocol
):
    """The whole store. Times are Unix seconds and arguments; leases are durations."""

    @property
    def accounts(self) -> Accounts:
        """Parts of quotas, and usage."""

    @property
    def evidence(self) -> EvidenceTexts:
        """What control planes gathered about rollouts."""

    @property
    def alert_records(self) -> AlertRecords:
        """Alerts, and what control planes tell each other for them."""

    async def close(self) -> None: ...
