"""An emptied store filled from a control plane's copy, in Redis: the highest of several, once.

Each that holds a copy says its revision, waits for the others to say theirs, and the one that
said the highest fills the store by one script, if nobody did or wrote to a new store before.
"""

import asyncio
import json

from control_plane.store import codec
from control_plane.store.redis_store import (
    CHANGES,
    CORDONS,
    IMPORTS,
    LEASE,
    LOG,
    LOGGED,
    META,
    NUMBERS,
    SCHEDULES,
    VERSIONS,
    WANTS,
    Command,
    RedisStore,
    a_mark,
    available,
    import_job,
)
from control_plane.types.desired import Desired
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionState

CLAIM = "yolopool:claim"  # string: the highest revision that a copy is said to have; expires
# Beyond the wait: one that said the highest and then died must not hold up the others for long.
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
    """As the registry promises; raises RegistryUnavailable."""

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
    """What fills an empty store. Imports that were not done begin again, the oldest first."""
    versions = copy.versions.values()
    pending = sorted(
        (v for v in versions if v.state in (VersionState.UPLOADED, VersionState.IMPORTING)),
        key=lambda v: (v.created_unix_s, v.key),
    )
    return [
        *(["HSET", VERSIONS, str(v.key), codec.version_to(v)] for v in versions),
        *(["HSET", WANTS, str(w.key), codec.want_to(w)] for w in copy.wants.values()),
        *(["HSET", NUMBERS, name, str(number)] for name, number in copy.numbers.items()),
        *(
            ["HSET", SCHEDULES, schedule.name, codec.schedule_to(schedule)]
            for schedule in copy.schedules.values()
        ),
        *(["HSET", CORDONS, worker, process] for worker, process in copy.cordons.items()),
        *(["HSET", IMPORTS, str(v.key), import_job(n)] for n, v in enumerate(pending)),
    ]
