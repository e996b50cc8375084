"""The child of an import while it runs, from the importer's side, however it was started."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

# Longer lines than any that a job writes.
LINE_BYTES = 4 * 1024**2


class Running(Protocol):
    """A child that was given an order. `lines` and `errors` are its stdout and stderr."""

    pid: int
    lines: asyncio.StreamReader
    errors: asyncio.StreamReader

    @property
    def has_ended(self) -> bool: ...

    def kill(self) -> None:
        """Ends it, and what it started, at once. Nothing if it has ended."""
        ...

    async def wait(self) -> int | None:
        """Its exit status, or minus the signal that ended it. None: it ended with its parent."""
        ...

    def close(self) -> None:
        """After its end: gives back its pipes, read to their end or not."""
        ...


# Starts a child with its order, in the folder of its job. Raises OSError, DiskFull.
Start = Callable[[bytes, Path], Awaitable[Running]]


class Talk:
    """What an importer and a child say to each other: an order, which is a file in memory, and the
    child's lines and errors. `given` are the child's stdin, stdout and stderr.
    """

    def __init__(self, order: bytes) -> None:
        self._open: list[int] = []
        try:
            stdin = self._own(os.memfd_create("order"))
            _write(stdin, order)
            (lines, stdout), (errors, stderr) = self._pipe(), self._pipe()
        except BaseException:
            self.give()
            raise
        self.given = stdin, stdout, stderr
        self._read = lines, errors
        self._transports: list[asyncio.ReadTransport] = []

    async def readers(self) -> tuple[asyncio.StreamReader, asyncio.StreamReader]:
        """What the child will say, and its errors. Call it once."""
        lines, errors = [await self._reader(descriptor) for descriptor in self._read]
        return lines, errors

    def give(self) -> None:
        """The child has them: so that its pipes end when it does."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def close(self) -> None:
        for transport in self._transports:
            transport.close()

    async def _reader(self, descriptor: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(LINE_BYTES)
        self._open.remove(descriptor)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
        )
        self._transports.append(transport)
        return reader

    def _pipe(self) -> tuple[int, int]:
        ours, theirs = os.pipe()
        return self._own(ours), self._own(theirs)

    def _own(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
