"""The bytes of requests that a process holds, whichever door they came by."""

import asyncio
from collections import deque

# The C library keeps what large requests leave behind; small ones take the same room again.
LARGE_BYTES = 256 * 1024


class ByteBudget:
    """`take` before bytes are kept, `give` them back. One who can wait asks for `room`, in turn."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        # Large requests that ended, and how many of them somebody saw.
        self._ended = self._seen = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take(self, count: int) -> bool:
        """False: there is no room for so many, and none were taken."""
        if self.taken_bytes + count > self.limit_bytes:
            return False
        self.taken_bytes += count
        return True

    def give(self, count: int) -> None:
        self.taken_bytes -= count
        self._ended += count >= LARGE_BYTES
        while self._waiting:
            wanted, waiter = self._waiting[0]
            if not waiter.done() and not self._take_in_turn(wanted):
                return
            self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def left(self) -> None:
        """A request ended before it was here: nobody knows how many bytes had come of it."""
        self._ended += 1

    def large_ones_ended(self) -> bool:
        """Whether there were large requests, and none has ended since this was asked before."""
        is_over = 0 < self._ended == self._seen
        self._ended, self._seen = (0, 0) if is_over else (self._ended, self._ended)
        return is_over

    async def room(self, count: int) -> None:
        """Takes so many once there is room, after those who asked before."""
        if not self._waiting and self._take_in_turn(count):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((count, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give(count)
            else:
                self.give(0)  # it may have stood before others
            raise

    def _take_in_turn(self, count: int) -> bool:
        """More than all of the budget gets all of it: it would wait for ever."""
        if self.taken_bytes and self.taken_bytes + count > self.limit_bytes:
            return False
        self.taken_bytes += count
        return True
