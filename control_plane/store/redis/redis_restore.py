"""Restores what Redis lost from the copies of control planes: from the newest of several, once.

Each control plane announces the revision of its copy and waits for the others. The one with the
highest reads what is left, decides what to put there, and writes that by one script if the store
still stands as it was read.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from control_plane.store import codec
from control_plane.store.alerts.alert_codec import decode_setting
from control_plane.store.redis.redis_keys import (
    ALERTS,
    ALIASES,
    API_KEYS,
    CHANGES,
    CORDONS,
    COUNTED,
    IMPORTS,
    LEASE,
    LOG,
    META,
    NUMBERS,
    RULES,
    SCHEDULES,
    TENANTS,
    VERSIONS,
    WANTS,
    WATCHES,
)
from control_plane.store.redis.redis_stand import LENGTHS, lengths_of, lost_of
from control_plane.store.redis.redis_store import RedisStore, a_mark
from control_plane.store.redis.redis_transaction import Command, commands_of
from control_plane.store.registry import StoreDamaged
from control_plane.store.rules import rule_codec
from control_plane.store.salvage import Remains, Salvage, lost_parts, salvaged
from control_plane.store.sources.watch_codec import decode_watch
from control_plane.store.transaction import Writes
from control_plane.types.desired import Desired
from control_plane.types.lease import FencingToken

CLAIM = "yolopool:claim"  # string: the highest revision announced; expires
# Beyond the wait. A control plane that announced the highest revision and died blocks the others
# for so long.
CLAIM_KEPT_S = 3.0

# KEYS: claim. ARGV: revision, ms, channel.
SAY = """
local said = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) >= said then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
redis.call('PUBLISH', ARGV[3], '0')
"""

# KEYS: meta, claim, then COUNTED. ARGV: revision of the copy, cluster, revision and mark as read
# ('': none), the lengths as read, commands as JSON, mark, channel -> 1: done.
FILL = (
    LENGTHS
    + """
if tonumber(redis.call('GET', KEYS[2]) or '-1') > tonumber(ARGV[1]) then return 0 end
local stands = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark')
for at = 1, 3 do
    if (stands[at] or '') ~= ARGV[at + 1] then return 0 end
end
if lengths(3) ~= ARGV[5] then return 0 end
for _, command in ipairs(cjson.decode(ARGV[6])) do redis.call(unpack(command)) end
redis.call('HSET', KEYS[1], 'held', ARGV[7] .. ' ' .. lengths(3))
redis.call('PUBLISH', ARGV[8], '0')
return 1
"""
)

# The hash of each part, and how its fields are read.
HASHES: Mapping[str, tuple[str, Callable[[str], Any], Callable[[str], Any]]] = {
    "versions": (VERSIONS, codec.decode_key, codec.decode_version),
    "wants": (WANTS, codec.decode_key, codec.decode_want),
    "cordons": (CORDONS, str, str),
    "schedules": (SCHEDULES, str, codec.decode_schedule),
    "numbers": (NUMBERS, str, int),
    "api_keys": (API_KEYS, str, codec.decode_api_key),
    "tenants": (TENANTS, str, codec.decode_tenant),
    "aliases": (ALIASES, codec.decode_alias_key, codec.decode_alias),
    "rules": (RULES, str, rule_codec.decode_rule),
    "watches": (WATCHES, str, decode_watch),
    "alerts": (ALERTS, str, decode_setting),
    "jobs": (IMPORTS, codec.decode_key, codec.decode_job),
}


class RedisRestore:
    """What `DesiredState.restore` promises."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._say = store.redis.register_script(SAY)
        self._fill = store.redis.register_script(FILL)

    async def restore(self, copy: Desired | None, above: FencingToken | None, wait_s: float) -> str:
        kept_ms = int((wait_s + CLAIM_KEPT_S) * 1000)
        async with self._store.available():
            (cluster, revision_there, *_), _, _ = await self._store.read_unchecked([])
        if copy is not None and _is_there(cluster, revision_there) and cluster != copy.cluster:
            copy = None  # it has nothing of this store, and must not keep those back that have
        revision = copy.revision if copy is not None else -1
        async with self._store.available():
            await self._say(keys=[CLAIM], args=[revision, kept_ms, CHANGES])
        await asyncio.sleep(wait_s)
        async with self._store.available():
            found, lengths, replies = await self._store.read_unchecked(
                [("HGETALL", name) for name, _, _ in HASHES.values()]
            )
        remains = _remains(found, lengths, replies)
        salvage = salvaged(remains, copy)
        if salvage is None:
            raise StoreDamaged([HASHES[part][0] for part in lost_parts(remains)])
        if remains.cluster and not salvage.written:
            return ""
        epoch = None if remains.cluster else self._epoch(above)
        mark = a_mark()
        commands = await asyncio.to_thread(lambda: json.dumps(_commands(salvage, mark, epoch)))
        arguments: list[str | int] = [
            revision,
            *(word or "" for word in found[:3]),
            lengths,
            commands,
            mark,
            CHANGES,
        ]
        async with self._store.available():
            done = await self._fill(keys=[META, CLAIM, *COUNTED], args=arguments)
        return _told(remains, salvage, copy) if done else ""

    def _epoch(self, above: FencingToken | None) -> int:
        return max(self._store.now_ms(), above.epoch + 1 if above is not None else 0)


