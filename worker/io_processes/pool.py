"""The I/O processes of a worker: started, started again when they die, and ended with it.

One that dies loses its own calls alone: its memory is its own, and goes once no batch reads it. One
that hangs is ended: it does not answer, or is at one image for too long.
"""

import asyncio
import os
import signal
import socket
import sys
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from worker.concurrency.stall_detector import StallTimer
from worker.io_processes import protocol
from worker.io_processes.calls import Infer, IoConnection
from worker.io_processes.protocol import IoSettings, MessageKind
from worker.preprocess import arena
from worker.process.exit_status import describe_exit
from worker.process.restart_policy import Restart, after_exit

log = structlog.get_logger()
CLOSING_S = 1.0
START_S = 30.0
# For the last answers, beside what it takes to send them.
LAST_ANSWERS_S = 0.2
PING_S = 1.0


@dataclass(frozen=True, slots=True)
class IoExit:
    """How one of them ended by itself: `id` is of this process alone, `requests` are those whose
    images it had.
    """

    id: str
    ended: str
    requests: tuple[str, ...]
    ran_s: float
    restart: Restart


class IoProcessPool:
    """`count` of them, each with an arena of `memory_bytes`. `settings(i)`: those of the one with
    this number. `changed` is called when one listens, or does no longer; `report` passes on how one
    ended by itself, and is not waited for. One that stands for `hang_s` is ended.
    """

    def __init__(
        self,
        count: int,
        settings: Callable[[int], IoSettings],
        memory_bytes: int,
        infer: Infer,
        changed: Callable[[], None],
        report: Callable[[IoExit], Awaitable[None]],
        hang_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.ports: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self._count = count
        self._settings = settings
        self._memory_bytes = memory_bytes
        self._infer = infer
        self._changed = changed
        self._report = report
        self._reporting: set[asyncio.Future[None]] = set()
        self._hang_s = hang_s
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
            began = self._clock()
            requests: tuple[str, ...] = ()
            try:
                ended, requests = await self._run(number, ready)
            except OSError as error:  # no memory or process number left: it may pass
                ended = str(error)
            ran_s = self._clock() - began
            restart = after_exit(attempt, ran_s)
            attempt = restart.attempt
            log.error(
                "I/O process ended, starting it again",
                number=number,
                ended=ended,
                in_hand=len(requests),
                restart_in_s=restart.delay_s,
            )
            exit = IoExit(uuid.uuid4().hex, ended, requests, ran_s, restart)
            reporting = asyncio.ensure_future(self._report(exit))
            self._reporting.add(reporting)
            reporting.add_done_callback(self._reporting.discard)
            await asyncio.sleep(restart.delay_s)

    async def _run(self, number: int, ready: "asyncio.Future[None]") -> tuple[str, tuple[str, ...]]:
        """One process from start to end; says how it ended, and what it had in hand."""
        settings = self._settings(number)
        ours, theirs = socket.socketpair()
        with theirs:
            memory = arena.shared(self._memory_bytes)
            try:
                calls = IoConnection(self._infer, memory, settings.capacity)
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: calls.frames, sock=ours)
                process = await asyncio.create_subprocess_exec(
                    *(
                        sys.executable,
                        "-m",
                        "worker.io_processes.server",
                        str(theirs.fileno()),
                        str(memory),
                    ),
                    pass_fds=(theirs.fileno(), memory),
                    stdin=DEVNULL,
                )
            finally:
                os.close(memory)
        try:
            calls.frames.send(MessageKind.START, 0, protocol.pack_settings(settings))
            if port := await _listening(calls):
                self.ports[number] = port
                self.pids[number] = process.pid
                log.info("I/O process listens", number=number, port=self.ports[number])
                self._changed()
                if not ready.done():
                    ready.set_result(None)
            if await self._hangs(calls):
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGABRT)  # it writes its stacks down
                calls.frames.close()
                await calls.lost.wait()
                await _ended(process)
                return "hung", calls.in_hand
            return describe_exit(await _ended(process)), calls.in_hand
        finally:
            self.pids.pop(number, None)
            if self.ports.pop(number, None) is not None:
                self._changed()
            await calls.end(LAST_ANSWERS_S)
            await _ended(process)
            calls.frames.close()

    async def _hangs(self, calls: IoConnection) -> bool:
        """Returns when the process is lost, or stands."""
        answers, image = StallTimer(2 * PING_S), StallTimer(2 * PING_S)
        while not calls.lost.is_set():
            calls.frames.send(MessageKind.PING)
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await calls.lost.wait()
            now = self._clock()
            silent_s, same_s = answers.look(calls.pongs, now), image.look(calls.oldest, now)
            if max(silent_s, same_s if calls.oldest else 0.0) > self._hang_s:
                return not calls.lost.is_set()
        return False


async def _listening(calls: IoConnection) -> int:
    """Its port; 0: it was lost. OSError if it takes too long."""
    try:
        async with asyncio.timeout(START_S):
            return await calls.listening
    except TimeoutError:
        raise OSError(f"it did not listen within {START_S:g} s") from None


async def _ended(process: Process) -> int | None:
    """Its status; it ends by itself once its connection is closed, or is killed."""
    try:
        async with asyncio.timeout(CLOSING_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()
