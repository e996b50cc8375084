"""The ids of the requests in hand, in a file that outlives the process however it ends.

The file is the supervisor's, inherited. It is mapped: a note is a copy of a few bytes and no system
call, and the kernel keeps it through a crash.
"""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

# Of one id: its length, then at most 128 characters (`names.REQUEST_ID`). The first slot is the
# incarnation's.
_SLOT = 129
SLOTS = 512


class FlightRecorder:
    """For one event loop. Beyond SLOTS requests at once the others are not noted."""

    def __init__(self, descriptor: int, incarnation: str) -> None:
        """`descriptor` 0: nobody will read it. Raises OSError for one that is no file."""
        self._memory: mmap.mmap | None = None
        self._free = list(range(SLOTS - 1, 0, -1))
        self._sealed = False
        if descriptor:
            os.ftruncate(descriptor, SLOTS * _SLOT)
            self._memory = mmap.mmap(descriptor, SLOTS * _SLOT)
            self._write(0, incarnation)

    @contextmanager
    def recording(self, request_id: str) -> Iterator[None]:
        """Notes a request for as long as it is in hand."""
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
        """Keeps what is noted now: who gives a request up by force has not finished it."""
        self._sealed = True

    def _write(self, slot: int, text: str) -> None:
        if self._memory is None or self._sealed:
            return
        data = text.encode("ascii", "replace")[: _SLOT - 1]
        at = slot * _SLOT
        # The length last: a crash in between leaves an empty slot, not half an id.
        self._memory[at] = 0
        self._memory[at + 1 : at + 1 + len(data)] = data
        self._memory[at] = len(data)


def read(file: IO[bytes]) -> tuple[str, tuple[str, ...]]:
    """The incarnation of the process and the ids it had in hand; empty if it noted nothing."""
    file.seek(0)
    data = file.read()
    slots = (data[at : at + _SLOT] for at in range(0, len(data), _SLOT))
    texts = [slot[1 : 1 + slot[0]].decode("ascii", "replace") for slot in slots if slot]
    return (texts[0], tuple(filter(None, texts[1:]))) if texts else ("", ())
