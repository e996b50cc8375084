"""Where a process writes its log: a descriptor, or a file that is rotated by its size.

Logging never fails and never stops a process. Bytes that can't be written (a full disk, a reader
that is gone) are dropped and counted, and the next line that can be written is preceded by one that
says how many were lost.
"""

import fcntl
import io
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

# The descriptor, not Python's stream: a thread that blocks in the stream holds its lock, and then
# the interpreter can't exit.
STDERR = 2
MAX_WAITING_BYTES = 1024 * 1024
# Lines are written together at most this often, so that a busy process is not woken for each.
PAUSE_S, WRITTEN_BYTES = 0.05, 32 * 1024
_TIMESTAMP = re.compile(rb'"timestamp": ?"([^"]{10,40})"')
MAX_LINE_BYTES = 64 * 1024
# Of a file: its size at most, and how many earlier ones are kept beside it.
MAX_FILE_BYTES, KEPT_FILES = 32 * 1024 * 1024, 3


class LogOutput:
    """Writes to a descriptor. Thread-safe; never raises, but blocks while a pipe is full."""

    def __init__(self, descriptor: int = STDERR) -> None:
        self.dropped_lines = 0
        self._descriptor = descriptor
        # Guards all attributes below, and the order of writes.
        self._lock = threading.Lock()
        self._lost_bytes = 0  # since the last notice
        self._is_cut = False  # the last line that was written has no end

    def put(self, data: bytes) -> None:
        """Writes whole lines; what can't be written is dropped."""
        with self._lock:
            self._make_room(len(data))
            if self._lost_bytes:
                words = notice(self._lost_bytes)
                if self._write(b"\n" + words if self._is_cut else words):
                    self._count(data)
                    return
                self._lost_bytes, self._is_cut = 0, False
            rest = self._write(data)
            if rest:
                self._count(rest)
                self._is_cut = data[: len(data) - len(rest)][-1:] not in (b"", b"\n")

    def _write(self, data: bytes) -> bytes:
        """Returns what is left."""
        rest = memoryview(data)
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return bytes(rest)

    def _count(self, lost: bytes) -> None:
        self._lost_bytes += len(lost)
        self.dropped_lines += lines_in(lost)

    def _make_room(self, size_bytes: int) -> None:
        """Called before so many bytes are written."""


def notice(lost_bytes: int) -> bytes:
    """The line that stands for bytes that were lost."""
    return b"[%d bytes of the log were not written]\n" % lost_bytes


def lines_in(data: bytes) -> int:
    return max(1, data.count(b"\n"))


