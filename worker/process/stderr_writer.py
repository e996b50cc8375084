"""Writes to stderr on a thread of its own, so that nobody waits for its reader.

A reader that stops reading (a full pipe, a paused terminal) blocks neither a supervisor nor the
processes whose output it passes on. What is not read in time is dropped, and a line says so.
"""

import io
import os
import threading
from collections import deque

# The descriptor, not Python's stream: a thread that blocks in the stream holds its lock, and then
# the interpreter can't exit.
STDERR = 2
MAX_BYTES = 1024 * 1024


class NonBlockingStderr(io.TextIOBase):
    """Thread-safe, for text and bytes. The first write starts a daemon thread."""

    def __init__(self, descriptor: int = STDERR, max_bytes: int = MAX_BYTES) -> None:
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        # Guards all attributes below.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped_bytes = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        self.pass_on(text.encode(errors="replace"))
        return len(text)

    def pass_on(self, data: bytes) -> None:
        """Queues bytes for writing. Never blocks."""
        with self._changed:
            if self._waiting_bytes + len(data) > self._max_bytes:
                self._dropped_bytes += len(data)
                return
            if self._dropped_bytes:
                data = b"[%d bytes were not read in time]\n" % self._dropped_bytes + data
                self._dropped_bytes = 0
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="stderr", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, limit_s: float) -> None:
        """Returns when all is written, or at the limit."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes, limit_s)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                data = self._waiting.popleft()
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                pass  # the reader is gone
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()
