"""The watchdog on a core that busy processes starve: a pass that works is let be, one that hangs
ends the process, and what it is said to have died of tells the two apart.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from tests.waiting import becomes
from worker.concurrency.stall_detector import DeviceActivity, HangLimits
from worker.process import watchdog
from worker.process.exit_status import HUNG, STARVED
from worker.process.watchdog import Watchdog

FLOOR_S = 0.8
# For a pass that is starved: the kernel tells of a wait when it is over, and on a host that is busy
# beside this test one may take a second.
STARVED_FLOOR_S = 1.6
# Processor time of that pass: a third of its bound, and on this core well above it by the clock.
WORK_S = 0.5
BUSY = 4
SPIN = (
    "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile 1: pass"
)


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Processes that keep one core busy."""
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", SPIN, str(core)], stdout=subprocess.PIPE)
        for _ in range(BUSY)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


class Device:
    """Does one thing, on a thread of the device's name and on one core."""

    def __init__(self, core: int, what: Callable[[], object]) -> None:
        self.done = threading.Event()
        self.took_s = 0.0
        self._activity: DeviceActivity | None = None
        self._core, self._what = core, what
        threading.Thread(target=self._run, name="device", daemon=True).start()

    def running(self) -> DeviceActivity | None:
        return self._activity

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._core})
        began = time.monotonic()
        self._activity = DeviceActivity("a pass of m@1", began, 0.01)
        self._what()
        self._activity = None
        self.took_s = time.monotonic() - began
        self.done.set()


@asynccontextmanager
async def watching(device: Device, floor_s: float = FLOOR_S) -> AsyncIterator[list[int]]:
    died: list[int] = []
    limits = HangLimits(floor_s, 60.0)
    watch = Watchdog(
        (device.running,), limits, lambda why, status: None, time.monotonic, died.append
    )
    watch.start()
    try:
        yield died
    finally:
        await asyncio.to_thread(watch.stop)


def work() -> None:
    while time.thread_time() < WORK_S:
        pass


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(watchdog, "SHORT_S", 0.1)
    return min(os.sched_getaffinity(0))


async def test_a_pass_that_is_starved_is_no_hang_and_one_that_sleeps_for_good_is(
    core: int,
) -> None:
    end = threading.Event()
    with busy(core):
        device = Device(core, work)
        async with watching(device, STARVED_FLOOR_S) as died:
            await asyncio.to_thread(device.done.wait)
            assert device.took_s > STARVED_FLOOR_S, "it was not starved"
            assert not died
        async with watching(Device(core, end.wait)) as died:
            await becomes(lambda: died == [HUNG])
    end.set()


async def test_a_pass_that_needs_more_than_it_may_is_ended_as_starved(
    core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = threading.Event()

    def never_done() -> None:
        while not end.is_set():
            pass

    with busy(core):
        async with watching(Device(core, never_done)) as died:
            async with asyncio.timeout(100):
                while not died:  # noqa: ASYNC110 - another thread's word
                    await asyncio.sleep(0.1)
            assert died == [STARVED]
    end.set()


async def test_a_device_thread_that_dies_ends_the_process() -> None:
    go_on = threading.Event()

    def dies() -> None:
        go_on.wait()
        raise KeyError("a bug")

    device = Device(min(os.sched_getaffinity(0)), dies)
    async with watching(device) as died:
        go_on.set()
        await becomes(lambda: died == [HUNG])
