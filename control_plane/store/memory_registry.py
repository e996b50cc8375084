"""`Registry` in plain dictionaries: the executable specification, and the store for fast tests.

No method awaits between its read and its write, so each is atomic on one event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar
from uuid import uuid4

from control_plane.store.accounts import MemoryAccounts
from control_plane.store.alerts.alert_records import MemoryAlertRecords
from control_plane.store.memory.memory_events import MemoryEvents
from control_plane.store.registry import LOG_KEPT, StoreDamaged, StoreEmptied
from control_plane.store.rollouts.evidence_texts import MemoryEvidence
from control_plane.store.salvage import MAPS, PARTS, Remains, salvaged
from control_plane.store.transaction import ImportJob, Transaction, Writes
from control_plane.store.write_verbs import WriteVerbs
from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.desired import Desired, DesiredDelta, Want
from control_plane.types.event import Event
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.policy import ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import WorkerInfo
from yolopool.errors import StaleToken

Answer = TypeVar("Answer")
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(slots=True)
class _Held:
    """What the store holds, map by map as `Writes` changes it."""

    versions: dict[VersionKey, ModelVersion] = field(default_factory=dict)
    wants: dict[VersionKey, Want] = field(default_factory=dict)
    cordons: dict[str, str] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    api_keys: dict[str, ApiKey] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    aliases: dict[AliasKey, Alias] = field(default_factory=dict)
    rules: dict[str, ModelRule] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)
    alerts: dict[str, AlertSetting] = field(default_factory=dict)
    jobs: dict[VersionKey, ImportJob] = field(default_factory=dict)
    requests: dict[str, VersionKey] = field(default_factory=dict)

    def apply(self, writes: Writes) -> None:
        for map_ in fields(writes):
            held: dict[Any, Any] = getattr(self, map_.name)
            for key, value in getattr(writes, map_.name).items():
                if value is None:
                    held.pop(key, None)
                else:
                    held[key] = value


@dataclass(frozen=True, slots=True)
class _Revision:
    """One entry of the log: a revision, and the writes that made it."""

    number: int
    mark: str
    writes: Writes


@dataclass(frozen=True, slots=True)
class _LeaderLease:
    leader: Leader
    until_s: float  # on the registry's monotonic clock


class _MemoryTransaction(Transaction):
    def __init__(self, held: _Held, revision: int) -> None:
        super().__init__()
        self._held = held
        self._revision = revision

    @property
    def revision(self) -> int:
        return self._revision

    def expect(
        self,
        versions: object = (),
        wants: object = (),
        jobs: object = (),
        numbers: object = (),
        request_id: object = "",
        aliases: object = False,
    ) -> None:
        """Everything is in memory."""

    def version(self, key: VersionKey) -> ModelVersion | None:
        return self._held.versions.get(key)

    def want(self, key: VersionKey) -> Want | None:
        return self._held.wants.get(key)

    def cordon(self, worker_id: str) -> str | None:
        return self._held.cordons.get(worker_id)

    def schedule(self, name: str) -> Schedule | None:
        return self._held.schedules.get(name)

    def api_key(self, id_: str) -> ApiKey | None:
        return self._held.api_keys.get(id_)

    def tenant(self, name: str) -> Tenant | None:
        return self._held.tenants.get(name)

    def alias(self, key: AliasKey) -> Alias | None:
        return self._held.aliases.get(key)

    def aliases(self) -> Mapping[AliasKey, Alias]:
        return self._held.aliases

    def rule(self, pattern: str) -> ModelRule | None:
        return self._held.rules.get(pattern)

    def watch(self, name: str) -> Watch | None:
        return self._held.watches.get(name)

    def alert_setting(self, key: str) -> AlertSetting | None:
        return self._held.alerts.get(key)

    def number(self, name: str) -> int:
        return self._held.numbers.get(name, 0)

    def job(self, key: VersionKey) -> ImportJob | None:
        return self._held.jobs.get(key)

    def jobs(self) -> Mapping[VersionKey, ImportJob]:
        return self._held.jobs

    def request(self, request_id: str) -> VersionKey | None:
        return self._held.requests.get(request_id)


class MemoryRegistry(WriteVerbs):
    """`wall_clock` gives Unix seconds: for epochs and ids of events. `clock` is monotonic, for
    leases.
    """

    def __init__(
        self,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall_clock = wall_clock
        self._clock = clock
        self._changed = asyncio.Event()
        self.empty()
        self._found(uuid4().hex, 0, 0)

    def empty(self) -> None:
        """Forgets everything, as FLUSHALL does."""
        self._cluster = ""
        self._epoch = 0
        self._counter = 0
        self._held = _Held()
        self._log: deque[_Revision] = deque(maxlen=LOG_KEPT)
        self._lease: _LeaderLease | None = None
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}
        self._footprints: dict[FootprintKey, Footprint] = {}
        self.accounts, self.evidence = MemoryAccounts(self._clock), MemoryEvidence(self._clock)
        self.alert_records = MemoryAlertRecords(self._holds)
        self._events = MemoryEvents(self._wall_clock)
        self._notify()

    async def open(self) -> str:
        return self._cluster

    async def create(self) -> str:
        if not self._cluster:
            self._found(uuid4().hex, 0, 0)
        return self._cluster

    async def restore(
        self, copy: Desired | None, above: FencingToken | None, wait_s: float = 1.0
    ) -> str:
        if self._cluster and self._revision:
            return ""
        salvage = salvaged(Remains(), copy)
        if salvage is None:
            raise StoreDamaged(PARTS)
        self.empty()
        kept = salvage.desired
        self._found(kept.cluster, kept.revision, above.epoch + 1 if above is not None else 0)
        maps: dict[str, Any] = {name: dict(getattr(kept, name)) for name in MAPS}
        self._held = _Held(**maps, jobs=dict(salvage.jobs))
        self._notify()
        return f"the store was emptied: restored with {len(kept.versions)} versions"

    async def eviction_policy(self) -> str:
        return "noeviction"

    def _found(self, cluster: str, revision: int, min_epoch: int) -> None:
        self._cluster = cluster
        self._epoch = max(int(self._wall_clock() * 1000), min_epoch)
        self._append(revision, Writes())

    async def close(self) -> None:
        """Nothing is held open."""

    async def desired(self) -> Desired:
        self._stands()
        maps: dict[str, Any] = {name: dict(getattr(self._held, name)) for name in MAPS}
        return Desired(self._revision, self._cluster, **maps, mark=self._log[-1].mark)

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        self._stands()
        at = known.revision - self._log[0].number
        if known.cluster != self._cluster or not 0 <= at < len(self._log):
            return None
        if self._log[at].mark != known.mark:
            return None
        since = [entry.writes for entry in list(self._log)[at + 1 :]]
        maps: dict[str, Any] = {
            name: _written(getattr(self._held, name), (getattr(one, name) for one in since))
            for name in MAPS
        }
        return DesiredDelta(self._revision, self._log[-1].mark, **maps)

    async def changes(self) -> AsyncIterator[int]:
        seen = None
        while True:
            changed = self._changed  # taken before the read, so that no change is missed
            self._stands()
            if seen == (self._cluster, self._revision):
                await changed.wait()
            else:
                seen = (self._cluster, self._revision)
                yield self._revision

    async def write(
        self, verb: Callable[[Transaction], Answer], token: FencingToken | None = None
    ) -> Answer:
        self._stands()
        if token is not None and not self._holds(token):
            raise StaleToken(f"token {token} is not the lease's: take the lease and plan again")
        transaction = _MemoryTransaction(self._held, self._revision)
        answer = verb(transaction)
        if transaction.writes:
            self._held.apply(transaction.writes)
            self._append(self._revision + 1, transaction.writes)
            self._notify()
        return answer

    # --- the leader's lease -----------------------------------------------------------------

    async def take_lease(
        self, leader: str, lease_s: float, above: FencingToken | None, address: str = ""
    ) -> FencingToken | None:
        self._stands()
        held = await self.leader()
        if held is not None and held.name != leader:
            return None
        above = above or FencingToken(0, 0)
        if above.epoch > self._epoch:  # this store is older than, or other than, the workers'
            self._epoch = max(int(self._wall_clock() * 1000), above.epoch + 1)
        self._counter = max(self._counter, above.counter) + 1
        token = FencingToken(self._epoch, self._counter)
        self._lease = _LeaderLease(Leader(leader, token, address), self._clock() + lease_s)
        return token

    async def keep_lease(self, token: FencingToken, lease_s: float) -> bool:
        if self._lease is None or not self._holds(token):
            return False
        self._lease = replace(self._lease, until_s=self._clock() + lease_s)
        return True

    async def drop_lease(self, token: FencingToken) -> None:
        if self._holds(token):
            self._lease = None

    async def leader(self) -> Leader | None:
        lease = self._lease
        return lease.leader if lease is not None and self._clock() < lease.until_s else None

    # --- observed state ---------------------------------------------------------------------

    async def record_workers(self, workers: Sequence[WorkerInfo], keep_s: float) -> None:
        until = self._clock() + keep_s
        for worker in workers:
            self._workers[worker.id] = (replace(worker, lease_until_s=0.0), until)

    async def drop_worker(self, worker_id: str, incarnation: str) -> None:
        worker, _ = self._workers.get(worker_id, (None, 0.0))
        if worker is not None and worker.incarnation == incarnation:
            del self._workers[worker_id]

    async def workers(self) -> tuple[WorkerInfo, ...]:
        now = self._clock()
        self._workers = {id_: kept for id_, kept in self._workers.items() if now < kept[1]}
        return tuple(self._workers[id_][0] for id_ in sorted(self._workers))

    async def record_footprint(self, key: FootprintKey, footprint: Footprint) -> None:
        self._footprints[key] = footprint

    async def footprints(self) -> Mapping[FootprintKey, Footprint]:
        return dict(self._footprints)

    # --- events -------------------------------------------------------------------------------

    async def append_event(self, event: Event) -> str:
        return self._events.append(event)

    async def events(self, after: str = "", last: int = 0) -> tuple[Event, ...]:
        return self._events.read(after, last)

    async def next_events(self, after: str, wait_s: float) -> tuple[Event, ...]:
        return await self._events.wait(after, wait_s)

    # --- what the methods share ---------------------------------------------------------------

    @property
    def _revision(self) -> int:
        return self._log[-1].number if self._log else 0

    def _holds(self, token: FencingToken) -> bool:
        lease = self._lease
        return lease is not None and lease.leader.token == token and self._clock() < lease.until_s

    def _stands(self) -> None:
        if not self._cluster:
            raise StoreEmptied

    def _append(self, revision: int, writes: Writes) -> None:
        # The epoch makes the marks of two stores differ that count the same revisions.
        self._log.append(_Revision(revision, f"{self._epoch}.{revision}", writes))

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _written(
    held: Mapping[Key, Value], writes: Iterable[Mapping[Key, object]]
) -> dict[Key, Value | None]:
    """What the written keys hold now; None: gone."""
    return {key: held.get(key) for written in writes for key in written}
