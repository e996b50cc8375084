"""The I/O processes of a worker: started, started again when they die, and ended with it.

One that dies loses its own calls alone: its memory is its own, and goes once no batch reads it.
"""

import asyncio
import os
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable

import structlog

from worker import arena, io_link
from worker.io_calls import Infer, IoCalls
from worker.io_link import IoSettings, Kind
from worker.supervisor import after_exit

log = structlog.get_logger()
CLOSING_S = 1.0
START_S = 30.0


class IoProcesses:
    """`count` of them, each with an arena of `memory_bytes`. `settings(i)`: those of the one with
    this number. `changed` is called when one listens, or does no longer.
    """

    def __init__(
        self,
        count: int,
        settings: Callable[[int], IoSettings],
        memory_bytes: int,
        infer: Infer,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ports: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self._count = count
        self._settings = settings
        self._memory_bytes = memory_bytes
        self._infer = infer
        self._changed = changed
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when all listen; OSError if one does not."""
        first: list[asyncio.Future[None]] = [asyncio.Future() for _ in range(self._count)]
        self._tasks = [
            asyncio.create_task(self._keep(number, ready), name=f"io-{number}")
            for number, ready in enumerate(first)
        ]
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*first)
        except TimeoutError as error:
            raise OSError(f"{len(self.ports)} of {self._count} I/O processes listen") from error

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, number: int, ready: "asyncio.Future[None]") -> None:
        attempt = 0
        while True:
            began, why = self._clock(), ""
            try:
                why = await self._run(number, ready)
            except OSError as error:  # no memory or process number left: it may pass
                why = str(error)
            restart = after_exit(attempt, self._clock() - began)
            attempt = restart.attempt
            log.error(
                "I/O process ended, starting it again",
                number=number,
                ended=why,
                restart_in_s=restart.delay_s,
            )
            await asyncio.sleep(restart.delay_s)

    async def _run(self, number: int, ready: "asyncio.Future[None]") -> str:
        """One process from start to end; says how it ended."""
        settings = self._settings(number)
        ours, theirs = socket.socketpair()
        with theirs:
            memory = arena.shared(self._memory_bytes)
            try:
                calls = IoCalls(self._infer, memory, settings.capacity)
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: calls.frames, sock=ours)
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "worker.io_process", str(theirs.fileno()), str(memory)),
                    pass_fds=(theirs.fileno(), memory),
                    stdin=DEVNULL,
                )
            finally:
                os.close(memory)
        try:
            calls.frames.send(Kind.START, 0, io_link.pack_settings(settings))
            if port := await calls.listening:
                self.ports[number] = port
                self.pids[number] = process.pid
                log.info("I/O process listens", number=number, port=self.ports[number])
                self._changed()
                if not ready.done():
                    ready.set_result(None)
            await calls.lost.wait()
            return f"exit status {await _ended(process)}"
        finally:
            self.pids.pop(number, None)
            if self.ports.pop(number, None) is not None:
                self._changed()
            calls.frames.close()
            await _ended(process)


async def _ended(process: Process) -> int | None:
    """Its status; it ends by itself once its connection is closed, or is killed."""
    try:
        async with asyncio.timeout(CLOSING_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
