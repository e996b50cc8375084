"""Optimistic transactions on Redis 6.2 or later.

A write reads what it needs at one revision, decides in Python and commits by one script. The
script applies all of it if the revision still stands, and logs the fields that it wrote. Each
revision draws a mark: a replica that was promoted without the last writes counts the same revisions
again, and the mark tells the two histories apart.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from uuid import uuid4

from redis.exceptions import RedisError

from control_plane.store.redis.redis_access import RedisAccess
from control_plane.store.redis.redis_client import READ_ONLY, connect, disconnect, refusal_of
from control_plane.store.redis.redis_keys import (
    CHANGES,
    COUNTED,
    LEASE,
    LOG,
    LOGGED,
    META,
    NEWER,
)
from control_plane.store.redis.redis_stand import LENGTHS, UNREAD, Stand, checked
from control_plane.store.redis.redis_transaction import NotRead, Read, RedisTransaction, commands_of
from control_plane.store.registry import LOG_KEPT, StoreDamaged
from control_plane.store.transaction import Transaction
from control_plane.types.lease import FencingToken
from yolopool.errors import RegistryRefusesWrites, RegistryUnavailable, StaleToken

# KEYS: meta, log, then COUNTED. ARGV: cluster, epoch, mark -> cluster; '': there is none, and
# something else is there. Lengths that are of another mark are recorded anew.
CREATE = (
    LENGTHS
    + """
if redis.call('HEXISTS', KEYS[1], 'cluster') == 0 then
    for at = 2, #KEYS do
        if redis.call('EXISTS', KEYS[at]) == 1 then return '' end
    end
end
redis.call('HSETNX', KEYS[1], 'cluster', ARGV[1])
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
redis.call('HSETNX', KEYS[1], 'counter', '0')
redis.call('HSETNX', KEYS[1], 'revision', '0')
if redis.call('HSETNX', KEYS[1], 'mark', ARGV[3]) == 1 then
    redis.call('DEL', KEYS[2])
    redis.call('XADD', KEYS[2], redis.call('HGET', KEYS[1], 'revision') .. '-1',
        'mark', ARGV[3], 'touched', '[]')
end
local mark, held = unpack(redis.call('HMGET', KEYS[1], 'mark', 'held'))
if not held or string.sub(held, 1, #mark + 1) ~= mark .. ' ' then
    redis.call('HSET', KEYS[1], 'held', mark .. ' ' .. lengths(3))
end
return redis.call('HGET', KEYS[1], 'cluster')
"""
)

# One script and no MULTI, which a server that is out of memory refuses. KEYS: meta, then COUNTED.
# ARGV: commands as JSON -> cluster, revision, mark, held, the lengths as they are, then each reply.
READ = (
    LENGTHS
    + """
local found = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark', 'held')
table.insert(found, lengths(2))
for _, command in ipairs(cjson.decode(ARGV[1])) do
    table.insert(found, redis.call(unpack(command)))
end
return found
"""
)

# KEYS: meta, lease, log, then COUNTED. ARGV: cluster, revision, mark, the lengths as read, token or
# '', commands as JSON, channel, new mark, touched as JSON, how many writes the log keeps, touched
# of NEWER as JSON -> 1, 0: read again, -1: the token is not the lease's.
COMMIT = (
    LENGTHS
    + """
local stands = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark')
if stands[1] ~= ARGV[1] or stands[2] ~= ARGV[2] or stands[3] ~= ARGV[3] then return 0 end
if lengths(4) ~= ARGV[4] then return 0 end
if ARGV[5] ~= '' then
    local held = redis.call('GET', KEYS[2])
    if not held or string.match(held, '^(%S+) ') ~= ARGV[5] then return -1 end
end
if ARGV[6] == '' then return 1 end
for _, command in ipairs(cjson.decode(ARGV[6])) do redis.call(unpack(command)) end
local revision = redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HSET', KEYS[1], 'mark', ARGV[8], 'held', ARGV[8] .. ' ' .. lengths(4))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[10], revision .. '-1',
    'mark', ARGV[8], 'touched', ARGV[9], 'newer', ARGV[11])
