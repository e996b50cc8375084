"""Host memory of one pack's weights: mapped for it alone, so that it goes back as it came."""

import mmap
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from yolopool.errors import OutOfMemory


class HostMemory:
    """Bytes mapped for one pack alone, so that dropping them gives exactly them back to the OS.

    The allocator of the process would keep them, and a mapped file could change or be cut
    under the model. `pin` is told of the bytes, and answers what undoes it.
    """

    def __init__(
        self, size_bytes: int, pin: Callable[[mmap.mmap], Callable[[], None]] | None = None
    ) -> None:
        """Raises OutOfMemory with nothing kept."""
        self.size_bytes = size_bytes
        try:
            # Private: shared mappings, the default, are files of the kernel's and slower to fill.
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
        """The bytes, writable: for the one that fills them and for libraries that insist on it."""
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
        """Gives the memory back: now, or with the last view of it. Idempotent."""
        memory, self._map = self._map, None
        if memory is None:
            return
        if self._unpin is not None:
            self._unpin()
        # A view may be alive: the mapping goes when its last reference does.
        with suppress(BufferError):
            memory.close()
