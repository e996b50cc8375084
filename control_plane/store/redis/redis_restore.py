"""Restores an emptied Redis from the backup of a control plane: the newest of several, once.

Each control plane with a backup announces its revision and waits for the others. The one with the
highest revision fills the store by one script, unless another restored or wrote to it first.
"""

import asyncio
import json

from control_plane.store.redis.redis_keys import (
    CHANGES,
    IMPORTS,
    LEASE,
    LOG,
    LOGGED,
    META,
)
from control_plane.store.redis.redis_store import RedisStore, a_mark, available
from control_plane.store.redis.redis_transaction import Command, commands_of
from control_plane.store.transaction import Writes
from control_plane.store.transactions import requeued
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

# KEYS: meta, claim, log, then all else to empty. ARGV: revision of the copy, cluster, epoch, mark,
# commands as JSON, channel -> 1: done.
RESTORE = """
local cluster, revision = unpack(redis.call('HMGET', KEYS[1], 'cluster', 'revision'))
if cluster and revision ~= '0' then return 0 end
if tonumber(redis.call('GET', KEYS[2]) or '-1') > tonumber(ARGV[1]) then return 0 end
redis.call('DEL', unpack(KEYS))
for _, command in ipairs(cjson.decode(ARGV[5])) do redis.call(unpack(command)) end
local now = string.format('%.0f', tonumber(ARGV[1]) + 1)
redis.call('HSET', KEYS[1], 'cluster', ARGV[2], 'epoch', ARGV[3], 'counter', '0',
    'revision', now, 'mark', ARGV[4])
redis.call('XADD', KEYS[3], now .. '-1', 'mark', ARGV[4], 'touched', '[]')
redis.call('PUBLISH', ARGV[6], now)
return 1
"""


class RedisRestore:
    """What `DesiredState.restore` promises. Raises RegistryUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._say = store.redis.register_script(SAY)
        self._fill = store.redis.register_script(RESTORE)

    async def restore(self, copy: Desired, above: FencingToken | None, wait_s: float) -> bool:
        kept_ms = int((wait_s + CLAIM_KEPT_S) * 1000)
        async with available():
            await self._say(keys=[CLAIM], args=[copy.revision, kept_ms, CHANGES])
        await asyncio.sleep(wait_s)
        epoch = max(self._store.now_ms(), above.epoch + 1 if above is not None else 0)
        arguments: list[str | int] = [
            copy.revision,
            copy.cluster,
            epoch,
            a_mark(),
            await asyncio.to_thread(lambda: json.dumps(_commands(copy))),
            CHANGES,
        ]
        keys = [META, CLAIM, LOG, LEASE, IMPORTS, *LOGGED]
        async with available():
            return bool(await self._fill(keys=keys, args=arguments))


def _commands(copy: Desired) -> list[Command]:
    """What fills an empty store."""
    return commands_of(
        Writes(
            dict(copy.versions),
            dict(copy.wants),
            dict(copy.cordons),
            dict(copy.schedules),
            dict(copy.numbers),
            dict(requeued(copy.versions.values())),
        )
    )
