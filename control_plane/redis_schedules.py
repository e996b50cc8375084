"""Schedules in Redis: JSON by name in one hash, written as everything that is desired."""

from control_plane.store import codec
from control_plane.store.redis_store import SCHEDULES, Change, RedisStore
from control_plane.types.schedule import Schedule


class RedisSchedules:
    """As the registry promises of schedules; raises RegistryUnavailable."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def put(self, schedule: Schedule) -> Schedule:
        async def decide(change: Change) -> Schedule:
            old = await _read(change, schedule.name)
            if old is not None and old.same_request(schedule):
                return old
            return _put(change, schedule)

        return await self._store.write(decide)

    async def delete(self, name: str) -> bool:
        async def decide(change: Change) -> bool:
            if await _read(change, name) is None:
                return False
            change.commands.append(["HDEL", SCHEDULES, name])
            return True

        return await self._store.write(decide)

    async def note(self, name: str, last_unix_s: float, error: str) -> Schedule | None:
        async def decide(change: Change) -> Schedule | None:
            old = await _read(change, name)
            if old is None:
                return None
            new = old.noted(last_unix_s, error)
            return old if new == old else _put(change, new)

        return await self._store.write(decide)


async def _read(change: Change, name: str) -> Schedule | None:
    text = await change.redis.hget(SCHEDULES, name)
    return codec.schedule_of(text) if text is not None else None


def _put(change: Change, schedule: Schedule) -> Schedule:
    change.commands.append(["HSET", SCHEDULES, schedule.name, codec.schedule_to(schedule)])
    return schedule
