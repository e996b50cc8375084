"""The write verbs of `Registry` as methods, each one transaction: a store adds how it commits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from control_plane.store import alias_verbs, transactions
from control_plane.store.transaction import Transaction
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.desired import NO_CHANGES, Want, WantChanges
from control_plane.types.lease import FencingToken
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

Answer = TypeVar("Answer")


class WriteVerbs(ABC):
    """What each verb promises, `DesiredState` and `ImportQueue` say."""

    @abstractmethod
    async def write(
        self, verb: Callable[[Transaction], Answer], token: FencingToken | None = None
    ) -> Answer:
        """Runs the verb on the store at one revision and commits its writes, all or none, if the
        revision still stands; else again. With a token the commit (or the answer, where nothing is
        written) holds only while the token is the lease's.

        Raises StoreEmptied, StoreDamaged, StaleToken, RegistryUnavailable and what the verb raises.
        """

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
    ) -> ModelVersion:
        return await self.write(
            lambda tx: transactions.register(
                tx, name, artifact, settings, source_name, request_id, now, given, imported, above
            )
        )

    async def add_build(self, build: ModelVersion) -> ModelVersion | None:
        return await self.write(lambda tx: transactions.add_build(tx, build))

    async def set_served(
        self,
        key: VersionKey,
        device_kind: str,
        served: ServedBuild | None,
        drift: Drift | None = None,
    ) -> ModelVersion | None:
        return await self.write(
            lambda tx: transactions.set_served(tx, key, device_kind, served, drift)
        )

    async def delete(self, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
        return await self.write(lambda tx: transactions.delete(tx, keys))

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion | None:
        return await self._set_given(key, lambda given: replace(given, residency=residency))

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion | None:
        return await self._set_given(key, lambda given: replace(given, placement=placement))

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion | None:
        return await self._set_given(key, lambda given: given.batched(device_kind, batching))

    async def _set_given(
        self, key: VersionKey, change: Callable[[ServingSpec], ServingSpec]
    ) -> ModelVersion | None:
        return await self.write(lambda tx: transactions.set_given(tx, key, change))

    async def cordon(self, worker_id: str, incarnation: str) -> None:
        await self.write(lambda tx: transactions.cordon(tx, worker_id, incarnation))

    # --- wants ----------------------------------------------------------------------------

    async def want(self, want: Want, token: FencingToken | None = None) -> Want | None:
        return await self.write(lambda tx: transactions.want(tx, want), token)

    async def renew(self, key: VersionKey, since_unix_s: float) -> Want | None:
        return await self.write(lambda tx: transactions.renew(tx, key, since_unix_s))

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        return await self.write(lambda tx: transactions.forget(tx, key, token, left), token)

    async def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> tuple[Want, ...]:
        return await self.write(lambda tx: transactions.change_wants(tx, put, drop, end_standby))

    # --- keys -----------------------------------------------------------------------------

    async def put_api_key(self, key: ApiKey) -> ApiKey:
        return await self.write(lambda tx: transactions.put_api_key(tx, key))

    async def change_api_key(self, id_: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey | None:
        return await self.write(lambda tx: transactions.change_api_key(tx, id_, change))

    async def drop_api_key(self, id_: str) -> bool:
        return await self.write(lambda tx: transactions.drop_api_key(tx, id_))

    # --- tenants --------------------------------------------------------------------------

    async def put_tenant(self, tenant: Tenant) -> Tenant:
        return await self.write(lambda tx: transactions.put_tenant(tx, tenant))

    async def drop_tenant(self, name: str) -> bool:
        return await self.write(lambda tx: transactions.drop_tenant(tx, name))

    # --- aliases --------------------------------------------------------------------------

    async def put_alias(
        self,
        alias: Alias,
        expected_revision: int,
        wants: WantChanges = NO_CHANGES,
        token: FencingToken | None = None,
    ) -> Alias:
        return await self.write(
            lambda tx: alias_verbs.put_alias(tx, alias, expected_revision, wants), token
        )

    async def drop_alias(
        self, key: AliasKey, expected_revision: int, wants: WantChanges = NO_CHANGES
    ) -> None:
        await self.write(lambda tx: alias_verbs.drop_alias(tx, key, expected_revision, wants))

    # --- schedules ------------------------------------------------------------------------

    async def put_schedule(self, schedule: Schedule) -> Schedule:
        return await self.write(lambda tx: transactions.put_schedule(tx, schedule))

    async def delete_schedule(self, name: str) -> bool:
        return await self.write(lambda tx: transactions.delete_schedule(tx, name))

    async def note_schedule(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        return await self.write(lambda tx: transactions.note_schedule(tx, name, last_unix_s, error))

    # --- imports --------------------------------------------------------------------------

    async def claim_import(self, importer: str, lease_s: float, now: float) -> ModelVersion | None:
        return await self.write(lambda tx: transactions.claim_import(tx, importer, lease_s, now))

    async def report_progress(
        self, importer: str, key: VersionKey, fraction: float, step: str, lease_s: float, now: float
    ) -> None:
        await self.write(
            lambda tx: transactions.report_progress(tx, importer, key, fraction, step, lease_s, now)
        )

    async def finish_import(
        self, importer: str, key: VersionKey, pack: Pack, settings: VersionSettings
    ) -> ModelVersion:
        return await self.write(
            lambda tx: transactions.finish_import(tx, importer, key, pack, settings)
        )

    async def fail_import(
        self, importer: str, key: VersionKey, reason: str, message: str
    ) -> ModelVersion:
        return await self.write(
            lambda tx: transactions.fail_import(tx, importer, key, reason, message)
        )
