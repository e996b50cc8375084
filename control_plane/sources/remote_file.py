"""A file of a store outside, as a download reads it, and a file as a watch sees it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

PART_BYTES = 1024 * 1024
# Seconds for a connection, and between two parts.
CONNECT_S, STALL_S = 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Facts:
    """`size_bytes` 0: not told. `stamp` changes whenever the file does; empty: the store tells
    nothing of the kind, and a download that broke begins anew. `metadata`: texts by file name.
    """

    name: str
    size_bytes: int
    stamp: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


class RemoteFile(Protocol):
    """One state of a file. The methods block, and raise SourceUnavailable, SourceChanged,
    SourceDenied and SourceNotFound.
    """

    facts: Facts

    def read(self, offset: int) -> tuple[int, Iterator[bytes]]:
        """The bytes from `offset` on, and where they begin: at 0 if the store can't begin there."""
        ...

    def close(self) -> None:
        """May be called by another thread, to end a read."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A file in a folder: its name there, its URI, and a stamp that changes when it does."""

    name: str
    uri: str
    stamp: str
    changed_unix_s: float
