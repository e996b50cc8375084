"""Turns what the operating system says when it has no more room into typed errors."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from yolopool.errors import DiskFull, OutOfFiles, OutOfMemory, StorageFailed, YolopoolError

_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_FILES = frozenset((errno.EMFILE, errno.ENFILE))
_BROKEN = frozenset((errno.EROFS, errno.EIO, errno.ESTALE))
GRPC_DESCRIPTORS = 5
_ENOUGH_FILES = 2**20
# What Python says without a type of its own.
_NO_THREAD = "can't start new thread"


def typed(error: BaseException, place: str | Path = "") -> YolopoolError | None:
    """The error for callers if a disk, the memory or the descriptors ran out; else None. `place`
    is the folder that was written to.
    """
    if isinstance(error, MemoryError):
        return OutOfMemory("this process has no memory left: try again, or give it more")
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return OutOfMemory("this process can start no more threads: try again, or give it more")
    if not isinstance(error, OSError):
        return None
    what = f"{place or error.filename or 'a folder of this process'}"
    details = {"place": what}
    if error.errno in _DISK:
        return DiskFull(
            f"the disk of {what} is full ({error.strerror}): make room on it and try again",
            details=details,
        )
    if error.errno in _BROKEN:
        return StorageFailed(
            f"the disk of {what} can't be written ({error.strerror}): mend it and try again",
            details=details,
        )
    if error.errno in _FILES:
        return OutOfFiles(
            f"no more files can be opened ({error.strerror}): try again, and raise the limit of "
            "open files (ulimit -n) of this process"
        )
    if error.errno == errno.ENOMEM:
        return OutOfMemory("this machine has no memory left: try again, or free some")
    return None


def allowed_files() -> int:
    """How many files this process may open, after it has asked for as many as it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = _ENOUGH_FILES
    if soft < hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


def check_descriptors() -> None:
    """Raises OutOfFiles if there are fewer descriptors than gRPC's first connection takes: it would
    end the process.
    """
    opened: list[int] = []
    try:
        for _ in range(GRPC_DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        said = typed(error)
        if said is not None:
            raise said from error
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def storing(place: Path) -> Iterator[None]:
    """Raises the typed error if what is written to `place` finds no room."""
    try:
        yield
    except OSError as error:
        said = typed(error, place)
        if said is None:
            raise
        raise said from error
