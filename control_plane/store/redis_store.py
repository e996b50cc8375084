"""A store of JSON on Redis 6.2 or later that is written as one: where keys are named, how a write
is committed or tried again, and what becomes of a server that does not answer.

A write reads what it needs at one revision, decides in Python, and commits by one script that
applies all of it if the revision still stands, and logs what it touched. A mark is drawn with each
revision: a follower that lost the last writes counts the same numbers again, and is another store.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from redis.exceptions import RedisError

from control_plane.store import codec
from control_plane.store.redis_client import connect, disconnect
from control_plane.store.registry import LOG_KEPT, StoreEmptied
from control_plane.types.desired import Want
from control_plane.types.lease import FencingToken
from control_plane.types.version import ModelVersion, VersionKey
from yolopool.errors import RegistryUnavailable, StaleToken

META = "yolopool:meta"  # hash: cluster, epoch, counter, revision, mark
VERSIONS = "yolopool:versions"  # hash: name@number -> version
NUMBERS = "yolopool:numbers"  # hash: name -> highest number ever given
WANTS = "yolopool:wants"  # hash: name@number -> want
IMPORTS = "yolopool:imports"  # hash: name@number -> order, importer and end of its lease
REQUEST = "yolopool:request:"  # + request id: name@number, for a day
LEASE = "yolopool:lease"  # string: token, holder; expires
WORKERS = "yolopool:workers"  # set: worker ids
CORDONS = "yolopool:cordons"  # hash: worker id -> incarnation that is to drain
SCHEDULES = "yolopool:schedules"  # hash: name -> schedule
FOOTPRINTS = "yolopool:footprints"  # hash: pack, variant and device kind -> JSON
WORKER = "yolopool:worker:"  # + id: worker; expires
EVENTS = "yolopool:events"  # stream, capped: event -> JSON
LOG = "yolopool:log"  # stream: <revision>-1, mark, [hash, field] that were written
CHANGES = "yolopool:changes"  # channel: revision

# Hashes whose fields the log names: desired state.
LOGGED = (VERSIONS, WANTS, CORDONS, SCHEDULES, NUMBERS)

# KEYS: meta, log. ARGV: cluster, epoch, mark -> cluster.
CREATE = """
redis.call('HSETNX', KEYS[1], 'cluster', ARGV[1])
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
redis.call('HSETNX', KEYS[1], 'counter', '0')
redis.call('HSETNX', KEYS[1], 'revision', '0')
if redis.call('HSETNX', KEYS[1], 'mark', ARGV[3]) == 1 then
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], redis.call('HGET', KEYS[1], 'revision') .. '-1',
        'mark', ARGV[3], 'touched', '[]')
end
return redis.call('HGET', KEYS[1], 'cluster')
"""

# KEYS: meta, lease, log. ARGV: cluster, revision, mark, token or '', commands as JSON, channel, new
# mark, touched as JSON, how many writes the log keeps -> 1, 0: read again, -1: the token is not
# the lease's.
COMMIT = """
local stands = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark')
if stands[1] ~= ARGV[1] or stands[2] ~= ARGV[2] or stands[3] ~= ARGV[3] then return 0 end
if ARGV[4] ~= '' then
    local held = redis.call('GET', KEYS[2])
    if not held or string.match(held, '^(%S+) ') ~= ARGV[4] then return -1 end
end
if ARGV[5] == '' then return 1 end
for _, command in ipairs(cjson.decode(ARGV[5])) do redis.call(unpack(command)) end
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'mark', ARGV[7])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], revision .. '-1',
    'mark', ARGV[7], 'touched', ARGV[8])
redis.call('PUBLISH', ARGV[6], revision)
return 1
"""

# KEYS: meta, log. ARGV: cluster, revision, mark -> revision, mark, then hash, field and value of
# all that was written since; nothing: read all.
SINCE = """
local now = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark')
if now[1] ~= ARGV[1] then return {} end
local entries = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-1', '+')
if not entries[1] or entries[1][1] ~= ARGV[2] .. '-1' or entries[1][2][2] ~= ARGV[3] then
    return {}
end
local answer, seen = {now[2], now[3]}, {}
for at = 2, #entries do
    for _, place in ipairs(cjson.decode(entries[at][2][4])) do
        local name = place[1] .. ' ' .. place[2]
        if not seen[name] then
            seen[name] = true
            table.insert(answer, place[1])
            table.insert(answer, place[2])
            table.insert(answer, redis.call('HGET', place[1], place[2]))
        end
    end
