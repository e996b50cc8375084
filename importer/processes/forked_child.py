"""Children that a prepared parent forks, and that parent itself (the program `zygote`), from the
importer's side.

On the channel go requests alone: one byte with the child's descriptors. The last of these is a
socket, on which the parent tells the child's number, or minus an errno, and later its exit status.
Closing the importer's end of it, or its writing half, kills the child.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from importer.processes import environment
from importer.processes.running import Running, Talk
from importer.processes.zygote import NUMBER
from yolopool.server import parent_death

PROGRAM = ("-P", "-m", "importer.processes.zygote")
# On a host that is busy with other work, at the lowest priority.
PREPARE_LIMIT_S = 300.0
# For what the kernel does at once: a fork, the end of a killed process.
_AT_ONCE_S = 20.0
# Signals of a process that went wrong by itself. The others it is sent: by whoever watches it.
_CRASHES = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS)
)


class ZygoteLost(Exception):
    """The prepared parent could not be prepared, or has ended; the message says what is known."""


class Zygote:
    """One prepared parent. Begin it on the main thread: the kernel ends it with the thread.

    `forks` counts the children it was asked for; `has_crashed` says whether one ended by a fault.
    """

    def __init__(self, folder: Path, program: Sequence[str] = PROGRAM) -> None:
        """`folder`: its own until it is ready. Raises OSError."""
        with ExitStack() as unless_begun:
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            unless_begun.callback(self._channel.close)
            with theirs:
                self._said = os.memfd_create("zygote")
                unless_begun.callback(os.close, self._said)
                self._process = subprocess.Popen(
                    [sys.executable, *program, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=self._said,
                    cwd="/",
                    env=parent_death.environment(environment.of_child(folder)),
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            unless_begun.pop_all()
        self._channel.setblocking(False)
        self.forks = 0
        self.has_crashed = False
        self._running = 0
        self._is_retired = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def memory(self) -> dict[str, int]:
        """What it holds, and what of it no other process has, in MiB."""
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return {}
        kib = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        private = kib["Private_Clean:"] + kib["Private_Dirty:"]
        return {"resident_mib": kib["Rss:"] >> 10, "private_mib": private >> 10}

    async def ready(self) -> None:
        """Waits until it has imported the libraries. Raises ZygoteLost."""
        try:
            async with asyncio.timeout(PREPARE_LIMIT_S):
                if await _number(self._channel) is None:
                    raise ZygoteLost(self._last_words())
        except TimeoutError as error:
            raise ZygoteLost(f"it took longer than {PREPARE_LIMIT_S:g} s") from error

    async def start(self, order: bytes, folder: Path) -> Running:
        """A child with this order, which names the folder. Raises OSError if there is no room for
        one, ZygoteLost.
        """
        report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            talk = Talk(order)
        except BaseException:
            report.close()
            theirs.close()
            raise
        report.setblocking(False)
        self.forks += 1
        self._running += 1
        try:
            lines, errors = await talk.readers()
            self._ask((*talk.given, theirs.fileno()))
            theirs.close()
            talk.give()
            async with asyncio.timeout(_AT_ONCE_S):
                pid = await _number(report)
            if pid is None:
                raise ZygoteLost(self._last_words())
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
        except BaseException as error:
            for end in (theirs, report, talk):
                end.close()  # if there is a child by now, this ends it
            talk.give()
            self._has_one_less()
            if isinstance(error, TimeoutError):
                raise ZygoteLost(f"no child came in {_AT_ONCE_S:g} s") from error
            raise
        return ForkedChild(self, pid, report, talk, lines, errors)

    def retire(self) -> None:
        """No more children: it ends with the last of those that run."""
        self._is_retired = True
        if not self._running:
            self.close()

    def close(self) -> None:
        """Ends it, and its children with it."""
        self._process.kill()
        self._process.wait()
        if self._channel.fileno() >= 0:
            self._channel.close()
            os.close(self._said)

    def ended(self, pid: int, status: int | None) -> None:
        """A child of it has ended."""
        if status is None:
            # With it. The first process of a container then has its children, and their remains.
            self._process.kill()
            self._process.wait()
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        self.has_crashed |= status is not None and -status in _CRASHES
        self._has_one_less()

    def _has_one_less(self) -> None:
        self._running -= 1
        if self._is_retired and not self._running:
            self.close()

    def _ask(self, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._channel, [b"+"], descriptors)
        except OSError as error:
            raise ZygoteLost(f"{error.strerror}; {self._last_words()}") from error

    def _last_words(self) -> str:
        """Its exit status, if it has ended, and the last line that it said."""
        if self._channel.fileno() < 0:
            return "it was ended"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        said = os.pread(self._said, 4096, max(0, os.fstat(self._said).st_size - 4096))
        lines = said.decode(errors="replace").strip().splitlines()
        status = self._process.returncode
        return f"exit status {status}: {lines[-1][:300] if lines else 'it said nothing'}"


class ForkedChild:
    """A Running child of a zygote."""

    def __init__(
        self,
        zygote: Zygote,
        pid: int,
        report: socket.socket,
        talk: Talk,
        lines: asyncio.StreamReader,
        errors: asyncio.StreamReader,
    ) -> None:
        self._zygote = zygote
        self._report = report
        self._talk = talk
        self.pid = pid
        self.lines, self.errors = lines, errors
        self._end = asyncio.ensure_future(self._ended())
        self._patience: asyncio.TimerHandle | None = None

    @property
    def has_ended(self) -> bool:
        return self._end.done()

    def kill(self) -> None:
        if self.has_ended or self._patience is not None:
            return
        with suppress(OSError):
            self._report.shutdown(socket.SHUT_WR)
        # A parent that does not do it is not alive any more: its end is its children's.
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(_AT_ONCE_S, self._zygote.close)

    async def wait(self) -> int | None:
        return await asyncio.shield(self._end)

    def close(self) -> None:
        self._talk.close()

    async def _ended(self) -> int | None:
        try:
            status = await _number(self._report)
        finally:
            self._report.close()
            if self._patience is not None:
                self._patience.cancel()
        self._zygote.ended(self.pid, status)
        return status


async def _number(sender: socket.socket) -> int | None:
    """The next number told; None at the end."""
    try:
        data = await asyncio.get_running_loop().sock_recv(sender, NUMBER.size)
    except ConnectionError:
        return None
    return int(NUMBER.unpack(data)[0]) if data else None
