"""One worker process as its supervisor sees it: its last output, and its flight record."""

import asyncio
import contextlib
import fcntl
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from worker.process import flight_recorder
from worker.process.exit_status import describe_exit, implicates
from yolopool.server.time_limits import ends_within

# How much of the last output is kept.
KEPT_BYTES = 8 * 1024
# Output is read at this interval, not line by line; more than so many bytes are read on at once.
PAUSE_S, BURST_BYTES = 0.2, 64 * 1024
# What the pipe holds meanwhile: the largest size that an unprivileged process may ask for.
PIPE_BYTES = 1024 * 1024
# How long the rest of the output is read after the process ended. Its children may hold the pipe
# open for longer.
REST_S = 2 * PAUSE_S


class OutputTail(asyncio.Protocol):
    """Passes on what a process writes into a pipe, and keeps the end of it. `ended` is set when
    nobody holds the pipe open for writing.
    """

    def __init__(self, pass_on: Callable[[bytes], object]) -> None:
        self.tail = b""
        self.ended = asyncio.Event()
        self._pass_on = pass_on
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport), "this is the reading end of a pipe"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None, "it is connected"
        self.tail = (self.tail + data)[-KEPT_BYTES:]
        self._pass_on(data)
        if len(data) < BURST_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE_S, self._transport.resume_reading)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()

    async def rest(self, limit_s: float) -> None:
        """Waits for the end of the output, at most for the limit, and stops reading."""
        assert self._transport is not None, "it is connected"
        await ends_within(self.ended.wait(), limit_s)
        self._transport.close()


class WorkerProcess:
    """Made by `await WorkerProcess.start(...)`. Its stderr is passed on to `output`, which never
    blocks, and the end of it is kept.
    """

    def __init__(self, process: Process, record: IO[bytes], output: OutputTail) -> None:
        self._process = process
        self._record = record
        self._output = output
        self._in_flight: tuple[str, tuple[str, ...]] = ("", ())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environ: Mapping[str, str],
        output: Callable[[bytes], object],
    ) -> "WorkerProcess":
        """Starts a process. Raises OSError."""
        # In memory: on a full disk, a write to a mapped file would kill the worker.
        record = os.fdopen(os.memfd_create("flight record"), "r+b")
        reading, writing = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environ, "YOLOPOOL_WORKER_BLACK_BOX": str(record.fileno())},
                stdin=DEVNULL,
                stderr=writing,
                pass_fds=(record.fileno(),),
            )
        except BaseException:
            os.close(reading)
            record.close()
            raise
        finally:
            os.close(writing)
        _, tail = await asyncio.get_running_loop().connect_read_pipe(
            lambda: OutputTail(output), os.fdopen(reading, "rb", 0)
        )
        return cls(process, record, tail)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def ended(self) -> str:
        """How it ended: `exit code 1`, `signal SIGSEGV` or `hung`."""
        return describe_exit(self._process.returncode)

    @property
    def last_output(self) -> str:
        """The end of its output; if it was cut, from the first whole line on."""
        tail = self._output.tail
        text = tail.decode(errors="replace")
        return text.partition("\n")[2] if len(tail) == KEPT_BYTES and "\n" in text else text

    @property
    def in_flight(self) -> tuple[str, tuple[str, ...]]:
        """Its incarnation, and the ids of the requests in flight if it ended by its own fault.

        Known after `wait`.
        """
        incarnation, requests = self._in_flight
        return incarnation, requests if implicates(self._process.returncode) else ()

    async def wait(self) -> int:
        code = await self._process.wait()
        if not self._record.closed:
            self._in_flight = flight_recorder.read(self._record)
            self._record.close()
        await self._output.rest(REST_S)
        return code

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
