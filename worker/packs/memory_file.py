"""A file that exists in memory alone: for libraries that read files, of bytes that are in memory.

Python's own copies of bytes hold the interpreter lock: nothing else would run meanwhile, and for as
long as a thread of low priority waits for a core in the middle of one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from worker.arrays import U8
from yolopool.errors import OutOfMemory


@contextmanager
def memory_file(content: U8) -> Iterator[str]:
    """The path of a file with these bytes, which is there inside. Raises OutOfMemory."""
    descriptor = os.memfd_create("pack", os.MFD_CLOEXEC)
    try:
        _write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: U8) -> None:
    rest = content.data
    try:
        while rest:  # the kernel takes less than 2 GiB at once
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise OutOfMemory(
            f"the host has no {len(content)} bytes to load a pack ({error}): release a model or "
            "lower --memory-budget"
        ) from error
