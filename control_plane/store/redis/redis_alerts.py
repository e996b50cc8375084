"""`AlertRecords` in Redis: a hash of alerts, and one of what control planes tell."""

import json
from collections.abc import Collection, Mapping

from control_plane.store.redis.redis_keys import ALERT_READINGS, ALERT_STATES, LEASE
from control_plane.store.redis.redis_store import RedisStore
from control_plane.types.lease import FencingToken
from yolopool.errors import StaleToken

# KEYS: lease, states. ARGV: token or '', what changes as JSON (key -> text, false: gone) -> 1, 0:
# the token is not the lease's.
PUT = """
if ARGV[1] ~= '' then
    local held = redis.call('GET', KEYS[1])
    if not held or string.match(held, '^(%S+) ') ~= ARGV[1] then return 0 end
end
for key, text in pairs(cjson.decode(ARGV[2])) do
    if not text then
        if ARGV[1] ~= '' then redis.call('HDEL', KEYS[2], key) end
    else
        local held = ARGV[1] == '' and redis.call('HGET', KEYS[2], key)
        if not held
            or cjson.decode(text).changed_unix_s > cjson.decode(held).changed_unix_s then
            redis.call('HSET', KEYS[2], key, text)
        end
    end
end
return 1
"""


class RedisAlertRecords:
    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._put = store.redis.register_script(PUT)

    async def tell(self, plane: str, text: str, drop: Collection[str] = ()) -> Mapping[str, str]:
        async with self._store.available():
            pipe = self._store.redis.pipeline(transaction=False)
            gone = [*drop, *([] if text else [plane])]
            if gone:
                pipe.hdel(ALERT_READINGS, *gone)
            if text:
                pipe.hset(ALERT_READINGS, plane, text)
            pipe.hgetall(ALERT_READINGS)
            found: Mapping[str, str] = (await pipe.execute())[-1]
        return found

    async def states(self) -> Mapping[str, str]:
        async with self._store.available():
            found: Mapping[str, str] = await self._store.redis.hgetall(ALERT_STATES)
        return found

    async def put_states(
        self, changes: Mapping[str, str | None], token: FencingToken | None
    ) -> None:
        if not changes:
            return
        told = json.dumps({key: text or False for key, text in changes.items()})
        async with self._store.available():
            arguments = [str(token) if token is not None else "", told]
            done = await self._put(keys=[LEASE, ALERT_STATES], args=arguments)
        if not done:
            raise StaleToken(f"token {token} is not the lease's: another control plane leads")
