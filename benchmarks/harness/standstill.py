"""When the machine itself stood still, as a virtual one does while its host runs others.

A process a core, scheduled before all others, does nothing but sleep: a sleep that ends late was
the machine's doing. Who may not schedule so knows of no standstill, and leaves nothing out.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from benchmarks.harness.loadgen import Load, Outcome

PERIOD_S, LATE_S = 0.004, 0.005
START_LIMIT_S = 10.0
# The kernel's real-time priority; any is before all ordinary processes.
PRIORITY = 10
READY, REFUSED = "ready", "refused"
# From and until, seconds of time.monotonic.
Span = tuple[float, float]


class Standstills:
    """`async with Standstills() as stood`: `spans` has those since then, of any core."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.is_known = True
        self._processes: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Standstills":
        try:
            async with asyncio.timeout(START_LIMIT_S):
                for core in sorted(os.sched_getaffinity(0)):
                    await self._watch(core)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(*self._readers)

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._processes)

    async def _watch(self, core: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.harness.standstill", str(core)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        assert process.stdout is not None
        if (await process.stdout.readline()).decode().strip() != READY:
            self.is_known = False
        self._readers.append(asyncio.create_task(self._read(process.stdout)))

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            begin, end = map(float, line.split())
            self.spans.append((begin, end))


def undisturbed(load: Load, spans: Sequence[Span]) -> tuple[Outcome, ...]:
    """The measured requests that were not under way in a standstill, nor for as long behind it,
    while what it kept waiting is worked off.
    """
    busy = [(begin - load.began_s, 2 * end - begin - load.began_s) for begin, end in spans]
    return tuple(
        one
        for one in load.measured()
        if not any(begin < one.finished_s and one.intended_s < end for begin, end in busy)
    )


def stood_s(load: Load, spans: Sequence[Span]) -> float:
    """Seconds of the measured window in which a core stood still."""
    begin, end = (load.began_s + edge for edge in (load.window.begin_s, load.window.end_s))
    stood, at = 0.0, begin
    for first, last in sorted(spans):
        stood += max(0.0, min(last, end) - max(first, at))
        at = max(at, last)
    return stood


def watch(core: int) -> None:
    """A line of two times for each standstill, until it is killed."""
    os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        print(REFUSED, flush=True)
        return
    print(READY, flush=True)
    while True:
        began = time.monotonic()
        time.sleep(PERIOD_S)
        ended = time.monotonic()
        if ended - began - PERIOD_S > LATE_S:
            print(began + PERIOD_S, ended, flush=True)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
