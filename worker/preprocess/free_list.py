"""Allocates slots of one block of memory. Pure: offsets and sizes only.

First fit keeps the touched pages few and warm. Free neighbours are merged, so that images of any
mix of shapes can share the memory.
"""

from bisect import bisect_left

# A page. No two slots share a cache line.
ALIGN_BYTES = 4096


class FreeList:
    """The free slots of `size_bytes`. Not thread-safe."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        # (offset, size), ascending; no two touch.
        self._free: list[tuple[int, int]] = [(0, size_bytes)] if size_bytes else []
        self._used: dict[int, int] = {}

    def __len__(self) -> int:
        """The number of slots in use."""
        return len(self._used)

    def allocate(self, size_bytes: int) -> int | None:
        """The offset of a new slot of at least `size_bytes` (1 or more); None if none fits now."""
        wanted = -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES
        for index, (offset, size) in enumerate(self._free):
            if size >= wanted:
                rest = [(offset + wanted, size - wanted)] if size > wanted else []
                self._free[index : index + 1] = rest
                self._used[offset] = wanted
                return offset
        return None

    def free(self, offset: int) -> None:
        """Frees a slot. Raises KeyError for one that is not in use."""
        size = self._used.pop(offset)
        index = bisect_left(self._free, (offset, 0))
        if index < len(self._free) and self._free[index][0] == offset + size:
            size += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == offset:
            index -= 1
            before, before_size = self._free.pop(index)
            offset, size = before, before_size + size
        self._free.insert(index, (offset, size))
