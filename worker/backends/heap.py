"""The C library's heap, for passes on a CPU: what one frees the next takes, with no page fault.

By default each large tensor is a mapping of its own, which the kernel fills with zeros page by
page, in every pass again: a fifth of its time (docs/threads.md). glibc alone knows these words;
elsewhere nothing happens.
"""

import ctypes
from typing import Any

# mallopt(3): the numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# As much of what is free is kept at the top of the heap.
KEPT_BYTES = 2**30


def keep_freed() -> None:
    """Keeps freed memory for the next pass; in one heap, so that no thread keeps its own."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Gives all that is free back to the kernel; takes milliseconds, and the next pass faults."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