class LogFile(LogOutput):
    """Writes to a file, which becomes the process's stderr: stacks of a crash and what libraries
    print come into it too. At its largest size it is renamed to `<name>.1`, and so on.
    """

    def __init__(
        self,
        path: Path,
        max_bytes: int = MAX_FILE_BYTES,
        kept: int = KEPT_FILES,
        descriptor: int = STDERR,
    ) -> None:
        """Raises OSError if the file can't be opened."""
        super().__init__(descriptor)
        self._path = path
        self._kept = kept
        self._max_bytes = self._limit_bytes = max_bytes
        self._open()

    def _make_room(self, size_bytes: int) -> None:
        held = 0
        try:
            held = os.fstat(self._descriptor).st_size  # with what others wrote to it
            if held and held + size_bytes > self._limit_bytes:
                rotate(self._path, 0, self._kept)
                self._open()
                self._limit_bytes = self._max_bytes
        except OSError:
            # The log goes on where it is; not every line tries again.
            self._limit_bytes = self._max_bytes + held

    def _open(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if opened == self._descriptor:  # it was closed, so that it is the first that is free
            os.set_inheritable(opened, True)
            return
        try:
            os.dup2(opened, self._descriptor)
        finally:
            os.close(opened)


class RotatedFile(LogOutput):
    """A file that is renamed to `<name>.1`, and so on, at its largest size or age; made anew where
    somebody else moved or removed it, so that several processes may write to it. now: Unix seconds.
    The age is that of the first line, which begins with JSON's `timestamp` somewhere; of a file
    without one, that of this process.
    """

    def __init__(
        self, path: Path, max_bytes: int, max_age_s: float, kept: int, now: Callable[[], float]
    ) -> None:
        """Raises OSError if the file can't be opened."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._kept, self._now = path, kept, now
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        super().__init__(self._opened())
        self._began_s = self._first_s()

    def _opened(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _first_s(self) -> float:
        with suppress(OSError, ValueError), self._path.open("rb") as file:
            if found := _TIMESTAMP.search(file.readline(MAX_LINE_BYTES)):
                return datetime.fromisoformat(found[1].decode()).timestamp()
        return self._now()

    def _make_room(self, size_bytes: int) -> None:
        with suppress(OSError):  # the log goes on where it is
            if not self._is_in_place():
                self._open_again()
            held = os.fstat(self._descriptor).st_size
            is_old = self._now() - self._began_s > self._max_age_s
            if held and (is_old or held + size_bytes > self._max_bytes):
                self._turn()

    def _turn(self) -> None:
        """Renames the file, unless another process that found it due did so. Raises OSError."""
        turned = self._descriptor
        try:
            fcntl.flock(turned, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            pass
        try:
            if self._is_in_place():
                rotate(self._path, 0, self._kept)
        finally:
            with suppress(OSError):
                fcntl.flock(turned, fcntl.LOCK_UN)
        self._open_again()

    def _is_in_place(self) -> bool:
        """False: somebody moved or removed the file, or another process turned it."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _open_again(self) -> None:
        before, self._descriptor = self._descriptor, self._opened()
        os.close(before)
        self._began_s = self._first_s()


def rotate(path: Path, max_bytes: int = MAX_FILE_BYTES, kept: int = KEPT_FILES) -> None:
    """Renames a file of more bytes to `<name>.1`, and so on. Raises OSError."""
    if path.exists() and path.stat().st_size > max_bytes:
        # It only renames: its own stream would keep what could not be written, and fail again.
        RotatingFileHandler(path, backupCount=kept, delay=True).doRollover()


class DirectLog(io.TextIOBase):
    """A stream that writes before it returns, for a process whose last words matter."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output

    @property
    def dropped_lines(self) -> int:
        return self._output.dropped_lines

    def write(self, text: str) -> int:
        self.pass_on(text.encode(errors="replace"))
        return len(text)

    def pass_on(self, data: bytes) -> None:
        self._output.put(data)


class QueuedLog(io.TextIOBase):
    """A stream that a thread of its own writes, so that nobody waits for a reader or a disk.

    A reader that stops reading (a full pipe, a paused terminal) blocks neither a process nor those
    whose output it passes on. Thread-safe, for text and bytes. The first write starts a daemon
    thread.
    """

    def __init__(self, output: LogOutput, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._output = output
        self._max_bytes = max_bytes
        self._at_once = threading.Event()
        self._changed = threading.Condition()
        # Guards all attributes below.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost_bytes = 0
        self._dropped_lines = 0
        self._thread: threading.Thread | None = None

    @property
    def dropped_lines(self) -> int:
        return self._dropped_lines + self._output.dropped_lines

    def write(self, text: str) -> int:
        self.pass_on(text.encode(errors="replace"))
        return len(text)

    def pass_on(self, data: bytes) -> None:
        """Queues bytes for writing. Never blocks."""
        with self._changed:
            if self._waiting_bytes + len(data) > self._max_bytes:
                self._lost_bytes += len(data)
                self._dropped_lines += lines_in(data)
                return
            if self._lost_bytes:
                data = notice(self._lost_bytes) + data
                self._lost_bytes = 0
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._start()
            self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log", daemon=True)
        with suppress(RuntimeError):  # no more threads: the next line tries again
            thread.start()
            self._thread = thread

    def drain(self, limit_s: float) -> None:
        """Returns when all is written, or at the limit."""
        self._at_once.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes, limit_s)
        self._at_once.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                data = self._next()
            self._output.put(data)
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()
                more = bool(self._waiting)
            if not more:
                self._at_once.wait(PAUSE_S)

    def _next(self) -> bytes:
        """Some of what waits, to be written together."""
        taken, size_bytes = [self._waiting.popleft()], 0
        while self._waiting and size_bytes + len(self._waiting[0]) <= WRITTEN_BYTES:
            taken.append(self._waiting.popleft())
            size_bytes += len(taken[-1])
        return b"".join(taken)
