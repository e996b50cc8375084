"""The heap of CPU workers, with each C library's that they may have."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from ctypes.util import find_library
from itertools import pairwise

import pytest

from worker.hardware import allocator

MIB = 2**20
GLIBC, JEMALLOC = "glibc", "jemalloc"
# How many heaps threads have that want memory at the same time, by malloc_info(3); of jemalloc,
# which has none of glibc's, by its own word.
HEAPS = """
import ctypes, threading
library, met = ctypes.CDLL(None), threading.Barrier(4)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def want():
    met.wait()
    held = [library.malloc(2**20) for _ in range(20)]
    met.wait()
    for one in held:
        library.free(one)
threads = [threading.Thread(target=want) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if hasattr(library, "mallctl"):
    found, size = ctypes.c_uint(), ctypes.c_size_t(4)
    library.mallctl(b"arenas.narenas", ctypes.byref(found), ctypes.byref(size), None, 0)
    print(found.value)
else:
    library.open_memstream.restype = ctypes.c_void_p
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    stream = ctypes.c_void_p(library.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    library.malloc_info(0, stream)
    library.fclose(stream)
    print(text.value.count(b"<heap nr="))
"""
# What is allocated and what is resident: before, with, and behind blocks as large as tensors; and
# once what is free is given back.
LIFE = """
import ctypes, json, psutil
from worker.hardware import allocator
def now():
    # Page by page: the kernel's own sum may be behind.
    return allocator.allocated_bytes(), psutil.Process().memory_full_info().uss
allocator.keep_freed()
allocator.give_back()
seen = [now()]
blocks = [bytearray(b"x") * (8 * 2**20 - 64) for _ in range(16)]
seen.append(now())
del blocks
seen.append(now())
allocator.give_back()
seen.append(now())
print(json.dumps([hasattr(ctypes.CDLL(None), "mallctl"), seen]))
"""

# What is resident: before, behind blocks of a pass, with those of a load, behind them, and once
# what loads left is given back.
LOADS = """
import ctypes, json, psutil, threading
from worker.hardware import allocator
blocks = []
def use():
    blocks.extend(bytearray(b"x") * (8 * 2**20 - 64) for _ in range(8))
def load():
    allocator.use_heap_of_loads()
    use()
def resident():
    return psutil.Process().memory_full_info().uss
allocator.keep_freed()
allocator.give_back()
seen = [resident()]
use()
blocks.clear()
seen.append(resident())
thread = threading.Thread(target=load)
thread.start()
thread.join()
seen.append(resident())
blocks.clear()
seen.append(resident())
allocator.give_back_loads()
seen.append(resident())
print(json.dumps([hasattr(ctypes.CDLL(None), "mallctl"), seen]))
"""

needs_jemalloc = pytest.mark.skipif(
    find_library("jemalloc") is None, reason="libjemalloc.so.2 is not installed"
)
# Whatever runs the tests may have one, too.
PLAIN = {
    name: text
    for name, text in os.environ.items()
    if name != "LD_PRELOAD" and not name.startswith("MALLOC_")
}


def environment(library: str) -> Mapping[str, str]:
    """That of a worker, on a host that has jemalloc and on one that has not."""
    own = dict(allocator.environment(PLAIN))
    assert library == GLIBC or "LD_PRELOAD" in own
    if library == GLIBC:
        own.pop("LD_PRELOAD", None)
    return {**PLAIN, **own}


def printed(code: str, environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert not done.stderr, "a library complains"
    return done.stdout


@pytest.mark.parametrize("library", [GLIBC, pytest.param(JEMALLOC, marks=needs_jemalloc)])
def test_all_threads_have_one_heap(library: str) -> None:
    usual = int(printed(HEAPS, PLAIN))
    assert usual > 1, "this C library has one heap anyway, and the next line shows nothing"
    assert int(printed(HEAPS, environment(library))) == 1


@pytest.mark.parametrize("library", [GLIBC, pytest.param(JEMALLOC, marks=needs_jemalloc)])
def test_what_is_freed_is_kept_until_it_is_given_back(library: str) -> None:
    preloaded, seen = json.loads(printed(LIFE, environment(library)))
    assert preloaded == (library == JEMALLOC)
    allocated, resident = zip(*seen, strict=True)
    assert allocated[1] - allocated[0] == pytest.approx(128 * MIB, rel=0.05)
    assert resident[1] - resident[0] > 120 * MIB
    # Freed, and there for the next pass.
    assert allocated[2] - allocated[0] < 8 * MIB
    assert resident[2] - resident[0] > 120 * MIB
    assert resident[3] - resident[0] < 32 * MIB


@pytest.mark.parametrize("library", [GLIBC, pytest.param(JEMALLOC, marks=needs_jemalloc)])
def test_loads_have_a_heap_of_their_own_where_the_library_has_several(library: str) -> None:
    preloaded, seen = json.loads(printed(LOADS, environment(library)))
    assert preloaded == (library == JEMALLOC)
    passes, load, unload, given_back = ((b - a) / MIB for a, b in pairwise(seen))
    assert passes > 50, "kept for the next pass"
    assert abs(unload) < 12
    assert given_back < -50
    kept = (seen[-1] - seen[0]) / MIB
    if library == JEMALLOC:  # in huge pages: some are more than was asked for
        assert load > 50
        assert kept > 50, "what passes use again"
    else:
        assert load < 12, "it used what passes left"
        assert kept < 12


@needs_jemalloc
def test_of_a_users_own_jemalloc_all_is_given_back() -> None:
    """It has several arenas: what one thread has freed is not in that of another."""
    code = LIFE.replace("allocator.keep_freed()\n", "") + textwrap.dedent("""
        import threading, time
        freed, ended = threading.Event(), threading.Event()
        def use():
            blocks = [bytearray(b"x") * (2**20 - 64) for _ in range(128)]
            del blocks
            freed.set()
            ended.wait()  # its heap is given back with it
        threading.Thread(target=use, daemon=True).start()
        freed.wait()
        allocator.give_back()
        until = time.monotonic() + 10
        while now()[1] - seen[0][1] > 32 * 2**20 and time.monotonic() < until:
            time.sleep(0.05)  # the kernel may take its time
        print(json.dumps([hasattr(ctypes.CDLL(None), "mallctl"), [now()]]))
    """)
    kept = "dirty_decay_ms:-1,muzzy_decay_ms:-1"
    own = {"LD_PRELOAD": "libjemalloc.so.2", "MALLOC_CONF": kept}
    before, behind = (json.loads(line) for line in printed(code, {**PLAIN, **own}).splitlines())
    assert before[0], "it is not jemalloc's heap"
    assert behind[1][0][1] - before[1][0][1] < 32 * MIB


@needs_jemalloc
@pytest.mark.parametrize("name", ["LD_PRELOAD", "MALLOC_CONF"])
def test_who_has_a_heap_of_their_own_is_left_alone(name: str) -> None:
    assert allocator.environment({})["LD_PRELOAD"] == "libjemalloc.so.2"
    assert not allocator.environment({name: ""}).keys() & {"LD_PRELOAD", "MALLOC_CONF"}


def test_a_host_without_jemalloc_or_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (None, "libjemalloc.so.1"):
        monkeypatch.setattr(allocator, "find_library", {"jemalloc": name}.get)
        assert not allocator.environment({}).keys() & {"LD_PRELOAD", "MALLOC_CONF"}
