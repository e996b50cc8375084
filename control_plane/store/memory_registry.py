"""`Registry` in plain dictionaries: the executable specification, and the store of fast tests.

Nothing here awaits between a look and a write, so every method is atomic on one event loop.
Revisions count desired state only: leases and worker records come and go without one.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from control_plane.memory_events import MemoryEvents
from control_plane.store.registry import LOG_KEPT, REQUEST_ID_KEPT_S, StoreEmptied
from control_plane.types import lifecycle
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
    VersionState,
    builds_of,
)
from control_plane.types.worker import WorkerInfo
from yolopool.errors import ImportNotYours, StaleToken


@dataclass(frozen=True, slots=True)
class _ImportLease:
    importer: str
    until_unix_s: float


@dataclass(frozen=True, slots=True)
class _Written:
    """One write: the revision that it made, and what it is about."""

    revision: int
    versions: frozenset[VersionKey] = frozenset()
    wants: frozenset[VersionKey] = frozenset()
    workers: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _WriterLease:
    leader: Leader
    until_s: float  # on the registry's monotonic clock


class MemoryRegistry:
    """`wall_clock` gives Unix seconds and only draws epochs; `clock` is monotonic, for leases."""

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
        self._revision = 0
        self._log: deque[_Written] = deque(maxlen=LOG_KEPT)
        self._highest_number: dict[str, int] = {}
        self._versions: dict[VersionKey, ModelVersion] = {}  # in the order of registration
        self._import_leases: dict[VersionKey, _ImportLease] = {}
        self._requests: dict[str, tuple[VersionKey, float]] = {}
        self._wants: dict[VersionKey, Want] = {}
        self._cordons: dict[str, str] = {}
        self._schedules: dict[str, Schedule] = {}
        self._lease: _WriterLease | None = None
        self._workers: dict[str, tuple[WorkerInfo, float]] = {}
        self._footprints: dict[FootprintKey, Footprint] = {}
        self._events = MemoryEvents(self._wall_clock)
        self._notify()

    async def open(self) -> str:
        return self._cluster

    async def create(self) -> str:
        if not self._cluster:
            self._found(uuid4().hex, 0, 0)
        return self._cluster

    async def restore(self, copy: Desired, above: FencingToken | None, wait_s: float = 1.0) -> bool:
        if self._cluster and self._revision:
            return False
        self.empty()
        self._found(copy.cluster, copy.revision + 1, above.epoch + 1 if above is not None else 0)
        self._highest_number = dict(copy.numbers)
        self._versions = dict(copy.versions)
        self._wants, self._cordons = dict(copy.wants), dict(copy.cordons)
        self._schedules = dict(copy.schedules)
        for key, version in self._versions.items():
            if version.state is VersionState.IMPORTING:
                self._import_leases[key] = _ImportLease("", 0.0)
        self._notify()
        return True

    def _found(self, cluster: str, revision: int, least_epoch: int) -> None:
        self._cluster, self._revision = cluster, revision
        self._epoch = max(int(self._wall_clock() * 1000), least_epoch)

    async def close(self) -> None:
        """Nothing is held open."""

    async def desired(self) -> Desired:
        self._stands()
        return Desired(
            self._revision,
            self._cluster,
            dict(self._versions),
            dict(self._wants),
            dict(self._cordons),
            dict(self._schedules),
            dict(self._highest_number),
            mark=f"{self._epoch}.{self._revision}",
        )

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        self._stands()
        written = [one for one in self._log if one.revision > known.revision]
        if known.cluster != self._cluster or len(written) != self._revision - known.revision:
            return None
        versions = {key for one in written for key in one.versions}
        return DesiredDelta(
            self._revision,
            f"{self._epoch}.{self._revision}",
            {key: self._versions.get(key) for key in versions},
            {key: self._wants.get(key) for one in written for key in one.wants},
            {name: self._cordons.get(name) for one in written for name in one.workers},
            {name: self._schedules.get(name) for one in written for name in one.schedules},
            {key.model: self._highest_number.get(key.model) for key in versions},
        )

    async def changes(self) -> AsyncIterator[int]:
        seen = None
        while True:
            changed = self._changed  # taken before the look, so that no change slips between
            self._stands()
            if seen == (self._cluster, self._revision):
                await changed.wait()
            else:
                seen = (self._cluster, self._revision)
                yield self._revision

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
        self._stands()
        made, made_at = self._requests.get(request_id, (None, 0.0))
        if made in self._versions and now - made_at < REQUEST_ID_KEPT_S:
            return self._versions[made]
        number = self._highest_number.get(name, 0) + 1
        key = VersionKey(name, number)
        version = ModelVersion(
            key,
            VersionState.UPLOADED,
            artifact,
            settings,
            now,
            source_name,
            asked=settings,
            given=given,
        )
        self._highest_number[name] = number
        self._versions[key] = version
        if request_id:
            self._requests[request_id] = (key, now)
        self._bump(versions={key})
        return version

    async def add_build(self, build: ModelVersion) -> ModelVersion | None:
        self._stands()
        if build.given.build_of not in self._versions:
            return None
        old = self._versions.get(build.key)
        if old is not None and old.stands_for(build):
            return old
        self._versions.pop(build.key, None)  # to the end of the queue
        return self._put(build)

    async def set_served(
        self, key: VersionKey, device_kind: str, served: ServedBuild | None
    ) -> ModelVersion | None:
        return self._set_given(key, lambda given: given.served_by(device_kind, served))

    async def delete(self, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
        self._stands()
        named = dict.fromkeys([*keys, *(build for key in keys for build in builds_of(key))])
        there = tuple(key for key in named if key in self._versions)
        for key in there:
            del self._versions[key]
            self._wants.pop(key, None)
            self._import_leases.pop(key, None)
        if there:
            self._bump(versions=there, wants=there)
        return there

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion | None:
        return self._set_given(key, lambda given: replace(given, residency=residency))

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion | None:
        return self._set_given(key, lambda given: replace(given, placement=placement))

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion | None:
        return self._set_given(key, lambda given: given.batched(device_kind, batching))

    def _set_given(
        self, key: VersionKey, change: Callable[[ServingSpec], ServingSpec]
    ) -> ModelVersion | None:
        self._stands()
        version = self._versions.get(key)
        if version is None:
            return None
        given = change(version.given)
        return version if given == version.given else self._put(replace(version, given=given))

    async def cordon(self, worker_id: str, incarnation: str) -> None:
        self._stands()
        if self._cordons.get(worker_id) != incarnation:
            self._cordons[worker_id] = incarnation
            self._bump(workers={worker_id})

    # --- wants ----------------------------------------------------------------------------

    async def want(self, want: Want, token: FencingToken | None = None) -> Want | None:
        self._stands()
        self._check(token)
        if want.key not in self._versions:
            return None
        old = self._wants.get(want.key)
        new = want.following(old)
        if new != old:
            self._wants[want.key] = new
            self._bump(wants={want.key})
        return new

    async def renew(self, key: VersionKey, since_unix_s: float) -> Want | None:
        old = self._wants.get(key)
        if old is None:
            return None
        self._wants[key] = replace(old, since_unix_s=since_unix_s)
        self._bump()
        return self._wants[key]

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        self._stands()
        self._check(token)
        old = self._wants.get(key)
        if old is None or (token is not None and old.pinned):
            return False
        if not left:
            del self._wants[key]
        else:
            self._wants[key] = replace(old, replicas=min(left, old.replicas))
        self._bump(wants={key})
        return True

    async def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> tuple[Want, ...]:
        self._stands()
        new = {want.key: want for want in put if want.key in self._versions}
        touched = dict.fromkeys([*new, *drop])
        before = tuple(self._wants[key] for key in touched if key in self._wants)
        left = {key: want for key, want in self._wants.items() if key not in drop}
        known = [self._versions[key] for key in end_standby if key in self._versions]
        normal = {one.key: one.off_standby for one in known}
        versions = {**self._versions, **normal}
        if ({**left, **new}, versions) != (self._wants, self._versions):
            self._wants, self._versions = {**left, **new}, versions
            self._bump(versions=normal, wants=touched)
        return before

    # --- schedules ------------------------------------------------------------------------

    async def put_schedule(self, schedule: Schedule) -> Schedule:
        self._stands()
        old = self._schedules.get(schedule.name)
        if old is not None and old.same_request(schedule):
            return old
        self._schedules[schedule.name] = schedule
        self._bump(schedules={schedule.name})
        return schedule

    async def delete_schedule(self, name: str) -> bool:
        self._stands()
        if self._schedules.pop(name, None) is None:
            return False
        self._bump(schedules={name})
        return True

    async def note_schedule(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        self._stands()
        old = self._schedules.get(name)
        if old is None:
            return None
        new = old.noted(last_unix_s, error)
        if new != old:
            self._schedules[name] = new
            self._bump(schedules={name})
        return new

    # --- imports --------------------------------------------------------------------------

    async def claim_import(self, importer: str, lease_s: float, now: float) -> ModelVersion | None:
        self._stands()
        for key, version in self._versions.items():
            lease = self._import_leases.get(key)
            if version.state is VersionState.UPLOADED or (
                lease is not None and lease.until_unix_s <= now
            ):
                self._import_leases[key] = _ImportLease(importer, now + lease_s)
                return self._put(lifecycle.claimed(version))
        return None

    async def report_progress(
        self, importer: str, key: VersionKey, fraction: float, step: str, lease_s: float, now: float
    ) -> None:
        self._stands()
        version = self._importing(importer, key)
        self._import_leases[key] = _ImportLease(importer, now + lease_s)
        self._put(lifecycle.progressed(version, fraction, step))

    async def finish_import(
        self, importer: str, key: VersionKey, pack: Pack, settings: VersionSettings, now: float
    ) -> ModelVersion:
        self._stands()
        version = self._versions.get(key)
        if version is not None and version.pack is not None and version.pack.digest == pack.digest:
            return version  # a repeat
        ready = lifecycle.imported(self._importing(importer, key), pack, settings)
        del self._import_leases[key]
        return self._put(ready)

    async def fail_import(
        self, importer: str, key: VersionKey, reason: str, message: str, now: float
    ) -> ModelVersion:
        self._stands()
        version = self._versions.get(key)
        failed = version is not None and version.state is VersionState.FAILED
        if (
            version is not None
            and failed
            and (version.reason, version.message) == (reason, message)
        ):
            return version  # a repeat
        version = self._importing(importer, key)
        del self._import_leases[key]
        return self._put(lifecycle.failed(version, reason, message))

    async def adopt_pack(
        self, key: VersionKey, pack: Pack, settings: VersionSettings
    ) -> ModelVersion | None:
        self._stands()
        version = self._versions.get(key)
        if version is None or version.state is not VersionState.UPLOADED:
            return None
        return self._put(lifecycle.adopted(version, pack, settings))

    # --- the reconciler's lease -------------------------------------------------------------

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
        self._lease = _WriterLease(Leader(leader, token, address), self._clock() + lease_s)
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

    # --- what the verbs share -----------------------------------------------------------------

    def _importing(self, importer: str, key: VersionKey) -> ModelVersion:
        """The version if the caller holds its import: a late one holds on until another claims."""
        version = self._versions.get(key)
        lease = self._import_leases.get(key)
        if version is None or lease is None or lease.importer != importer:
            state = version.state if version is not None else "deleted"
            held = f" by {lease.importer}" if lease is not None else ""
            raise ImportNotYours(
                f"the import of {key} is not {importer}'s (it is {state}{held}): "
                "drop the work and claim another"
            )
        return version

    def _put(self, version: ModelVersion) -> ModelVersion:
        self._versions[version.key] = version
        self._bump(versions={version.key})
        return version

    def _holds(self, token: FencingToken) -> bool:
        lease = self._lease
        return lease is not None and lease.leader.token == token and self._clock() < lease.until_s

    def _check(self, token: FencingToken | None) -> None:
        if token is not None and not self._holds(token):
            raise StaleToken(f"token {token} is not the lease's: take the lease and plan again")

    def _stands(self) -> None:
        if not self._cluster:
            raise StoreEmptied

    def _bump(
        self,
        versions: Iterable[VersionKey] = (),
        wants: Iterable[VersionKey] = (),
        workers: Iterable[str] = (),
        schedules: Iterable[str] = (),
    ) -> None:
        self._revision += 1
        about = (frozenset(one) for one in (versions, wants, workers, schedules))
        self._log.append(_Written(self._revision, *about))  # type: ignore[arg-type] # in this order
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