def _is_there(cluster: str | None, revision: str | None) -> bool:
    """A new store that nobody wrote to counts as empty."""
    return cluster is not None and revision != "0"


def _remains(found: list[str | None], lengths: str, replies: list[Any]) -> Remains:
    cluster, revision, mark, held = found
    is_there = _is_there(cluster, revision)
    of, _, recorded = (held or "").partition(" ")
    gone = {name for name, length in lengths_of(lengths).items() if not length}
    if is_there:
        gone = set(lost_of(recorded, lengths)) if of == mark else set()
    kept: dict[str, Any] = {}
    for (part, (name, key, value)), fields in zip(HASHES.items(), replies, strict=True):
        kept[part] = (
            None if name in gone else {key(one): value(text) for one, text in fields.items()}
        )
    stand = (cluster or "", int(revision or 0), mark or "") if is_there else ()
    return Remains(*stand, **kept)


def _commands(salvage: Salvage, mark: str, epoch: int | None) -> list[Command]:
    """What makes the store hold a salvage; `epoch`: of a store whose META is lost."""
    desired, written = salvage.desired, salvage.written
    parts: Writes = Writes(
        dict(desired.versions),
        dict(desired.wants),
        dict(desired.cordons),
        dict(desired.schedules),
        dict(desired.numbers),
        dict(desired.api_keys),
        dict(desired.tenants),
        dict(desired.aliases),
        dict(desired.rules),
        dict(desired.watches),
        dict(desired.alerts),
        dict(salvage.jobs),
    )
    rewritten = {HASHES[part][0] for part in written}
    fields = [command for command in commands_of(parts) if command[1] in rewritten]
    meta = ["HSET", META, "cluster", desired.cluster, "revision", str(desired.revision)]
    meta += ["mark", mark]
    entry = ["XADD", LOG, f"{desired.revision}-1", "mark", mark, "touched", "[]"]
    if epoch is None:
        return [["DEL", LOG, *rewritten], *fields, meta, entry]
    meta += ["epoch", str(epoch), "counter", "0"]
    return [["DEL", META, LOG, LEASE, *rewritten], *fields, meta, entry]


def _told(remains: Remains, salvage: Salvage, copy: Desired | None) -> str:
    """What was restored, for people."""
    desired = salvage.desired
    source = (
        f"from the copy of revision {copy.revision}" if copy is not None else "from its versions"
    )
    holds = f"with {len(desired.versions)} versions and {len(desired.wants)} wants"
    if not remains.cluster:
        return f"the store was emptied: restored {source}, {holds}"
    behind = ""
    if copy is not None and copy.revision < remains.revision:
        behind = f"; what was written there since, up to revision {remains.revision}, is lost"
    parts = ", ".join(salvage.written)
    return f"the store lost {parts}: restored {source}, {holds}{behind}"
