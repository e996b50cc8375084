"""Reads request logs as they are on disk: gigabytes line by line, rotated, compressed, broken."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

from yolopool.doctor.rows import BROKEN, RowsBuilder
from yolopool.errors import InvalidOption
from yolopool.request_log.fields import EVENT

STDIN = "-"
GZIP = b"\x1f\x8b"
_MARK = f'"{EVENT}"'.encode()
# A line longer than this is none of a request.
MAX_LINE_BYTES = 1 << 20
TOLD_EVERY = 2000


@dataclass(slots=True)
class Read:
    """What was read: lines in all, and those of requests that can't be read. `begins`: number of
    the first line of each file, by which a line is found again.
    """

    lines: int = 0
    broken: int = 0
    begins: list[tuple[int, str]] = field(default_factory=list)

    def place(self, number: int) -> str:
        """FILE:LINE of a line."""
        first, name = max(one for one in self.begins if one[0] <= number)
        return f"{name}:{number - first + 1}"


def files_of(given: Sequence[str], default: Path) -> list[str]:
    """The files to read, oldest first; of the default also those that were renamed. Raises
    InvalidOption for one that is not there.
    """
    if given:
        for name in given:
            if name != STDIN and not Path(name).is_file():
                raise InvalidOption(f"there is no file {name}: give a request log")
        return list(given)
    if not default.is_file():
        raise InvalidOption(
            f"there is no request log at {default}: give its file, or '-' for the standard input; "
            "`yolopool up` writes one, and a control plane with --request-log"
        )
    earlier = [one for one in default.parent.glob(f"{default.name}.*") if _number(one) > 0]
    return [*map(str, sorted(earlier, key=_number, reverse=True)), str(default)]


def _number(path: Path) -> int:
    text = path.name.removesuffix(".gz").rpartition(".")[2]
    return int(text) if text.isdecimal() else 0


def size_of(files: Sequence[str]) -> int:
    """Bytes of the files, as they are on disk."""
    return sum(Path(name).stat().st_size for name in files if name != STDIN)


def read_into(
    builder: RowsBuilder, files: Sequence[str], told: Callable[[int], object] = lambda _: None
) -> Read:
    """Adds the requests of all files; calls `told` now and then with the bytes read on disk since.

    Raises OSError, and InvalidOption for a file that is damaged by its compression.
    """
    read = Read()
    for name in files:
        read.begins.append((read.lines + 1, name))
        with _opened(name) as (raw, stream):
            before = 0
            try:
                is_whole = True
                while line := stream.readline(MAX_LINE_BYTES):
                    if is_whole:  # else it is the rest of one that is too long
                        read.lines += 1
                        add(builder, line, read)
                    is_whole = line.endswith(b"\n")
                    if read.lines % TOLD_EVERY == 0 and raw is not None:
                        told(raw.tell() - before)
                        before = raw.tell()
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise InvalidOption(f"{name} is damaged: {error}") from error
            if raw is not None:
                told(raw.tell() - before)
    return read


def add(builder: RowsBuilder, line: bytes, read: Read) -> None:
    """One line of a log, of whatever it is."""
    if _MARK not in line:
        return
    try:
        record = json.loads(line)
        if record.get("event") == EVENT:
            builder.add(record, time_of(record), read.lines)
    except BROKEN:
        read.broken += 1


def time_of(record: Mapping[str, Any]) -> float:
    """When a line was written, Unix seconds. Raises one of BROKEN."""
    return datetime.fromisoformat(record["timestamp"]).timestamp()


@contextmanager
def _opened(name: str) -> Iterator[tuple[IO[bytes] | None, IO[bytes]]]:
    """The file on disk, whose position is told, and the stream of its lines."""
    if name == STDIN:
        yield None, sys.stdin.buffer
        return
    with Path(name).open("rb") as raw:
        is_packed = raw.read(2) == GZIP
        raw.seek(0)
        yield raw, cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_packed else raw
