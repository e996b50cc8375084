"""Which bytes of one stretch of memory are lent, and which are free.

Pure: numbers in, numbers out. First fit, so that few pages are touched and these are warm; free
neighbours become one again, so that images of any mix of shapes share the memory.
"""

from bisect import bisect_left

# A page: whole ones go back, and no two slots share a cache line.
ALIGN_BYTES = 4096


class FreeList:
    """`take` and `give` of a stretch of `size_bytes`; not for two threads at once."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        # (offset, size), ascending, no two of them touching.
        self._free: list[tuple[int, int]] = [(0, size_bytes)] if size_bytes else []
        self._lent: dict[int, int] = {}

    def __len__(self) -> int:
        """How many are lent."""
        return len(self._lent)

    def take(self, size_bytes: int) -> int | None:
        """The offset of a slot of at least so many bytes (1 or more), or None: no room now."""
        wanted = -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES
        for index, (offset, size) in enumerate(self._free):
            if size >= wanted:
                rest = [(offset + wanted, size - wanted)] if size > wanted else []
                self._free[index : index + 1] = rest
                self._lent[offset] = wanted
                return offset
        return None

    def give(self, offset: int) -> None:
        """Takes a slot back. KeyError for one that is not lent."""
        size = self._lent.pop(offset)
        index = bisect_left(self._free, (offset, 0))
        if index < len(self._free) and self._free[index][0] == offset + size:
            size += self._free.pop(index)[1]
        if index and sum(self._free[index - 1]) == offset:
            index -= 1
            before, before_size = self._free.pop(index)
            offset, size = before, before_size + size
        self._free.insert(index, (offset, size))
