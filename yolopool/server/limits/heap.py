"""Memory that was freed and that the C library keeps: of large requests hundreds of megabytes."""

import ctypes
from typing import Any

# Of glibc; other libraries have none of these.
_LIBRARY: Any = ctypes.CDLL(None)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# A block of this size has pages of its own, which are given back when it is freed. The library's
# own bound grows with what is freed, to 32 MiB.
_LARGE_BYTES = 4 * 1024**2


def keep_little() -> None:
    """Call once, at the start of a process whose large blocks are short-lived."""
    if hasattr(_LIBRARY, "mallopt"):
        _LIBRARY.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        _LIBRARY.mallopt(_TRIM_THRESHOLD, 2 * _LARGE_BYTES)


def give_back() -> None:
    """Gives the system what small blocks left. It takes 0.1 ms a megabyte; other threads go on, but
    for allocations.
    """
    if hasattr(_LIBRARY, "malloc_trim"):
        _LIBRARY.malloc_trim(0)
