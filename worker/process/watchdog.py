"""Ends a process whose device thread or event loop hangs or died, or whose device failed, and logs
all threads' stacks.

It runs on a thread of its own. If the event loop still runs, it first fails the open requests. Time
in which a busy host leaves the process no processor does not count as a hang. If a call never
releases the interpreter lock, this thread can't run either: then the interpreter's own timer
(faulthandler) ends the process.
"""

import asyncio
import faulthandler
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from worker.concurrency.stall_detector import DeviceActivity, HangLimits, StallTimer
from worker.concurrency.thread_times import Spent, ThreadClock
from worker.process.exit_status import HUNG, STARVED

log = structlog.get_logger()
TICK_S = 0.25
# The descriptor, which works whatever state Python's streams are in.
STDERR = 2
# The time for the event loop to fail open requests and to report to the control planes.
REPLY_S = 0.5
# The time for writing the stacks.
DUMP_S = 2.0
# If this thread does not run for LOCKED_S, the interpreter's timer ends the process. The timer also
# counts the time in which the process was frozen, so it is longer than anybody freezes one.
LOCKED_S, ARM_EVERY_S = 600.0, 5.0
# The threads are looked at only when something takes longer than this.
SHORT_S = 1.0
# Python's threads that work for the device, by name; libraries' own threads may work for it too.
WORKING = frozenset({"device", "finish", "load"})
# Those of them that must not end.
VITAL = frozenset({"device", "finish"})


class Watchdog:
    """`running` return what the device thread, and others that work for it, do now; they may be
    called on any thread. `hung` is called on the event loop with the reason and the exit status,
    and should fail the open requests. `die` ends the process.
    """

    def __init__(
        self,
        running: Sequence[Callable[[], DeviceActivity | None]],
        limits: HangLimits,
        hung: Callable[[str, int], None],
        clock: Callable[[], float],
        die: Callable[[int], object] = os._exit,
    ) -> None:
        self._running = running
        self._limits = limits
        self._hung = hung
        self._die = die
        self._clock = clock
        self._beats = 0
        self._beat_seen = True
        self._stalls = tuple(StallTimer(2 * TICK_S) for _ in running)
        self._loop_stall = StallTimer(2 * TICK_S)
        self._threads = ThreadClock()
        self._loop_thread = 0
        # A vital thread that ended by a bug.
        self._dead = ""
        # Why somebody else gave the process up, and its exit status.
        self._given_up: tuple[str, int] | None = None
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watches the running event loop and the device thread."""
        loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_native_id()
        threading.excepthook = self._thread_ended
        self._thread = threading.Thread(
            target=self._watch, args=(loop,), name="watchdog", daemon=True
        )
        self._thread.start()

    def give_up(self, status: int, why: str) -> None:
        """Ends the process with that status; on any thread. What was said first counts."""
        self._given_up = self._given_up or (why, status)
        self._wake.set()

    def stop(self) -> None:
        """Stops watching: the end of the process may take its time."""
        self._end.set()
        self._wake.set()
        threading.excepthook = threading.__excepthook__
        if self._thread is not None:
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        armed = -ARM_EVERY_S
        while True:
            self._wake.wait(TICK_S)
            if self._end.is_set():
                return
            if self._given_up is not None:
                self._end_process(loop, *self._given_up)
                return
            now = self._clock()
            if now - armed >= ARM_EVERY_S:
                armed = now
                faulthandler.dump_traceback_later(LOCKED_S, exit=True, file=STDERR)
            if self._beat_seen:
                self._beat_seen = False
                loop.call_soon_threadsafe(self._beat)
            why, stall = self._check(now)
            if stall is not None:
                self._end_process(loop, why, STARVED if stall.is_starved else HUNG)
                return

    def _thread_ended(self, error: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(error)
        if error.thread is not None and error.thread.name in VITAL:
            self._dead = error.thread.name

    def _beat(self) -> None:
        self._beats += 1
        self._beat_seen = True

    def _check(self, now: float) -> tuple[str, StallTimer | None]:
        """What hangs, and its timer; None if nothing does."""
        if self._dead:
            return f"the {self._dead} thread ended by an error", self._loop_stall
        spent = self._spent()
        others = {t.native_id for t in threading.enumerate() if t.name not in WORKING}
        working = partial(spent, lambda thread: thread not in others)
        for running, stall in zip(self._running, self._stalls, strict=True):
            activity = running()
            stalled_s = stall.look(activity, now, working)
            if activity is not None and stalled_s > (limit_s := self._limits.limit_s(activity)):
                return (
                    f"{activity.what} has run for {stalled_s:.1f} s (and waited "
                    f"{stall.excused_s:.1f} s for a processor), and {limit_s:.1f} s are allowed"
                ), stall
        looping = partial(spent, lambda thread: thread == self._loop_thread)
        stalled_s = self._loop_stall.look(self._beats, now, looping)
        if stalled_s > self._limits.floor_s:
            return f"the event loop has not run for {stalled_s:.1f} s", self._loop_stall
        return "", None

    def _spent(self) -> Callable[[Callable[[int], bool], float], Spent]:
        """What threads did since the last look; see `ThreadClock.look`."""
        if max(stall.stalled_s for stall in (*self._stalls, self._loop_stall)) >= SHORT_S:
            return self._threads.look()
        self._threads.reset()
        return lambda is_working, elapsed_s: Spent(0.0, 0.0)

    def _end_process(self, loop: asyncio.AbstractEventLoop, why: str, status: int) -> None:
        # Started first, since the writes to stderr below may block.
        end = threading.Timer(REPLY_S + DUMP_S, self._die, (status,))
        end.daemon = True
        end.start()
        log.error("this process ends, the stacks of its threads follow", why=why)
        faulthandler.dump_traceback(file=STDERR, all_threads=True)
        loop.call_soon_threadsafe(self._hung, why, status)
        self._end.wait(REPLY_S)
        end.cancel()
        self._die(status)
