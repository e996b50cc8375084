"""The C library's heap, for passes on a CPU: what one frees the next takes, with no page fault.

By default each large tensor is a mapping of its own, which the kernel fills with zeros page by
page, in every pass again: a fifth of its time (docs/threads.md). glibc alone knows these words;
elsewhere nothing happens.
"""

import ctypes
from typing import Any

import psutil

# mallopt(3): the numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# As much of what is free is kept at the top of the heap.
KEPT_BYTES = 2**30


class _Info(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def allocated_bytes() -> int:
    """Bytes that are allocated now, by all threads: what is resident does not tell what a load
    took, since it may be served from what another left free. With a C library that does not tell
    (glibc before 2.33, musl), resident bytes all the same.
    """
    function = _function("mallinfo2")
    if function is None:
        return int(psutil.Process().memory_info().rss)
    function.restype = _Info
    info = function()
    return int(info.uordblks + info.hblkhd)


def keep_freed() -> None:
    """Keeps freed memory for the next pass, in the one heap that all threads of a worker have by
    the environment it is started with (`worker.devices`).
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Gives all that is free back to the kernel; takes milliseconds, and the next pass faults."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
