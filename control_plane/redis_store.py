"""A store of JSON on Redis 6.2 or later that is written as one: where keys are named, how a write
is committed or tried again, and what becomes of a server that does not answer.

A write reads what it needs at one revision, decides in Python, and commits by one script that
applies all of it if the revision still stands. Everything lives under `yolopool:`.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from redis.exceptions import RedisError

from control_plane import records
from control_plane.fleet import FencingToken, ModelVersion, VersionKey, Want
from control_plane.redis_url import connect, disconnect
from yolopool.errors import RegistryUnavailable, StaleToken

META = "yolopool:meta"  # hash: cluster, epoch, counter, revision
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
CHANGES = "yolopool:changes"  # channel: revision

ATTEMPTS = 50

CREATE = """
redis.call('HSETNX', KEYS[1], 'cluster', ARGV[1])
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
redis.call('HSETNX', KEYS[1], 'counter', '0')
redis.call('HSETNX', KEYS[1], 'revision', '0')
return redis.call('HGET', KEYS[1], 'cluster')
"""

# ARGV: cluster, revision, token or '', commands as JSON, channel -> new revision, 0: read again,
# -1: the token is not the lease's.
COMMIT = """
if redis.call('HGET', KEYS[1], 'cluster') ~= ARGV[1]
    or redis.call('HGET', KEYS[1], 'revision') ~= ARGV[2] then return 0 end
if ARGV[3] ~= '' then
    local held = redis.call('GET', KEYS[2])
    if not held or string.match(held, '^(%S+) ') ~= ARGV[3] then return -1 end
end
for _, command in ipairs(cjson.decode(ARGV[4])) do redis.call(unpack(command)) end
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('PUBLISH', ARGV[5], revision)
return revision
"""

Answer = TypeVar("Answer")
Command = list[str]


@dataclass(slots=True)
class Change:
    """One attempt at a write: what was read belongs to this revision."""

    redis: Any  # its stubs give bytes or text, awaited or not: with us text, awaited
    cluster: str
    revision: str
    commands: list[Command] = field(default_factory=list)

    async def version(self, key: VersionKey) -> ModelVersion | None:
        text = await self.redis.hget(VERSIONS, str(key))
        return records.version_of(text) if text is not None else None

    async def want(self, key: VersionKey) -> Want | None:
        text = await self.redis.hget(WANTS, str(key))
        return records.want_of(text) if text is not None else None

    def put(self, version: ModelVersion) -> ModelVersion:
        self.commands.append(["HSET", VERSIONS, str(version.key), records.version_to(version)])
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
                arguments = [
                    change.cluster,
                    change.revision,
                    str(token or ""),
                    # An empty list would read as an object.
                    json.dumps(change.commands or [["PING"]]),
                    CHANGES,
                ]
                done = await self._commit(keys=[META, LEASE], args=arguments)
                if done == -1:
                    raise StaleToken(
                        f"token {token} is not the lease's: take the lease and plan again"
                    )
                if done:
                    return answer
        raise RegistryUnavailable(f"others wrote {ATTEMPTS} times in between: try again")

    async def stand(self) -> tuple[str, str]:
        """Cluster and revision now; of a new store, if it was emptied."""
        async with available():
            while True:
                cluster, revision = await self.redis.hmget(META, "cluster", "revision")
                if cluster is not None and revision is not None:
                    return cluster, revision
                await self.ensure()

    async def ensure(self) -> str:
        """The cluster id; of a new store, if there was none."""
        arguments: list[str | int] = [uuid4().hex, self.now_ms()]
        cluster: str = await self._create(keys=[META], args=arguments)
        return cluster

    def now_ms(self) -> int:
        return int(self._wall_clock() * 1000)


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
