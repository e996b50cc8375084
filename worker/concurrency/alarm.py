"""Rings once at a moment of a clock, on the event loop."""

import asyncio
from collections.abc import Callable


class Alarm:
    """A new moment replaces the last."""

    def __init__(self, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._ring = ring
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def set(self, moment: float) -> None:
        self.cancel()
        delay_s = max(0.0, moment - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
