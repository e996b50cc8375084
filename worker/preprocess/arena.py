"""Memory that images are letterboxed into: taken once, lent by the slot. It is not pinned:
backends put the images of a pass together in memory of their own.

A slot belongs to whoever holds its array: the thread that writes it, the ticket, the batch that
copies it. It is free again when the last array of it is gone, so that no caller that leaves can
free what a batch still reads, and none can forget to.
"""

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np

from worker.arrays import U8
from worker.preprocess.free_list import FreeList
from yolopool.errors import ImageTooLarge, QueueFull


def private(size_bytes: int) -> mmap.mmap:
    """Memory of this process; pages are there once they are touched."""
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def shared(size_bytes: int) -> int:
    """A file descriptor of memory that processes may map; the caller closes it."""
    handle = os.memfd_create("yolopool-images")
    os.ftruncate(handle, size_bytes)
    return handle


class Arena:
    """Any thread may call. Lives as long as one of its arrays does."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._slots = FreeList(len(memory))
        self._lock = threading.Lock()
        # An array may go at any moment, inside the lock too: it only leaves word.
        self._back: deque[int] = deque()
        self._address = np.frombuffer(memory, np.uint8).ctypes.data

    def allocate(self, size_bytes: int) -> U8:
        """A slot, uint8 (size_bytes,), with what was there before.

        Raises QueueFull if there is none now, ImageTooLarge if there never is.
        """
        with self._lock:
            while self._back:
                self._slots.give(self._back.popleft())
            offset = self._slots.take(size_bytes)
            lent = len(self._slots)
        if offset is not None:
            return self.view(offset, size_bytes, partial(self._back.append, offset))
        if lent:
            raise QueueFull(
                f"{lent} images fill the memory for images of {len(self._memory)} bytes: "
                "try again shortly, or give the worker more by --intake-memory"
            )
        raise ImageTooLarge(
            f"an image of the model's size takes {size_bytes} bytes and the memory for images "
            f"has {len(self._memory)}: raise --intake-memory"
        )

    def view(self, offset: int, size_bytes: int, gone: Callable[[], object]) -> U8:
        """A part of the memory, uint8 (size_bytes,); `gone` is called after its last view, on
        any thread. ValueError if it is not within.
        """
        array = np.frombuffer(self._memory, np.uint8, size_bytes, offset)
        # What is made from it by slicing has it as its base, and keeps it. Kept with it: the arena.
        weakref.finalize(array, _gone, self, gone).atexit = False
        return array

    def offset_of(self, array: U8) -> int:
        """Where an array that was lent lies."""
        return array.ctypes.data - self._address


def _gone(arena: Arena, gone: Callable[[], object]) -> None:
    gone()
