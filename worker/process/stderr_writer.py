"""What goes to stderr without anybody waiting for its reader: written by a thread of its own.

A reader that stands still (a full pipe, a paused terminal) holds up neither a supervisor nor the
processes whose output it passes on. What it does not take in time is dropped, and that is noted.
"""

import io
import os
import threading
from collections import deque

# The descriptor, not Python's stream: a thread that hangs in that one would hold the lock without
# which the interpreter does not end.
STDERR = 2
MOST_BYTES = 1024 * 1024


class NonBlockingStderr(io.TextIOBase):
    """Any thread may write, text or bytes. Begins a daemon thread at the first word."""

    def __init__(self, descriptor: int = STDERR, most_bytes: int = MOST_BYTES) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        # All below is guarded by it.
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped_bytes = 0
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        self.pass_on(text.encode(errors="replace"))
        return len(text)

    def pass_on(self, data: bytes) -> None:
        """Never blocks."""
        with self._changed:
            if self._waiting_bytes + len(data) > self._most_bytes:
                self._dropped_bytes += len(data)
                return
            if self._dropped_bytes:
                data = b"[%d bytes were not read in time]\n" % self._dropped_bytes + data
                self._dropped_bytes = 0
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="relay", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, limit_s: float) -> None:
        """Returns when all is written, or the time is over."""
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
                pass  # nobody reads any more
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()
