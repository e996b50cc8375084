"""One worker process as its supervisor has it: its last output, and the black box it leaves."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from worker import blackbox
from worker.watchdog import HUNG

# Of what it wrote last.
KEPT_BYTES = 8 * 1024
READ_BYTES = 64 * 1024
# For the rest of its output, once it has ended; what it has started may hold the pipe open.
REST_S = 0.2
# By which others end a process: they say nothing of what it had in hand.
_SIGNALS = {int(one): one.name for one in signal.Signals}
FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def how(code: int | None) -> str:
    """How a process ended, by what `Process.returncode` says."""
    if code is not None and code < 0:
        return f"signal {_SIGNALS.get(-code, -code)}"
    return "hung" if code == HUNG else f"exit code {code}"


class Child:
    """`await Child.start(...)`. What it writes on stderr goes to `output`, which never blocks, and
    the end of it is kept.
    """

    def __init__(self, process: Process, box: IO[bytes], output: Callable[[bytes], object]) -> None:
        self._output = output
        self._process = process
        self._box = box
        self._left: tuple[str, tuple[str, ...]] = ("", ())
        self._tail = b""
        self._pump = asyncio.create_task(self._follow(), name=f"stderr of {process.pid}")

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environ: Mapping[str, str],
        output: Callable[[bytes], object],
    ) -> "Child":
        """Raises OSError."""
        # Of memory: on a disk that is full a write to it would end the worker.
        box = os.fdopen(os.memfd_create("black box"), "r+b")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env={**environ, "YOLOPOOL_WORKER_BLACK_BOX": str(box.fileno())},
                stdin=DEVNULL,
                stderr=PIPE,
                pass_fds=(box.fileno(),),
            )
        except BaseException:
            box.close()
            raise
        return cls(process, box, output)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def ended(self) -> str:
        """How: exit code 1, signal SIGSEGV, hung."""
        return how(self._process.returncode)

    @property
    def last_output(self) -> str:
        """Whole lines, where there is more than one."""
        text = self._tail.decode(errors="replace")
        return text.partition("\n")[2] if len(self._tail) == KEPT_BYTES and "\n" in text else text

    @property
    def left(self) -> tuple[str, tuple[str, ...]]:
        """Its incarnation, and what it had in hand if it ended by its own fault; after `wait`."""
        incarnation, requests = self._left
        code = self._process.returncode or 0
        return incarnation, () if -code in FROM_OUTSIDE else requests

    async def wait(self) -> int:
        code = await self._process.wait()
        if not self._box.closed:
            self._left = blackbox.read(self._box)
            self._box.close()
        await asyncio.wait((self._pump,), timeout=REST_S)
        return code

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _follow(self) -> None:
        stream = self._process.stderr
        assert stream is not None, "it was started with a pipe"
        while data := await stream.read(READ_BYTES):
            self._tail = (self._tail + data)[-KEPT_BYTES:]
            self._output(data)
