"""A file of the artifact store as it is received: on disk and hashed, by one process at a time."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from yolopool.errors import InvalidOffset, StorageFailed

log = structlog.get_logger()

_REHASH_BYTES = 1 << 20
_BUSY = "another control plane receives this file at the moment: ask again how much of it is held"


class Upload:
    """One upload in progress. The bytes received so far are on disk and hashed."""

    def __init__(
        self, file: BinaryIO, hasher: Any, received_bytes: int, check: Callable[[int], None]
    ) -> None:
        self._file, self._hasher = file, hasher
        self._check = check
        self.received_bytes = received_bytes

    async def write(self, chunk: bytes) -> None:
        """Appends a chunk. Raises what `check` does if so many bytes are too many."""
        self._check(self.received_bytes + len(chunk))
        await asyncio.to_thread(self._append, chunk)
        self.received_bytes += len(chunk)

    async def restart(self) -> None:
        """Forgets what was received: it is of another state of the file."""
        await asyncio.to_thread(self._file.truncate, 0)
        self._hasher, self.received_bytes = hashlib.sha256(), 0

    def digest(self) -> str:
        """SHA-256 of the bytes received, in hexadecimal."""
        return str(self._hasher.hexdigest())

    def _append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        # What is counted is in the file: who asks how much is held may be another process.
        self._file.flush()
        self._hasher.update(chunk)


def open_alone(path: Path, held: int) -> BinaryIO:
    """The file of an upload, to append to its `held` bytes. Raises StorageFailed while another
    process has it, or if that has just ended it: two that append would spoil what one has verified.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StorageFailed(_BUSY, retry_after_s=1.0) from None
    except OSError as error:  # a file system without locks
        log.warning("uploads can't be locked", folder=str(path.parent), why=str(error))
    there = os.fstat(file.fileno())
    if there.st_size == held and path.exists() and os.path.samestat(there, path.stat()):
        return file
    file.close()
    raise StorageFailed(_BUSY, retry_after_s=1.0)


def check_announced(size_bytes: int, received_bytes: int) -> None:
    if received_bytes > size_bytes:
        raise InvalidOffset(
            f"more bytes than the {size_bytes} that the header announced: give the file's true size"
        )


def hash_of(path: Path) -> Any:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_REHASH_BYTES):
            hasher.update(part)
    return hasher


def settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
