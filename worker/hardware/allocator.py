"""The heap of passes on a CPU: what one frees the next takes, with no page fault.

By default each large tensor is a mapping of its own, which the kernel fills with zeros page by
page, in every pass again: a fifth of its time. glibc can be told to keep it, but its heap comes
apart: 64 bytes of alignment leave a splinter beside each tensor, and what lives long settles among
what does not. jemalloc (3), where the host has it, takes 4 % less of a pass in fp32 and 6 to 8 in
bf16 (docs/threads.md). With any other library nothing happens.
"""

import ctypes
from collections.abc import Mapping
from ctypes.util import find_library
from itertools import product
from typing import Any

import psutil

# mallopt(3): the numbers of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# As much of what is free glibc keeps at the top of the heap; jemalloc keeps all.
KEPT_BYTES = 2**30
# What is said to it here, 5.2 and newer understand.
_JEMALLOC, _TUNED_BY = "libjemalloc.so.2", "MALLOC_CONF"
# One arena for all threads, without another for what is large, in huge pages.
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
    """What a process must be started with, beside `environ`: who preloads something, or tunes
    jemalloc, is left alone.
    """
    own = {
        # glibc may give the device thread a heap of its own: it goes back to the kernel behind
        # every pass, and the next one faults it in again, which took a fifth of its time.
        "MALLOC_ARENA_MAX": "1",
        # oneTBB, of OpenVINO, finds its topology by a library with a heap of its own scope, which
        # ends the process beside any other heap (uxlfoundation/oneTBB#1645). Not with this.
        "TBB_ENABLE_SANITIZERS": "1",
    }
    if find_library("jemalloc") == _JEMALLOC and not environ.keys() & {"LD_PRELOAD", _TUNED_BY}:
        own |= {"LD_PRELOAD": _JEMALLOC, _TUNED_BY: _CONF}
    return own


def allocated_bytes() -> int:
    """Bytes that are allocated now, by all threads: what is resident does not tell what a load
    took, since it may be served from what another left free. With a C library that does not tell
    (glibc before 2.33, musl), resident bytes all the same.
    """
    if _has_jemalloc():
        _mallctl("epoch", ctypes.c_uint64(1))  # its figures are as of now
        allocated = _size("stats.allocated")
    else:
        allocated = _of_glibc()
    return int(psutil.Process().memory_info().rss) if allocated is None else allocated


def keep_freed() -> None:
    """Keeps freed memory for the next pass, in the one heap that all threads of a worker have by
    the environment it is started with (`worker.hardware.devices`).
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
    """Gives all that is free back to the kernel; takes milliseconds, and the next pass faults."""
    if _has_jemalloc():
        _mallctl(f"arena.{_ALL_ARENAS}.purge")
        return
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


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
    """Sets a value of jemalloc, or does what the name says; nothing if it does not know it."""
    new_at, size = (ctypes.byref(new), ctypes.sizeof(new)) if new is not None else (None, 0)
    _function("mallctl")(name.encode(), None, None, new_at, ctypes.c_size_t(size))


def _size(name: str) -> int | None:
    """Reads a value of jemalloc; None: it keeps no statistics."""
    found = ctypes.c_size_t()
    length = ctypes.c_size_t(ctypes.sizeof(found))
    failed = _function("mallctl")(
        name.encode(), ctypes.byref(found), ctypes.byref(length), None, ctypes.c_size_t(0)
    )
    return None if failed else found.value


def _function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
