"""Host memory for the weights of one pack, mapped for it alone."""

import mmap
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from yolopool.errors import OutOfMemory


class HostMemory:
    """Bytes mapped for one pack alone, so that `close` gives exactly them back to the OS.

    The process's allocator would keep freed memory, and a mapped file could change or be truncated
    under the model. `pin` is called with the bytes, and returns a call that undoes it.
    """

    def __init__(
        self, size_bytes: int, pin: Callable[[mmap.mmap], Callable[[], None]] | None = None
    ) -> None:
        """Raises OutOfMemory with nothing kept."""
        self.size_bytes = size_bytes
        try:
            # Private: a shared mapping, the default, is a file of the kernel and slower to fill.
            memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, MemoryError) as error:
            raise OutOfMemory(
                f"the host has no {size_bytes} bytes for weights ({error}): release a model or "
                "lower --memory-budget and --host-memory"
            ) from error
        with suppress(OSError, AttributeError):  # fewer page faults, where the kernel has them
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._map: mmap.mmap | None = memory
        self._unpin = pin(memory) if pin is not None else None

    @property
    def buffer(self) -> mmap.mmap:
        """The bytes, writable: to be filled, and for libraries that require it."""
        if self._map is None:
            raise ValueError("the memory of this pack was given back: fetch it again")
        return self._map

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """A read-only view, uint8 (size_bytes,)."""
        view = np.frombuffer(self.buffer, np.uint8)
        view.flags.writeable = False
        return view

    def close(self) -> None:
        """Frees the memory: now, or with its last view. Idempotent."""
        memory, self._map = self._map, None
        if memory is None:
            return
        if self._unpin is not None:
            self._unpin()
        # If a view is alive, the mapping goes with the last reference to it.
        with suppress(BufferError):
            memory.close()
