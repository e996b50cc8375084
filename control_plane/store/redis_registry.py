"""The registry on Redis 6.2 or later: its verbs, each a decision that `redis_store` commits.

Values are JSON (records). Leases of the writer and records of workers expire by themselves.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError

from control_plane.redis_events import RedisEvents
from control_plane.redis_schedules import RedisSchedules
from control_plane.store import codec
from control_plane.store.redis_lease import RedisLease
from control_plane.store.redis_restore import RedisRestore
from control_plane.store.redis_store import (
    CHANGES,
    CORDONS,
    FOOTPRINTS,
    IMPORTS,
    LOGGED,
    META,
    NUMBERS,
    REQUEST,
    SCHEDULES,
    VERSIONS,
    WANTS,
    WORKER,
    WORKERS,
    Change,
    RedisStore,
    available,
    import_job,
    milliseconds,
)
from control_plane.store.registry import REQUEST_ID_KEPT_S, StoreEmptied
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
from yolopool.errors import ImportNotYours, RegistryUnavailable

# Beside the published changes, should one be missed.
POLL_S = 2.0
RETRY_S = 0.5

# ARGV: id, incarnation.
DROP_WORKER = """
local held = redis.call('GET', KEYS[2])
if held and cjson.decode(held).incarnation == ARGV[2] then
    redis.call('DEL', KEYS[2])
    redis.call('SREM', KEYS[1], ARGV[1])
