"""Tunes the memory allocator for passes on a CPU: each pass reuses what the last freed.

By default each large tensor is a mapping of its own, and the kernel zeroes its pages in every pass
again, which takes a fifth of the time. glibc can keep freed memory, but its heap fragments: 64-byte
alignment leaves a gap beside each tensor, and long-lived blocks settle between short-lived ones.
jemalloc (3), if installed, makes a pass 4 % faster in fp32 and 6 to 8 % in bf16 (docs/threads.md).
Any other library is left alone.
"""

import ctypes
from collections.abc import Mapping
from ctypes.util import find_library
from functools import cache
from itertools import product
from typing import Any

import psutil

# mallopt(3): the numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Freed bytes that glibc keeps at the top of the heap; jemalloc keeps all.
KEPT_BYTES = 2**30
# These settings need jemalloc 5.2 or newer.
_JEMALLOC, _TUNED_BY = "libjemalloc.so.2", "MALLOC_CONF"
# One arena for all threads and sizes, in huge pages.
_CONF = "narenas:1,oversize_threshold:0,thp:always,metadata_thp:auto"
_ALL_ARENAS, _FOR_EVER_MS = 4096, -1  # MALLCTL_ARENAS_ALL of jemalloc.h


class _Info(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables that a process must be started with, beside `environ`. If `environ` preloads a
    library or tunes jemalloc, that stays as it is.
    """
    own = {
        # glibc may give the device thread its own heap, which goes back to the kernel after every
        # pass. The next pass faults it in again, which took a fifth of its time.
        "MALLOC_ARENA_MAX": "1",
        # OpenVINO's oneTBB finds its topology by a library with its own allocator, which crashes
        # the process beside any other (uxlfoundation/oneTBB#1645). Not with this setting.
        "TBB_ENABLE_SANITIZERS": "1",
    }
    if find_library("jemalloc") == _JEMALLOC and not environ.keys() & {"LD_PRELOAD", _TUNED_BY}:
        own |= {"LD_PRELOAD": _JEMALLOC, _TUNED_BY: _CONF}
    return own


def allocated_bytes() -> int:
    """Bytes that all threads have allocated now. Resident memory would not show what a load took,
    since a load may reuse freed memory. With a C library that gives no figure (glibc before 2.33,
    musl) it is resident memory nevertheless.
    """
    if _has_jemalloc():
        _mallctl("epoch", ctypes.c_uint64(1))  # refreshes its statistics
        allocated = _size("stats.allocated")
    else:
        allocated = _of_glibc()
    return int(psutil.Process().memory_info().rss) if allocated is None else allocated


def keep_freed() -> None:
    """Keeps freed memory for the next pass, in the one heap that all threads of a worker share by
    its environment (`worker.hardware.devices`).
    """
    if _has_jemalloc():
        for arenas, state in product(("arena.0", "arenas"), ("dirty", "muzzy")):  # and new ones
            _mallctl(f"{arenas}.{state}_decay_ms", ctypes.c_ssize_t(_FOR_EVER_MS))
        return
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Gives all freed memory back to the kernel. Takes milliseconds, and the next pass faults."""
    if _has_jemalloc():
        _mallctl(f"arena.{_ALL_ARENAS}.purge")
        return
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def use_heap_of_loads() -> None:
    """From now on this thread allocates from a heap that loads have for themselves: passes do not
    wait for its lock, which a thread of low priority may hold, and what a model leaves behind in it
    can go back without the memory that passes use. Needs jemalloc, else it does nothing.
    """
    if _has_jemalloc():
        _mallctl("thread.arena", ctypes.c_uint(_arena_of_loads()))


def give_back_loads() -> None:
    """Gives freed memory of loads back to the kernel. Without jemalloc: all freed memory."""
    if _has_jemalloc():
        _mallctl(f"arena.{_arena_of_loads()}.purge")
    else:
        give_back()


@cache
def _arena_of_loads() -> int:
    number, length = ctypes.c_uint(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_uint))
    _function("mallctl")(b"arenas.create", ctypes.byref(number), ctypes.byref(length), None, 0)
    return number.value


def _of_glibc() -> int | None:
    function = _function("mallinfo2")
    if function is None:
        return None
    function.restype = _Info
    info = function()
    return int(info.uordblks + info.hblkhd)


def _has_jemalloc() -> bool:
    return _function("mallctl") is not None


def _mallctl(name: str, new: Any = None) -> None:
    """Sets a value of jemalloc, or runs a command; does nothing for a name it does not know."""
    new_at, size = (ctypes.byref(new), ctypes.sizeof(new)) if new is not None else (None, 0)
    _function("mallctl")(name.encode(), None, None, new_at, ctypes.c_size_t(size))


def _size(name: str) -> int | None:
    """Reads a value of jemalloc; None if it keeps no statistics."""
    found = ctypes.c_size_t()
    length = ctypes.c_size_t(ctypes.sizeof(found))
    failed = _function("mallctl")(
        name.encode(), ctypes.byref(found), ctypes.byref(length), None, ctypes.c_size_t(0)
    )
    return None if failed else found.value


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