redis.call('PUBLISH', ARGV[7], revision)
return 1
"""
)

# KEYS: meta, log, then COUNTED. ARGV: cluster, revision, mark -> revision, mark, held, the lengths
# as they are, then hash, field and value of all that was written since; nothing: read all.
SINCE = (
    LENGTHS
    + """
local now = redis.call('HMGET', KEYS[1], 'cluster', 'revision', 'mark', 'held')
if now[1] ~= ARGV[1] then return {} end
local entries = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-1', '+')
if not entries[1] or entries[1][1] ~= ARGV[2] .. '-1' or entries[1][2][2] ~= ARGV[3] then
    return {}
end
local answer, seen = {now[2], now[3], now[4], lengths(3)}, {}
local function add(places)
    for _, place in ipairs(cjson.decode(places or '[]')) do
        local name = place[1] .. ' ' .. place[2]
        if not seen[name] then
            seen[name] = true
            table.insert(answer, place[1])
            table.insert(answer, place[2])
            table.insert(answer, redis.call('HGET', place[1], place[2]))
        end
    end
end
for at = 2, #entries do
    add(entries[at][2][4])
    add(entries[at][2][6])
end
return answer
"""
)

ATTEMPTS = 50
# At most so often: connections that are cut fail the calls that are on them.
RECONNECT_S = 1.0

Answer = TypeVar("Answer")


class RedisStore:
    """`url` as `redis_client` says; `timeout_s` bounds every command."""

    def __init__(
        self,
        url: str,
        access: RedisAccess | None,
        timeout_s: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.redis: Any = connect(url, access, timeout_s)
        self._timeout_s = timeout_s
        self._wall_clock = wall_clock
        self._writing = asyncio.Lock()
        self._reconnected_s = float("-inf")
        self._create = self.redis.register_script(CREATE)
        self._reads = self.redis.register_script(READ)
        self._commit = self.redis.register_script(COMMIT)
        self._since = self.redis.register_script(SINCE)

    async def close(self) -> None:
        await disconnect(self.redis)

    async def write(
        self, verb: Callable[[Transaction], Answer], token: FencingToken | None = None
    ) -> Answer:
        """As `WriteVerbs.write`. A verb that reads only what it expected costs one round trip to
        read and one to commit.
        """
        async with self.available(), self._turn():
            for _ in range(ATTEMPTS):
                transaction, answer = await self._run(verb)
                if not transaction.writes and token is None:
                    return answer
                done = await self._commit_if_it_stands(transaction, token)
                if done == -1:
                    raise StaleToken(
                        f"token {token} is not the lease's: take the lease and plan again"
                    )
                if done:
                    return answer
        raise _contended()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Writes of one process take turns, because each commit makes the others read again: of
        100 at once, 40 used up their attempts. Against other processes there are the attempts. The
        wait is bounded: if the server hangs, every call fails within twice the timeout.
        """
        async with asyncio.timeout(self._timeout_s):
            await self._writing.acquire()
        try:
            yield
        finally:
            self._writing.release()

    async def _run(self, verb: Callable[[Transaction], Answer]) -> tuple[RedisTransaction, Answer]:
        """Runs the verb, reads what it lacked and runs it again, until all that it read is of one
        revision. A verb is pure, so running it again does no harm.
        """
        stand, replies = UNREAD, dict[Read, Any]()
        for _ in range(ATTEMPTS):
            transaction = RedisTransaction(stand, replies)
            try:
                answer = verb(transaction)
                if stand is UNREAD:  # it only writes; at which revision?
                    raise NotRead(())
                return transaction, answer
            except NotRead as unread:
                now, more = await self._read(unread.reads)
                replies = {**replies, **more} if now == stand else more
                stand = now
        raise _contended()

    async def _read(self, reads: Sequence[Read]) -> tuple[Stand, dict[Read, Any]]:
        """As `read`, without the errors of `available`."""
        found, lengths, replies = await self.read_unchecked(reads)
        stand = checked(found, lengths)
        if stand is None:
            await self.create()
            return await self._read(reads)
        return stand, dict(zip(reads, replies, strict=True))

    async def read_unchecked(
        self, reads: Sequence[Read]
    ) -> tuple[list[str | None], str, list[Any]]:
        """Runs commands that read, all at one revision. Returns cluster, revision, mark and held of
        META, the lengths of the hashes, and the replies.
        """
        answer = await self._reads(keys=[META, *COUNTED], args=[json.dumps(reads)])
        (*found, lengths), replies = answer[:5], answer[5:]
        return (
            found,
            lengths,
            [_reply(read, reply) for read, reply in zip(reads, replies, strict=True)],
        )

    async def _commit_if_it_stands(
        self, transaction: RedisTransaction, token: FencingToken | None
    ) -> int:
        """As the script COMMIT."""
        commands = commands_of(transaction.writes, transaction.replies)
        # The fields of desired state that the commands write.
        touched = [command[1:3] for command in commands if command[1] in LOGGED]
        known = [place for place in touched if place[0] not in NEWER]
        newer = [place for place in touched if place[0] in NEWER]
        arguments: list[str | int] = [
            *(*transaction.stand, str(token or "")),
            json.dumps(commands) if commands else "",
            *(CHANGES, a_mark(), json.dumps(known), LOG_KEPT, json.dumps(newer)),
        ]
        done: int = await self._commit(keys=[META, LEASE, LOG, *COUNTED], args=arguments)
        return done

    async def read(self, reads: Sequence[Read]) -> tuple[Stand, dict[Read, Any]]:
        """Reads in one round trip, all at one revision. A store that an earlier release wrote is
        marked first. Raises StoreEmptied, StoreDamaged and RegistryUnavailable.
        """
        async with self.available():
            return await self._read(reads)

    async def stand(self) -> Stand:
        """The present revision. Raises as `read`."""
        return (await self.read([]))[0]

    async def cluster(self) -> str:
        """The cluster id; empty if there is none."""
        async with self.available():
            return await self.redis.hget(META, "cluster") or ""

    async def create(self) -> str:
        """Draws a cluster id, log, mark and lengths where they lack. Returns the cluster id. Raises
        StoreDamaged if the id is lost and models are not.
        """
        async with self.available():
            arguments: list[str | int] = [uuid4().hex, self.now_ms(), a_mark()]
            cluster: str = await self._create(keys=[META, LOG, *COUNTED], args=arguments)
        if not cluster:
            raise StoreDamaged(["its cluster id"])
        return cluster

    async def since(self, known: Stand) -> list[str | None]:
        """As the script SINCE, without the lengths. Raises StoreDamaged."""
        async with self.available():
            found: list[str | None] = await self._since(keys=[META, LOG, *COUNTED], args=known[:3])
        if not found:
            return []
        revision, mark, held, lengths, *fields = found
        checked([known.cluster, revision, mark, held], lengths or "")
        return [revision, mark, *fields]

    def now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    @asynccontextmanager
    async def available(self) -> AsyncIterator[None]:
        """Turns errors of the client or the server into RegistryUnavailable, and a refusal to write
        into RegistryRefusesWrites. A server that became a replica is left: the next call connects
        anew, to where the name or the sentinels lead then.
        """
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise RegistryUnavailable(
                    f"Redis does not answer ({type(error).__name__}: {error}): detection goes on "
                    "with what is loaded; check the server and try again"
                ) from error
            if refusal is READ_ONLY:
                await self._reconnect()
            raise RegistryRefusesWrites(
                f"Redis answers and refuses writes: {refusal}; detection goes on with what is "
                "loaded, and nothing can be changed until then"
            ) from error

    async def _reconnect(self) -> None:
        now = time.monotonic()
        if now - self._reconnected_s >= RECONNECT_S:
            self._reconnected_s = now
            with suppress(RedisError, OSError):
                await self.redis.connection_pool.disconnect()


def _reply(read: Read, reply: Any) -> Any:
    """A script answers HGETALL as a flat list."""
    if read[0] == "HGETALL":
        return dict(zip(reply[::2], reply[1::2], strict=True))
    return reply


def _contended() -> RegistryUnavailable:
    return RegistryUnavailable(f"others wrote {ATTEMPTS} times in between: try again")


def a_mark() -> str:
    return uuid4().hex[:12]


def milliseconds(seconds: float) -> int:
    """A time to live for Redis: at least 1 ms."""
    return max(1, int(seconds * 1000))
