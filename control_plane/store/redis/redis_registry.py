"""`Registry` on Redis 6.2 or later. `redis_store` commits the write verbs, this file does the rest.

Values are JSON, as `codec` writes them. The leader's lease and worker records expire in Redis.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import structlog
from redis.exceptions import RedisError, ResponseError

from control_plane.settings import Settings
from control_plane.store import codec
from control_plane.store.alerts.alert_codec import decode_setting
from control_plane.store.redis.redis_access import RedisAccess, access_of
from control_plane.store.redis.redis_accounts import RedisAccounts
from control_plane.store.redis.redis_alerts import RedisAlertRecords
from control_plane.store.redis.redis_evidence import RedisEvidence
from control_plane.store.redis.redis_keys import (
    ALERTS,
    ALIASES,
    API_KEYS,
    CHANGES,
    CORDONS,
    EVENTS,
    FOOTPRINTS,
    LOGGED,
    NUMBERS,
    RULES,
    SCHEDULES,
    TENANTS,
    VERSIONS,
    WANTS,
    WATCHES,
    WORKER,
    WORKERS,
)
from control_plane.store.redis.redis_lease import RedisLease
from control_plane.store.redis.redis_restore import RedisRestore
from control_plane.store.redis.redis_stand import Stand
from control_plane.store.redis.redis_store import RedisStore, milliseconds
from control_plane.store.registry import StoreDamaged, StoreEmptied
from control_plane.store.rules import rule_codec
from control_plane.store.sources.watch_codec import decode_watch
from control_plane.store.transaction import Transaction
from control_plane.store.write_verbs import WriteVerbs
from control_plane.types.desired import Desired, DesiredDelta
from control_plane.types.event import EVENTS_KEPT, Event
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.worker import WorkerInfo
from yolopool.errors import RegistryUnavailable

log = structlog.get_logger()
Answer = TypeVar("Answer")

EVENT = "event"  # the field of an entry of EVENTS
# How often to look for a change whose message was missed.
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


def registry_of(settings: Settings) -> "RedisRegistry":
    """By the settings. Raises OSError and ValueError for what can't be used of them."""
    return RedisRegistry(settings.redis, access_of(settings))


