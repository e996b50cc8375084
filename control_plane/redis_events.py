"""The events of the fleet as one capped stream: what the registry's verbs of events do."""

from collections.abc import Iterable, Mapping

from control_plane.store import codec
from control_plane.store.redis_store import EVENTS, RedisStore, available, milliseconds
from control_plane.types.event import EVENTS_KEPT, Event

FIELD = "event"


class RedisEvents:
    """`timeout_s` bounds every command of the store: a read that waits, waits half of it."""

    def __init__(self, store: RedisStore, timeout_s: float) -> None:
        self._redis = store.redis
        self._longest_wait_s = timeout_s / 2

    async def append(self, event: Event) -> str:
        entry = {FIELD: codec.event_to(event)}
        async with available():
            kept: str = await self._redis.xadd(EVENTS, entry, maxlen=EVENTS_KEPT, approximate=True)
        return kept

    async def read(self, after: str, last: int) -> tuple[Event, ...]:
        begin = f"({after}" if after else "-"
        async with available():
            if last:
                newest = await self._redis.xrevrange(EVENTS, min=begin, count=last)
                return _events(reversed(newest))
            return _events(await self._redis.xrange(EVENTS, min=begin))

    async def wait(self, after: str, wait_s: float) -> tuple[Event, ...]:
        wait_ms = milliseconds(min(wait_s, self._longest_wait_s))
        async with available():
            found = await self._redis.xread({EVENTS: after or "0-0"}, block=wait_ms)
        return _events(entry for _, entries in found for entry in entries)


def _events(entries: Iterable[tuple[str, Mapping[str, str]]]) -> tuple[Event, ...]:
    return tuple(codec.event_of(id_, fields[FIELD]) for id_, fields in entries)