end
"""


class RedisRegistry:
    """`url` as `redis_url` says; `timeout_s` bounds every command."""

    def __init__(
        self,
        url: str,
        password: str | None = None,
        timeout_s: float = 2.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = RedisStore(url, password, timeout_s, wall_clock)
        self._redis = self._store.redis
        self._lease = RedisLease(self._store)
        self._restore = RedisRestore(self._store)
        self._events = RedisEvents(self._store, timeout_s)
        self._schedules = RedisSchedules(self._store)
        self._drop_worker = self._redis.register_script(DROP_WORKER)

    async def open(self) -> str:
        return await self._store.cluster()

    async def create(self) -> str:
        return await self._store.create()

    async def restore(self, copy: Desired, above: FencingToken | None, wait_s: float = 1.0) -> bool:
        return await self._restore.restore(copy, above, wait_s)

    async def close(self) -> None:
        await self._store.close()

    async def desired(self) -> Desired:
        await self._store.stand()  # of an earlier release it has no mark yet
        async with available():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hmget(META, "cluster", "revision", "mark")
            for name in LOGGED:
                pipe.hgetall(name)
            (cluster, revision, mark), *maps = await pipe.execute()
        if cluster is None:
            raise StoreEmptied
        versions, wants, cordons, schedules, numbers = maps
        known = [codec.version_of(text) for text in versions.values()]
        wanted = [codec.want_of(text) for text in wants.values()]
        planned = [codec.schedule_of(text) for text in schedules.values()]
        return Desired(
            int(revision),
            cluster,
            {version.key: version for version in known},
            {want.key: want for want in wanted},
            cordons,
            {schedule.name: schedule for schedule in planned},
            {name: int(number) for name, number in numbers.items()},
            mark,
        )

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        found = await self._store.since(known.cluster, known.revision, known.mark)
        if not found:
            await self._store.stand()
            return None
        revision, mark, *rest = found
        fields = _by_hash(rest)
        return DesiredDelta(
            int(revision or 0),
            mark or "",
            codec.changed(fields[VERSIONS], codec.key_of, codec.version_of),
            codec.changed(fields[WANTS], codec.key_of, codec.want_of),
            fields[CORDONS],
            codec.changed(fields[SCHEDULES], str, codec.schedule_of),
            codec.changed(fields[NUMBERS], str, int),
        )

    async def changes(self) -> AsyncIterator[int]:
        seen: tuple[str, str, str] | None = None
        while True:
            try:
                async with self._redis.pubsub() as published:
                    await published.subscribe(CHANGES)
                    while True:
                        stands = await self._store.stand()
                        if stands != seen:
                            seen = stands
                            yield int(stands[1])
                            continue
                        await published.get_message(ignore_subscribe_messages=True, timeout=POLL_S)
            except StoreEmptied:
                raise
            except (RedisError, OSError, RegistryUnavailable):
                await asyncio.sleep(RETRY_S)

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
        async def decide(change: Change) -> ModelVersion:
            if request_id:
                made = await self._redis.get(REQUEST + request_id)
                old = await change.version(codec.key_of(made)) if made is not None else None
                if old is not None and now - old.created_unix_s < REQUEST_ID_KEPT_S:
                    return old
            highest = await self._redis.hget(NUMBERS, name)
            key = VersionKey(name, int(highest or 0) + 1)
            change.commands += [
                ["HSET", NUMBERS, name, str(key.number)],
                ["HSET", IMPORTS, str(key), import_job(int(change.revision))],
            ]
            if request_id:
                kept = str(int(REQUEST_ID_KEPT_S))
                change.commands.append(["SET", REQUEST + request_id, str(key), "EX", kept])
            return change.put(
                ModelVersion(
                    key,
                    VersionState.UPLOADED,
                    artifact,
                    settings,
                    now,
                    source_name,
                    asked=settings,
                    given=given,
                )
            )

        return await self._store.write(decide)

    async def add_build(self, build: ModelVersion) -> ModelVersion | None:
        async def decide(change: Change) -> ModelVersion | None:
            of = build.given.build_of
            if of is None or await change.version(of) is None:
                return None
            old = await change.version(build.key)
            if old is not None and old.stands_for(build):
                return old
            if build.state is VersionState.UPLOADED:
                job = import_job(int(change.revision))
                change.commands.append(["HSET", IMPORTS, str(build.key), job])
            return change.put(build)

        return await self._store.write(decide)

    async def set_served(
        self, key: VersionKey, device_kind: str, served: ServedBuild | None
    ) -> ModelVersion | None:
        return await self._set_given(key, lambda given: given.served_by(device_kind, served))

    async def delete(self, keys: Sequence[VersionKey]) -> tuple[VersionKey, ...]:
        async def decide(change: Change) -> tuple[VersionKey, ...]:
            named = dict.fromkeys([*keys, *(build for key in keys for build in builds_of(key))])
            there = tuple([key for key in named if await change.version(key) is not None])
            for name in (VERSIONS, WANTS, IMPORTS):
                change.commands += [["HDEL", name, str(key)] for key in there]
            return there

        return await self._store.write(decide)

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion | None:
        return await self._set_given(key, lambda given: replace(given, residency=residency))

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion | None:
        return await self._set_given(key, lambda given: replace(given, placement=placement))

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion | None:
        return await self._set_given(key, lambda given: given.batched(device_kind, batching))

    async def _set_given(
        self, key: VersionKey, alter: Callable[[ServingSpec], ServingSpec]
    ) -> ModelVersion | None:
        async def decide(change: Change) -> ModelVersion | None:
            version = await change.version(key)
            if version is None:
                return None
            given = alter(version.given)
            return version if given == version.given else change.put(replace(version, given=given))

        return await self._store.write(decide)

    async def cordon(self, worker_id: str, incarnation: str) -> None:
        async def decide(change: Change) -> None:
            if await self._redis.hget(CORDONS, worker_id) != incarnation:
                change.commands.append(["HSET", CORDONS, worker_id, incarnation])

        await self._store.write(decide)

    # --- wants ----------------------------------------------------------------------------

    async def want(self, want: Want, token: FencingToken | None = None) -> Want | None:
        async def decide(change: Change) -> Want | None:
            if await change.version(want.key) is None:
                return None
            old = await change.want(want.key)
            new = want.following(old)
            if new != old:
                change.commands.append(["HSET", WANTS, str(new.key), codec.want_to(new)])
            return new

        return await self._store.write(decide, token)

    async def renew(self, key: VersionKey, since_unix_s: float) -> Want | None:
        async def decide(change: Change) -> Want | None:
            old = await change.want(key)
            if old is None:
                return None
            new = replace(old, since_unix_s=since_unix_s)
            change.commands.append(["HSET", WANTS, str(key), codec.want_to(new)])
            return new

        return await self._store.write(decide)

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        async def decide(change: Change) -> bool:
            old = await change.want(key)
            if old is None or (token is not None and old.pinned):
                return False
            if not left:
                change.commands.append(["HDEL", WANTS, str(key)])
            elif left < old.replicas:
                fewer = codec.want_to(replace(old, replicas=left))
                change.commands.append(["HSET", WANTS, str(key), fewer])
            return True

        return await self._store.write(decide, token)

    async def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> tuple[Want, ...]:
        async def decide(change: Change) -> tuple[Want, ...]:
            new = [want for want in put if await change.version(want.key) is not None]
            keys = dict.fromkeys([*(want.key for want in new), *drop])
            held = {key: await change.want(key) for key in keys}
            wanted = {want.key for want in new}
            for key in drop:
                if held[key] is not None and key not in wanted:
                    change.commands.append(["HDEL", WANTS, str(key)])
            for want in new:
                if want != held[want.key]:
                    change.commands.append(["HSET", WANTS, str(want.key), codec.want_to(want)])
            for key in end_standby:
                version = await change.version(key)
                if version is not None and (normal := version.off_standby) != version:
                    change.put(normal)
            return tuple(want for want in held.values() if want is not None)

        return await self._store.write(decide)

    # --- schedules ------------------------------------------------------------------------

    async def put_schedule(self, schedule: Schedule) -> Schedule:
        return await self._schedules.put(schedule)

    async def delete_schedule(self, name: str) -> bool:
        return await self._schedules.delete(name)

    async def note_schedule(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        return await self._schedules.note(name, last_unix_s, error)

    # --- imports --------------------------------------------------------------------------

    async def claim_import(self, importer: str, lease_s: float, now: float) -> ModelVersion | None:
        async def decide(change: Change) -> ModelVersion | None:
            pending = await self._redis.hgetall(IMPORTS)
            open_jobs = [
                (lease["order"], key)
                for key, text in pending.items()
                if (lease := json.loads(text))["until_unix_s"] <= now
            ]
            for order, key in sorted(open_jobs):
                version = await change.version(codec.key_of(key))
                if version is None:
                    continue
                change.commands.append(
                    ["HSET", IMPORTS, key, import_job(order, importer, now + lease_s)]
                )
                return change.put(lifecycle.claimed(version))
            return None

        return await self._store.write(decide)

    async def report_progress(
        self, importer: str, key: VersionKey, fraction: float, step: str, lease_s: float, now: float
    ) -> None:
        async def decide(change: Change) -> None:
            version, order = await self._importing(change, importer, key)
            change.commands.append(
                ["HSET", IMPORTS, str(key), import_job(order, importer, now + lease_s)]
            )
            change.put(lifecycle.progressed(version, fraction, step))

        await self._store.write(decide)

    async def finish_import(
        self, importer: str, key: VersionKey, pack: Pack, settings: VersionSettings, now: float
    ) -> ModelVersion:
        async def decide(change: Change) -> ModelVersion:
            old = await change.version(key)
            if old is not None and old.pack is not None and old.pack.digest == pack.digest:
                return old  # a repeat
            version, _ = await self._importing(change, importer, key)
            change.commands.append(["HDEL", IMPORTS, str(key)])
            return change.put(lifecycle.imported(version, pack, settings))

        return await self._store.write(decide)

    async def fail_import(
        self, importer: str, key: VersionKey, reason: str, message: str, now: float
    ) -> ModelVersion:
        async def decide(change: Change) -> ModelVersion:
            old = await change.version(key)
            told = (VersionState.FAILED, reason, message)
            if old is not None and (old.state, old.reason, old.message) == told:
                return old  # a repeat
            version, _ = await self._importing(change, importer, key)
            change.commands.append(["HDEL", IMPORTS, str(key)])
            return change.put(lifecycle.failed(version, reason, message))

        return await self._store.write(decide)

    async def adopt_pack(
        self, key: VersionKey, pack: Pack, settings: VersionSettings
    ) -> ModelVersion | None:
        async def decide(change: Change) -> ModelVersion | None:
            version = await change.version(key)
            if version is None or version.state is not VersionState.UPLOADED:
                return None
            change.commands.append(["HDEL", IMPORTS, str(key)])
            return change.put(lifecycle.adopted(version, pack, settings))

        return await self._store.write(decide)

    # --- the reconciler's lease -------------------------------------------------------------

    async def take_lease(
        self, leader: str, lease_s: float, above: FencingToken | None, address: str = ""
    ) -> FencingToken | None:
        return await self._lease.take(leader, lease_s, above, address)

    async def keep_lease(self, token: FencingToken, lease_s: float) -> bool:
        return await self._lease.keep(token, lease_s)

    async def drop_lease(self, token: FencingToken) -> None:
        await self._lease.drop(token)

    async def leader(self) -> Leader | None:
        return await self._lease.leader()

    # --- observed state ---------------------------------------------------------------------

    async def record_workers(self, workers: Sequence[WorkerInfo], keep_s: float) -> None:
        if not workers:
            return
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            pipe.sadd(WORKERS, *[worker.id for worker in workers])
            for worker in workers:
                pipe.set(WORKER + worker.id, codec.worker_to(worker), px=milliseconds(keep_s))
            await pipe.execute()

    async def drop_worker(self, worker_id: str, incarnation: str) -> None:
        async with available():
            keys = [WORKERS, WORKER + worker_id]
            await self._drop_worker(keys=keys, args=[worker_id, incarnation])

    async def workers(self) -> tuple[WorkerInfo, ...]:
        async with available():
            ids = sorted(await self._redis.smembers(WORKERS))
            texts = await self._redis.mget([WORKER + one for one in ids]) if ids else []
            gone = [one for one, text in zip(ids, texts, strict=True) if text is None]
            if gone:
                await self._redis.srem(WORKERS, *gone)
            return tuple(codec.worker_of(text) for text in texts if text is not None)

    async def record_footprint(self, key: FootprintKey, footprint: Footprint) -> None:
        name, text = codec.footprint_key_to(key), codec.footprint_to(footprint)
        async with available():
            await self._redis.hset(FOOTPRINTS, name, text)

    async def footprints(self) -> Mapping[FootprintKey, Footprint]:
        async with available():
            known = await self._redis.hgetall(FOOTPRINTS)
        return {
            codec.footprint_key_of(name): codec.footprint_of(text) for name, text in known.items()
        }

    # --- events -------------------------------------------------------------------------------

    async def append_event(self, event: Event) -> str:
        return await self._events.append(event)

    async def events(self, after: str = "", last: int = 0) -> tuple[Event, ...]:
        return await self._events.read(after, last)

    async def next_events(self, after: str, wait_s: float) -> tuple[Event, ...]:
        return await self._events.wait(after, wait_s)

    # --- what the verbs share -----------------------------------------------------------------

    async def _importing(
        self, change: Change, importer: str, key: VersionKey
    ) -> tuple[ModelVersion, int]:
        """The version and the order of its job, if the caller holds it."""
        version = await change.version(key)
        text = await self._redis.hget(IMPORTS, str(key))
        lease: dict[str, Any] = json.loads(text) if text is not None else {"importer": ""}
        if version is None or lease["importer"] != importer:
            state = version.state if version is not None else "deleted"
            held = f" by {lease['importer']}" if lease["importer"] else ""
            raise ImportNotYours(
                f"the import of {key} is not {importer}'s (it is {state}{held}): "
                "drop the work and claim another"
            )
        order: int = lease["order"]
        return version, order


def _by_hash(found: Sequence[str | None]) -> dict[str, dict[str, str | None]]:
    """Fields by hash, of hash, field, value, hash, ..."""
    fields: dict[str, dict[str, str | None]] = {name: {} for name in LOGGED}
    for name, field, value in zip(found[::3], found[1::3], found[2::3], strict=True):
        fields[name or ""][field or ""] = value
    return fields