class RedisRegistry(WriteVerbs):
    """`url` as `redis_client` says; `timeout_s` bounds every command."""

    def __init__(
        self,
        url: str,
        access: RedisAccess | None = None,
        timeout_s: float = 2.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = RedisStore(url, access, timeout_s, wall_clock)
        self._redis = self._store.redis
        self._lease = RedisLease(self._store)
        self.accounts = RedisAccounts(self._store)
        self.evidence = RedisEvidence(self._store)
        self.alert_records = RedisAlertRecords(self._store)
        self._restore = RedisRestore(self._store)
        # A blocking read must return before the socket times out.
        self._max_wait_s = timeout_s / 2
        self._drop_worker = self._redis.register_script(DROP_WORKER)
        self._skipped_footprints = False

    async def open(self) -> str:
        return await self._store.cluster()

    async def create(self) -> str:
        return await self._store.create()

    async def restore(
        self, copy: Desired | None, above: FencingToken | None, wait_s: float = 1.0
    ) -> str:
        return await self._restore.restore(copy, above, wait_s)

    async def eviction_policy(self) -> str:
        async with self._store.available():
            try:
                facts = await self._redis.info("memory")
            except ResponseError:  # the user may not call INFO, or the server has renamed it
                return ""
        return str(facts.get("maxmemory_policy", ""))

    async def close(self) -> None:
        await self._store.close()

    async def write(
        self, verb: Callable[[Transaction], Answer], token: FencingToken | None = None
    ) -> Answer:
        return await self._store.write(verb, token)

    async def desired(self) -> Desired:
        stand, maps = await self._store.read([("HGETALL", name) for name in LOGGED])
        versions, wants, cordons, schedules, numbers, api_keys, *others = maps.values()
        tenants, aliases, rules, watches, alerts = others
        known = [codec.decode_version(text) for text in versions.values()]
        wanted = [codec.decode_want(text) for text in wants.values()]
        issued = [codec.decode_api_key(text) for text in api_keys.values()]
        sharing = [codec.decode_tenant(text) for text in tenants.values()]
        named = [codec.decode_alias(text) for text in aliases.values()]
        ruled = [rule_codec.decode_rule(text) for text in rules.values()]
        alerting = [decode_setting(text) for text in alerts.values()]
        watching = [decode_watch(text) for text in watches.values()]
        planned = [codec.decode_schedule(text) for text in schedules.values()]
        return Desired(
            int(stand.revision),
            stand.cluster,
            {version.key: version for version in known},
            {want.key: want for want in wanted},
            cordons,
            {schedule.name: schedule for schedule in planned},
            {name: int(number) for name, number in numbers.items()},
            {key.id: key for key in issued},
            {tenant.name: tenant for tenant in sharing},
            {alias.key: alias for alias in named},
            {rule.pattern: rule for rule in ruled},
            {watch.name: watch for watch in watching},
            {setting.key: setting for setting in alerting},
            stand.mark,
        )

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        found = await self._store.since(Stand(known.cluster, str(known.revision), known.mark, ""))
        if not found:
            await self._store.stand()
            return None
        revision, mark, *rest = found
        fields = _by_hash(rest)
        return DesiredDelta(
            int(revision or 0),
            mark or "",
            codec.decode_fields(fields[VERSIONS], codec.decode_key, codec.decode_version),
            codec.decode_fields(fields[WANTS], codec.decode_key, codec.decode_want),
            fields[CORDONS],
            codec.decode_fields(fields[SCHEDULES], str, codec.decode_schedule),
            codec.decode_fields(fields[NUMBERS], str, int),
            codec.decode_fields(fields[API_KEYS], str, codec.decode_api_key),
            codec.decode_fields(fields[TENANTS], str, codec.decode_tenant),
            codec.decode_fields(fields[ALIASES], codec.decode_alias_key, codec.decode_alias),
            codec.decode_fields(fields[RULES], str, rule_codec.decode_rule),
            codec.decode_fields(fields[WATCHES], str, decode_watch),
            codec.decode_fields(fields[ALERTS], str, decode_setting),
        )

    async def changes(self) -> AsyncIterator[int]:
        seen: Stand | None = None
        while True:
            try:
                async with self._redis.pubsub() as published:
                    await published.subscribe(CHANGES)
                    while True:
                        stands = await self._store.stand()
                        if stands != seen:
                            seen = stands
                            yield int(stands.revision)
                            continue
                        await published.get_message(ignore_subscribe_messages=True, timeout=POLL_S)
            except (StoreEmptied, StoreDamaged):
                raise
            except (RedisError, OSError, RegistryUnavailable):
                await asyncio.sleep(RETRY_S)

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
        async with self._store.available():
            pipe = self._redis.pipeline(transaction=False)
            pipe.sadd(WORKERS, *[worker.id for worker in workers])
            for worker in workers:
                pipe.set(WORKER + worker.id, codec.encode_worker(worker), px=milliseconds(keep_s))
            await pipe.execute()

    async def drop_worker(self, worker_id: str, incarnation: str) -> None:
        async with self._store.available():
            keys = [WORKERS, WORKER + worker_id]
            await self._drop_worker(keys=keys, args=[worker_id, incarnation])

    async def workers(self) -> tuple[WorkerInfo, ...]:
        async with self._store.available():
            ids = sorted(await self._redis.smembers(WORKERS))
            texts = await self._redis.mget([WORKER + id_ for id_ in ids]) if ids else []
            gone = [id_ for id_, text in zip(ids, texts, strict=True) if text is None]
            if gone:
                await self._redis.srem(WORKERS, *gone)
            return tuple(codec.decode_worker(text) for text in texts if text is not None)

    async def record_footprint(self, key: FootprintKey, footprint: Footprint) -> None:
        name, text = codec.encode_footprint_key(key), codec.encode_footprint(footprint)
        async with self._store.available():
            await self._redis.hset(FOOTPRINTS, name, text)

    async def footprints(self) -> Mapping[FootprintKey, Footprint]:
        async with self._store.available():
            known = await self._redis.hgetall(FOOTPRINTS)
        found: dict[FootprintKey, Footprint] = {}
        unreadable: list[str] = []
        for name, text in known.items():
            try:
                key = codec.decode_footprint_key(name)
            except ValueError:
                unreadable.append(name)
            else:
                found[key] = codec.decode_footprint(text)
        self._skip_footprints(unreadable)
        return found

    def _skip_footprints(self, unreadable: Sequence[str]) -> None:
        """A newer release may write keys of another form: says so once."""
        if unreadable and not self._skipped_footprints:
            self._skipped_footprints = True
            log.warning("footprints skipped", count=len(unreadable), first=unreadable[0])

    # --- events -------------------------------------------------------------------------------

    async def append_event(self, event: Event) -> str:
        entry = {EVENT: codec.encode_event(event)}
        async with self._store.available():
            kept: str = await self._redis.xadd(EVENTS, entry, maxlen=EVENTS_KEPT, approximate=True)
        return kept

    async def events(self, after: str = "", last: int = 0) -> tuple[Event, ...]:
        begin = f"({after}" if after else "-"
        async with self._store.available():
            if last:
                newest = await self._redis.xrevrange(EVENTS, min=begin, count=last)
                return _events(reversed(newest))
            return _events(await self._redis.xrange(EVENTS, min=begin))

    async def next_events(self, after: str, wait_s: float) -> tuple[Event, ...]:
        wait_ms = milliseconds(min(wait_s, self._max_wait_s))
        async with self._store.available():
            found = await self._redis.xread({EVENTS: after or "0-0"}, block=wait_ms)
        return _events(entry for _, entries in found for entry in entries)


def _by_hash(found: Sequence[str | None]) -> dict[str, dict[str, str | None]]:
    """Groups a flat list of hash, field, value by hash. A newer release may log other hashes."""
    fields: dict[str, dict[str, str | None]] = {name: {} for name in LOGGED}
    for name, field, value in zip(found[::3], found[1::3], found[2::3], strict=True):
        if name in fields:
            fields[name][field or ""] = value
    return fields


def _events(entries: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[Event, ...]:
    return tuple(codec.decode_event(id_, fields[EVENT]) for id_, fields in entries)
