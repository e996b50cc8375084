"""The leader's lease in Redis: who may change the fleet, under which fencing token.

A token is higher than every earlier one, also than those of another store that the workers obeyed.
"""

from control_plane.store.redis.redis_keys import LEASE, META
from control_plane.store.redis.redis_store import RedisStore, milliseconds
from control_plane.store.registry import StoreEmptied
from control_plane.types.lease import FencingToken, Leader

# ARGV: holder, lease ms, above epoch, above counter, wall clock ms, address -> token, '': another
# holds it, '-': there is no store. The counter is no less than the milliseconds since the epoch: a
# follower that took over without the last tokens gives none of them out again.
TAKE_LEASE = """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '')
if not epoch then return '-' end
local held = redis.call('GET', KEYS[2])
if held and string.match(held, '^%S+ (%S+)') ~= ARGV[1] then return '' end
local counter = tonumber(redis.call('HGET', KEYS[1], 'counter'))
local above_epoch, above_counter = tonumber(ARGV[3]), tonumber(ARGV[4])
if above_epoch > epoch then epoch = math.max(tonumber(ARGV[5]), above_epoch + 1) end
counter = math.max(counter + 1, above_counter + 1, tonumber(ARGV[5]) - epoch)
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch),
    'counter', string.format('%.0f', counter))
local token = string.format('%.0f.%.0f', epoch, counter)
redis.call('SET', KEYS[2], token .. ' ' .. ARGV[1] .. ' ' .. ARGV[6], 'PX', ARGV[2])
return token
"""

# ARGV: token, lease ms (0: drop) -> 1 if it was held.
KEEP_LEASE = """
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^(%S+) ') ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""


class RedisLease:
    """What `LeaseStore` promises. Raises RegistryUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._take = store.redis.register_script(TAKE_LEASE)
        self._keep = store.redis.register_script(KEEP_LEASE)

    async def take(
        self, leader: str, lease_s: float, above: FencingToken | None, address: str
    ) -> FencingToken | None:
        above = above or FencingToken(0, 0)
        async with self._store.available():
            arguments: list[str | int] = [
                leader,
                milliseconds(lease_s),
                above.epoch,
                above.counter,
                self._store.now_ms(),
                address,
            ]
            token = await self._take(keys=[META, LEASE], args=arguments)
        if token == "-":
            raise StoreEmptied
        return _token_of(token) if token else None

    async def keep(self, token: FencingToken, lease_s: float) -> bool:
        async with self._store.available():
            held = await self._keep(keys=[LEASE], args=[str(token), milliseconds(lease_s)])
        return bool(held)

    async def drop(self, token: FencingToken) -> None:
        async with self._store.available():
            await self._keep(keys=[LEASE], args=[str(token), 0])

    async def leader(self) -> Leader | None:
        async with self._store.available():
            held = await self._store.redis.get(LEASE)
        if held is None:
            return None
        token, name, *address = held.split(" ")
        return Leader(name, _token_of(token), address[0] if address else "")


def _token_of(text: str) -> FencingToken:
    epoch, _, counter = text.partition(".")
    return FencingToken(int(epoch), int(counter))
