"""`Accounts` in Redis: a hash of parts, and a hash of usage for each day, which expires."""

import json
from collections.abc import Iterable, Mapping, Sequence

from control_plane.store.accounts import Taken
from control_plane.store.redis.redis_keys import PARTS, USAGE, USAGE_SEQUENCE
from control_plane.store.redis.redis_store import RedisStore
from control_plane.types.access.usage import DAYS_KEPT, Part, Parts, Usage

# A day of usage is kept for a day more than it is shown; a sequence while a call may be repeated.
USAGE_KEPT_S, SEQUENCE_KEPT_S = (DAYS_KEPT + 1) * 86_400, 3600
# Between the tenant and the measure in a field: no name has it.
_BETWEEN = "\n"

# KEYS: parts -> revision, then name and parts of each control plane whose parts are not expired.
READ = """
local time = redis.call('TIME')
local now, found = time[1] * 1000 + time[2] / 1000, {redis.call('HGET', KEYS[1], 'revision') or '0'}
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
    local ends = string.match(all[at + 1], '^(%d+) ')
    if ends and tonumber(ends) > now then
        table.insert(found, all[at])
        table.insert(found, (string.gsub(all[at + 1], '^%d+ ', '')))
    end
end
return found
"""

# KEYS: parts. ARGV: revision, control plane, its parts ('': none), ms -> 1: taken. A name has a
# colon before it, so that it is not the revision.
TAKE = """
if ARGV[1] ~= '' and (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local now = math.floor(time[1] * 1000 + time[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
    local ends = string.match(all[at + 1], '^(%d+) ')
    if ends and tonumber(ends) <= now then redis.call('HDEL', KEYS[1], all[at]) end
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[2])
else
    local ends = string.format('%.0f', now + tonumber(ARGV[4]))
    redis.call('HSET', KEYS[1], ARGV[2], ends .. ' ' .. ARGV[3])
end
redis.call('HINCRBY', KEYS[1], 'revision', 1)
return 1
"""

# KEYS: usage of the day, sequence of the control plane. ARGV: sequence, seconds that each is kept,
# then field and amount of each measure -> all of the day.
ADD = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[3])
    for at = 4, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[at], ARGV[at + 1]) end
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return redis.call('HGETALL', KEYS[1])
"""


class RedisAccounts:
    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._read, self._take, self._add = map(store.redis.register_script, (READ, TAKE, ADD))

    async def parts(self) -> Taken:
        async with self._store.available():
            revision, *found = await self._read(keys=[PARTS], args=[])
        pairs = zip(found[::2], found[1::2], strict=True)
        return Taken(int(revision), {name[1:]: _parts(text) for name, text in pairs})

    async def take_parts(self, plane: str, parts: Parts, revision: int, keep_s: float) -> bool:
        text = json.dumps({tenant: [*part] for tenant, part in parts.items()})
        args = [str(revision), f":{plane}", text, int(keep_s * 1000)]
        async with self._store.available():
            return bool(await self._take(keys=[PARTS], args=args))

    async def drop_parts(self, plane: str) -> None:
        async with self._store.available():
            await self._take(keys=[PARTS], args=["", f":{plane}", "", 0])

    async def add_usage(
        self, plane: str, sequence: int, day: str, used: Mapping[str, Usage]
    ) -> Mapping[str, Usage]:
        amounts = [
            word
            for tenant, usage in used.items()
            for measure in _MEASURES
            if (amount := getattr(usage, measure))
            for word in (f"{tenant}{_BETWEEN}{measure}", repr(amount))
        ]
        async with self._store.available():
            found = await self._add(
                keys=[USAGE + day, USAGE_SEQUENCE + plane],
                args=[sequence, USAGE_KEPT_S, SEQUENCE_KEPT_S, *amounts],
            )
        return _usage(zip(found[::2], found[1::2], strict=True))

    async def usage(self, days: Sequence[str]) -> Mapping[str, Mapping[str, Usage]]:
        async with self._store.available():
            pipe = self._store.redis.pipeline(transaction=False)
            for day in days:
                pipe.hgetall(USAGE + day)
            found = await pipe.execute()
        read = {day: _usage(of.items()) for day, of in zip(days, found, strict=True)}
        return {day: of for day, of in read.items() if of}

    async def drop_usage(self, tenant: str, days: Sequence[str]) -> int:
        names = [f"{tenant}{_BETWEEN}{measure}" for measure in _MEASURES]
        async with self._store.available():
            pipe = self._store.redis.pipeline(transaction=False)
            for day in days:
                pipe.hdel(USAGE + day, *names)
            return sum(bool(removed) for removed in await pipe.execute())


_MEASURES = tuple(Usage.__dataclass_fields__)


def _parts(text: str) -> Parts:
    # A newer release may tell more of a part.
    return {tenant: Part(*part[:2]) for tenant, part in json.loads(text).items()}


def _usage(fields: Iterable[tuple[str, str]]) -> dict[str, Usage]:
    found: dict[str, dict[str, float]] = {}
    for name, text in fields:
        tenant, _, measure = name.rpartition(_BETWEEN)
        if measure in _MEASURES:  # a newer release may count more
            found.setdefault(tenant, {})[measure] = float(text)
    return {
        tenant: Usage(
            round(of.get("refused", 0)),
            round(of.get("images", 0)),
            round(of.get("bytes", 0)),
            of.get("device_s", 0.0),
            of.get("gb_hours", 0.0),
        )
        for tenant, of in found.items()
    }
