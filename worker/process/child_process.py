"""One worker process as its supervisor has it: its last output, and the black box it leaves."""

import asyncio
import contextlib
import fcntl
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from worker.process import flight_recorder
from worker.process.exit_status import FROM_OUTSIDE, describe_exit

# Of what it wrote last.
KEPT_BYTES = 8 * 1024
# What it writes is looked at now and then, not line by line, unless it writes so much.
PAUSE_S, MUCH_BYTES = 0.2, 64 * 1024
# Room in the pipe until then, as much as anybody may have.
PIPE_BYTES = 1024 * 1024
# For the rest of its output, once it has ended; what it has started may hold the pipe open.
REST_S = 2 * PAUSE_S


class OutputTail(asyncio.Protocol):
    """What a process writes into a pipe: given on now and then, the end of it kept. `ended` is set
    when nobody can write any more.
    """

    def __init__(self, given: Callable[[bytes], object]) -> None:
        self.tail = b""
        self.ended = asyncio.Event()
        self._given = given
        self._transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport), "it is the end of a pipe"
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None, "it is connected"
        self.tail = (self.tail + data)[-KEPT_BYTES:]
        self._given(data)
        if len(data) < MUCH_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE_S, self._transport.resume_reading)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()

    async def rest(self, limit_s: float) -> None:
        """Waits so long for the end of it, and takes no more then."""
        assert self._transport is not None, "it is connected"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.ended.wait()
        self._transport.close()


class WorkerProcess:
    """`await Child.start(...)`. What it writes on stderr goes to `output`, which never blocks, and
    the end of it is kept.
    """

    def __init__(self, process: Process, box: IO[bytes], output: OutputTail) -> None:
        self._process = process
        self._box = box
        self._output = output
        self._left: tuple[str, tuple[str, ...]] = ("", ())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environ: Mapping[str, str],
        output: Callable[[bytes], object],
    ) -> "WorkerProcess":
        """Raises OSError."""
        # Of memory: on a disk that is full a write to it would end the worker.
        box = os.fdopen(os.memfd_create("black box"), "r+b")
        reading, writing = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environ, "YOLOPOOL_WORKER_BLACK_BOX": str(box.fileno())},
                stdin=DEVNULL,
                stderr=writing,
                pass_fds=(box.fileno(),),
            )
        except BaseException:
            os.close(reading)
            box.close()
            raise
        finally:
            os.close(writing)
        _, followed = await asyncio.get_running_loop().connect_read_pipe(
            lambda: OutputTail(output), os.fdopen(reading, "rb", 0)
        )
        return cls(process, box, followed)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def ended(self) -> str:
        """How: exit code 1, signal SIGSEGV, hung."""
        return describe_exit(self._process.returncode)

    @property
    def last_output(self) -> str:
        """Whole lines, where there is more than one."""
        tail = self._output.tail
        text = tail.decode(errors="replace")
        return text.partition("\n")[2] if len(tail) == KEPT_BYTES and "\n" in text else text

    @property
    def in_flight(self) -> tuple[str, tuple[str, ...]]:
        """Its incarnation, and what it had in hand if it ended by its own fault; after `wait`."""
        incarnation, requests = self._left
        code = self._process.returncode or 0
        return incarnation, () if -code in FROM_OUTSIDE else requests

    async def wait(self) -> int:
        code = await self._process.wait()
        if not self._box.closed:
            self._left = flight_recorder.read(self._box)
            self._box.close()
        await self._output.rest(REST_S)
        return code

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
