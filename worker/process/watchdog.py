"""Ends a process whose device thread or event loop has hung, with the stacks of all threads logged.

A thread of its own, since neither of the two could tell. What was open is answered first, where
the event loop still can. Below it the interpreter's own timer, for a call that never gives the
interpreter lock back.
"""

import asyncio
import faulthandler
import os
import threading
from collections.abc import Callable

import structlog

from worker.concurrency.stall_detector import DeviceActivity, HangLimits, StallTimer
from worker.process.exit_status import HUNG

log = structlog.get_logger()
TICK_S = 0.25
# The descriptor: whatever the interpreter makes of its streams.
STDERR = 2
# For the event loop to answer what is open and to tell the control planes.
LAST_WORDS_S = 0.5
# For the stacks to be written.
WRITING_S = 2.0
# Nothing in Python has run for so long: not even this thread. It counts the time in which a process
# was frozen too, so it is longer than anybody freezes one.
LOCKED_S, ARM_EVERY_S = 600.0, 5.0


class Watchdog:
    """`running`: what the device thread does now, on any thread. `hung` is called on the event loop
    with the reason, and should answer whoever waits; `die` ends the process.
    """

    def __init__(
        self,
        running: Callable[[], DeviceActivity | None],
        bounds: HangLimits,
        hung: Callable[[str], None],
        clock: Callable[[], float],
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self._running = running
        self._bounds = bounds
        self._hung = hung
        self._die = die
        self._clock = clock
        self._beats = 0
        self._beat_seen = True
        self._device, self._loop_stands = StallTimer(2 * TICK_S), StallTimer(2 * TICK_S)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watches the running event loop, and the device thread."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._watch, args=(loop,), name="watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Watches no more; what ends now may take its time."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        armed = -ARM_EVERY_S
        while not self._end.wait(TICK_S):
            now = self._clock()
            if now - armed >= ARM_EVERY_S:
                armed = now
                faulthandler.dump_traceback_later(LOCKED_S, exit=True, file=STDERR)
            if self._beat_seen:
                self._beat_seen = False
                loop.call_soon_threadsafe(self._beat)
            why = self._look(now)
            if why:
                self._give_up(why, loop)
                return

    def _beat(self) -> None:
        self._beats += 1
        self._beat_seen = True

    def _look(self, now: float) -> str:
        """What has hung; empty: nothing."""
        running = self._running()
        stood_s = self._device.look(running, now)
        if running is not None and stood_s > (limit_s := self._bounds.limit_s(running)):
            return f"{running.what} has run for {stood_s:.1f} s, {limit_s:.1f} s may be"
        stood_s = self._loop_stands.look(self._beats, now)
        if stood_s > self._bounds.floor_s:
            return f"the event loop has stood for {stood_s:.1f} s"
        return ""

    def _give_up(self, why: str, loop: asyncio.AbstractEventLoop) -> None:
        # First: nobody may be reading what is written from here on.
        end = threading.Timer(LAST_WORDS_S + WRITING_S, self._die, (HUNG,))
        end.daemon = True
        end.start()
        log.error("hung: this process ends, the stacks of its threads follow", why=why)
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        loop.call_soon_threadsafe(self._hung, why)
        self._end.wait(LAST_WORDS_S)
        end.cancel()
        self._die(HUNG)
