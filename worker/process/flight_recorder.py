"""Records the ids of the requests in flight in a file that outlives the process.

The supervisor makes the file, and the worker inherits and maps it: a record is a copy of a few
bytes, without a system call, and the kernel keeps it when the process crashes.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

# A slot has the length of an id, then at most 128 characters (`names.REQUEST_ID`). The first slot
# has the incarnation.
_SLOT_BYTES = 129
SLOTS = 512


class FlightRecorder:
    """Runs on the event loop. While SLOTS - 1 requests are recorded, further ones are not."""

    def __init__(self, descriptor: int, incarnation: str) -> None:
        """Records nothing if `descriptor` is 0. Raises OSError if it is not a file."""
        self._memory: mmap.mmap | None = None
        self._free = list(range(SLOTS - 1, 0, -1))
        self._sealed = False
        if descriptor:
            os.ftruncate(descriptor, SLOTS * _SLOT_BYTES)
            self._memory = mmap.mmap(descriptor, SLOTS * _SLOT_BYTES)
            self._write(0, incarnation)

    @contextmanager
    def recording(self, request_id: str) -> Iterator[None]:
        """Records a request while it is in flight."""
        if self._memory is None or not request_id or not self._free:
            yield
            return
        slot = self._free.pop()
        self._write(slot, request_id)
        try:
            yield
        finally:
            self._write(slot, "")
            self._free.append(slot)

    def seal(self) -> None:
        """Freezes the record, for a process that is about to end itself: the requests that it
        fails then count as in flight.
        """
        self._sealed = True

    def _write(self, slot: int, text: str) -> None:
        if self._memory is None or self._sealed:
            return
        data = text.encode("ascii", "replace")[: _SLOT_BYTES - 1]
        at = slot * _SLOT_BYTES
        # The length is written last, so that a crash leaves an empty slot and not half an id.
        self._memory[at] = 0
        self._memory[at + 1 : at + 1 + len(data)] = data
        self._memory[at] = len(data)


def read(file: IO[bytes]) -> tuple[str, tuple[str, ...]]:
    """The incarnation of the process and the ids in flight; empty if nothing was recorded."""
    file.seek(0)
    data = file.read()
    slots = (data[at : at + _SLOT_BYTES] for at in range(0, len(data), _SLOT_BYTES))
    texts = [slot[1 : 1 + slot[0]].decode("ascii", "replace") for slot in slots if slot]
    return (texts[0], tuple(filter(None, texts[1:]))) if texts else ("", ())
