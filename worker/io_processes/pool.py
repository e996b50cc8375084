"""Starts the I/O processes of a worker, restarts those that die, and ends those that hang.

A process that dies loses only its own calls: it has its own memory, which is released when no batch
reads it any more. A process hangs if it answers no ping, or works on one image for too long.
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
from functools import partial

import structlog

from worker.concurrency.stall_detector import StallTimer
from worker.concurrency.thread_times import ThreadClock
from worker.io_processes import protocol
from worker.io_processes.calls import Infer, IoConnection
from worker.io_processes.protocol import IoSettings, MessageKind
from worker.preprocess import arena
from worker.process.exit_status import describe_exit
from worker.process.restart_policy import Restart, after_exit
from yolopool.server.time_limits import ends_within

log = structlog.get_logger()
CLOSING_S = 1.0
START_S = 30.0
# How long open calls may still take when a process ends.
LAST_ANSWERS_S = 0.2
PING_S = 1.0


@dataclass(frozen=True, slots=True)
class IoExit:
    """An I/O process that ended by itself. `id` is unique to the process, and `requests` are the
    ids of the requests whose images it was preparing.
    """

    id: str
    ended: str
    requests: tuple[str, ...]
    ran_s: float
    restart: Restart


class IoProcessPool:
    """`count` processes, each with an arena of `memory_bytes`; `settings(i)` are those of number i.

    `changed` is called when a process starts or stops listening. `report` is called for each one
    that ended by itself, and nobody waits for it. A process that hangs for `hang_s` is ended.
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
        """Returns when all processes listen. Raises OSError if one does not."""
        first: list[asyncio.Future[None]] = [asyncio.Future() for _ in range(self._count)]
        self._tasks = [
            asyncio.create_task(self._keep(number, ready), name=f"io-{number}")
            for number, ready in enumerate(first)
        ]
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*first)
        except TimeoutError as error:
            raise OSError(
                f"only {len(self.ports)} of {self._count} I/O processes listen"
            ) from error

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
            except OSError as error:  # out of memory or process ids: it may pass
                ended = str(error)
            ran_s = self._clock() - began
            restart = after_exit(attempt, ran_s)
            attempt = restart.attempt
            log.error(
                "I/O process ended, restarting it",
                number=number,
                ended=ended,
                in_flight=len(requests),
                restart_in_s=restart.delay_s,
            )
            exit = IoExit(uuid.uuid4().hex, ended, requests, ran_s, restart)
            reporting = asyncio.ensure_future(self._report(exit))
            self._reporting.add(reporting)
            reporting.add_done_callback(self._reporting.discard)
            await asyncio.sleep(restart.delay_s)

    async def _run(self, number: int, ready: "asyncio.Future[None]") -> tuple[str, tuple[str, ...]]:
        """Runs one process; returns how it ended, and the requests that were in flight."""
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
            if await self._hangs(calls, process.pid):
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGABRT)  # it dumps its stacks
                calls.frames.close()
                await calls.lost.wait()
                await _ended(process)
                return "hung", calls.in_flight
            return describe_exit(await _ended(process)), calls.in_flight
        finally:
            self.pids.pop(number, None)
            if self.ports.pop(number, None) is not None:
                self._changed()
            await calls.end(LAST_ANSWERS_S)
            await _ended(process)
            calls.frames.close()

    async def _hangs(self, calls: IoConnection, pid: int) -> bool:
        """Returns True when the process hangs, and False when its connection is lost. Time in which
        it waits for a processor does not count.
        """
        answers, image = StallTimer(2 * PING_S), StallTimer(2 * PING_S)
        threads = ThreadClock(pid)
        while not calls.lost.is_set():
            calls.frames.send(MessageKind.PING)
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await calls.lost.wait()
            now = self._clock()
            spent = partial(threads.look(), lambda thread: True)
            silent_s = answers.look(calls.pongs, now, spent)
            same_s = image.look(calls.oldest, now, spent)
            if max(silent_s, same_s if calls.oldest else 0.0) > self._hang_s:
                return not calls.lost.is_set()
        return False


async def _listening(calls: IoConnection) -> int:
    """Its port; 0 if the connection was lost. Raises OSError if it takes too long."""
    try:
        async with asyncio.timeout(START_S):
            return await calls.listening
    except TimeoutError:
        raise OSError(f"it did not listen within {START_S:g} s") from None


async def _ended(process: Process) -> int | None:
    """Waits for the process, which ends once its connection is closed, or kills it."""
    if not await ends_within(process.wait(), CLOSING_S):
        process.kill()
    return await process.wait()
