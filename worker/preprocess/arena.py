"""The memory that images are letterboxed into, allocated once and divided into slots.

A slot belongs to whoever holds its array: the thread that writes it, the ticket, the batch that
copies it. It is freed with the last array of it, so that a caller that leaves can't free what a
batch still reads, and nobody can forget to free it. The memory is not pinned: backends gather the
images of a pass in memory of their own.
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
    """Memory of this process. The kernel provides a page when it is first touched."""
    return mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def shared(size_bytes: int) -> int:
    """A file descriptor of memory that several processes can map. The caller closes it."""
    handle = os.memfd_create("yolopool-images")
    os.ftruncate(handle, size_bytes)
    return handle


class Arena:
    """Thread-safe. Lives as long as one of its arrays."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._slots = FreeList(len(memory))
        self._lock = threading.Lock()
        # Offsets to free. An array may die at any moment, even inside the lock, so its finalizer
        # only appends here.
        self._freed: deque[int] = deque()
        self._address = np.frombuffer(memory, np.uint8).ctypes.data

    def allocate(self, size_bytes: int) -> U8:
        """A new slot, uint8 (size_bytes,), not cleared.

        Raises QueueFull if none fits now, and ImageTooLarge if none ever will.
        """
        with self._lock:
            while self._freed:
                self._slots.free(self._freed.popleft())
            offset = self._slots.allocate(size_bytes)
            used = len(self._slots)
        if offset is not None:
            return self.view(offset, size_bytes, partial(self._freed.append, offset))
        if used:
            raise QueueFull(
                f"{used} images fill the memory for images of {len(self._memory)} bytes: "
                "try again shortly, or give the worker more by --intake-memory"
            )
        raise ImageTooLarge(
            f"an image of the model's size takes {size_bytes} bytes and the memory for images "
            f"has {len(self._memory)}: raise --intake-memory"
        )

    def view(self, offset: int, size_bytes: int, gone: Callable[[], object]) -> U8:
        """A part of the memory, uint8 (size_bytes,). `gone` is called when its last view dies, on
        any thread. Raises ValueError for a part that is not within the memory.
        """
        array = np.frombuffer(self._memory, np.uint8, size_bytes, offset)
        # Slices have this array as their base and keep it alive; it keeps the arena alive.
        weakref.finalize(array, _gone, self, gone).atexit = False
        return array

    def offset_of(self, array: U8) -> int:
        """The offset of a slot's array in the memory."""
        return array.ctypes.data - self._address


def _gone(arena: Arena, gone: Callable[[], object]) -> None:
    gone()
