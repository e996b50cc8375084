"""The events of `MemoryRegistry`."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from control_plane.types.event import EVENTS_KEPT, Event

Order = tuple[int, int]


class MemoryEvents:
    """A capped list. Ids are milliseconds of `wall_clock` and a count, as in a Redis stream."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._kept: deque[tuple[Order, Event]] = deque(maxlen=EVENTS_KEPT)
        self._newest: Order = (0, 0)
        self._appended = asyncio.Event()

    def append(self, event: Event) -> str:
        now_ms, (ms, count) = int(self._wall_clock() * 1000), self._newest
        # It grows even if the clock does not.
        self._newest = (now_ms, 0) if now_ms > ms else (ms, count + 1)
        id_ = f"{self._newest[0]}-{self._newest[1]}"
        self._kept.append((self._newest, replace(event, id=id_)))
        appended, self._appended = self._appended, asyncio.Event()
        appended.set()
        return id_

    def read(self, after: str, last: int) -> tuple[Event, ...]:
        begin = _order(after)
        found = tuple(event for order, event in self._kept if order > begin)
        return found[-last:] if last else found

    async def wait(self, after: str, wait_s: float) -> tuple[Event, ...]:
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    appended = self._appended  # taken before the read, so that no event is missed
                    if found := self.read(after, 0):
                        return found
                    await appended.wait()
        except TimeoutError:
            return ()


def _order(id_: str) -> Order:
    if not id_:
        return (0, 0)
    ms, _, count = id_.partition("-")
    return int(ms), int(count or 0)