end
return answer
"""

ATTEMPTS = 50

Answer = TypeVar("Answer")
Command = list[str]


@dataclass(slots=True)
class Change:
    """One attempt at a write: what was read belongs to this revision."""

    redis: Any  # its stubs give bytes or text, awaited or not: with us text, awaited
    cluster: str
    revision: str
    mark: str
    commands: list[Command] = field(default_factory=list)

    async def version(self, key: VersionKey) -> ModelVersion | None:
        text = await self.redis.hget(VERSIONS, str(key))
        return codec.version_of(text) if text is not None else None

    async def want(self, key: VersionKey) -> Want | None:
        text = await self.redis.hget(WANTS, str(key))
        return codec.want_of(text) if text is not None else None

    def touched(self) -> list[list[str]]:
        """Hash and field of the desired state that the commands write."""
        return [command[1:3] for command in self.commands if command[1] in LOGGED]

    def put(self, version: ModelVersion) -> ModelVersion:
        self.commands.append(["HSET", VERSIONS, str(version.key), codec.version_to(version)])
        return version


class RedisStore:
    """`url` as `redis_url` says; `timeout_s` bounds every command."""

    def __init__(
        self,
        url: str,
        password: str | None,
        timeout_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.redis: Any = connect(url, password, timeout_s)
        self._wall_clock = wall_clock
        self._create = self.redis.register_script(CREATE)
        self._commit = self.redis.register_script(COMMIT)
        self._since = self.redis.register_script(SINCE)

    async def close(self) -> None:
        await disconnect(self.redis)

    async def write(
        self, decide: Callable[[Change], Awaitable[Answer]], token: FencingToken | None = None
    ) -> Answer:
        """Decides and commits until nobody came between. Nothing to commit: only the token is
        checked.
        """
        async with available():
            for _ in range(ATTEMPTS):
                change = Change(self.redis, *await self.stand())
                answer = await decide(change)
                if not change.commands and token is None:
                    return answer
                arguments: list[str | int] = [
                    *(change.cluster, change.revision, change.mark, str(token or "")),
                    json.dumps(change.commands) if change.commands else "",
                    *(CHANGES, a_mark(), json.dumps(change.touched()), LOG_KEPT),
                ]
                done = await self._commit(keys=[META, LEASE, LOG], args=arguments)
                if done == -1:
                    raise StaleToken(
                        f"token {token} is not the lease's: take the lease and plan again"
                    )
                if done:
                    return answer
        raise RegistryUnavailable(f"others wrote {ATTEMPTS} times in between: try again")

    async def stand(self) -> tuple[str, str, str]:
        """Cluster, revision and mark now. Raises StoreEmptied."""
        async with available():
            stands = await self.redis.hmget(META, "cluster", "revision", "mark")
        if None not in stands:
            cluster, revision, mark = stands
            return cluster, revision, mark
        if stands[0] is None:
            raise StoreEmptied
        await self.create()  # of an earlier release: it had no log
        return await self.stand()

    async def cluster(self) -> str:
        """The cluster id; empty: there is none."""
        async with available():
            return await self.redis.hget(META, "cluster") or ""

    async def create(self) -> str:
        """The cluster id; of a new store, if there was none."""
        async with available():
            arguments: list[str | int] = [uuid4().hex, self.now_ms(), a_mark()]
            cluster: str = await self._create(keys=[META, LOG], args=arguments)
        return cluster

    async def since(self, cluster: str, revision: int, mark: str) -> list[str | None]:
        """As the script SINCE."""
        async with available():
            found: list[str | None] = await self._since(
                keys=[META, LOG], args=[cluster, revision, mark]
            )
        return found

    def now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


def a_mark() -> str:
    return uuid4().hex[:12]


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Says of a store that does not answer, or not as it should, that it is unavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise RegistryUnavailable(
            f"Redis does not answer ({type(error).__name__}: {error}): detection goes on with "
            "what is loaded; check the server and try again"
        ) from error


def milliseconds(seconds: float) -> int:
    """As Redis expires keys: at least one."""
    return max(1, int(seconds * 1000))


def import_job(order: int, importer: str = "", until_unix_s: float = 0.0) -> str:
    """A place in the queue of imports, and whose it is until when."""
    return json.dumps({"order": order, "importer": importer, "until_unix_s": until_unix_s})
