"""The requests of the last seconds of a log that grows, also through its renaming."""

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from yolopool.cli.doctor.log_files import MAX_LINE_BYTES, STDIN, Read, time_of
from yolopool.doctor.rows import BROKEN, Rows, printable, rows_of
from yolopool.request_log.fields import EVENT

# Of a log that is there already, the end.
TAIL_BYTES = 4 * 2**20
MAX_REQUESTS = 50_000


@dataclass(slots=True)
class Window(Read):
    """What was read of a log that is followed: its requests are named by their ids, since nobody
    counted the lines before.
    """

    ids: Sequence[str] = ()

    def place(self, number: int) -> str:
        return self.ids[number - 1]


class Followed:
    """`name`: a file, or '-' for the standard input, which a thread reads. `has_ended`: nothing
    more comes.
    """

    def __init__(self, name: str) -> None:
        self.lines = self.broken = 0
        self.has_ended = False
        self._path = Path(name)
        self._requests: deque[tuple[float, dict[str, Any]]] = deque(maxlen=MAX_REQUESTS)
        self._file: IO[bytes] | None = None
        self._part = b""
        if name == STDIN:
            threading.Thread(target=self._read_stdin, daemon=True).start()
        else:
            self._file = self._opened(TAIL_BYTES)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self, tail_bytes: int) -> IO[bytes]:
        file = self._path.open("rb")
        begin = file.seek(0, os.SEEK_END) - tail_bytes
        file.seek(max(0, begin - 1))
        if begin > 0:
            file.readline()  # the rest of a line, or the end of the one before
        return file

    def _read_stdin(self) -> None:
        for line in sys.stdin.buffer:
            self._take(line)
        self.has_ended = True

    def read_on(self) -> None:
        """Takes what was written since. Raises OSError if the file can't be read."""
        if self._file is None:
            return
        self._read_rest(self._file)
        held = os.fstat(self._file.fileno())
        if held.st_size < self._file.tell():  # somebody copied and emptied it
            self._file.seek(0)
            self._part = b""
            self._read_rest(self._file)
        try:
            is_other = self._path.stat().st_ino != held.st_ino
        except FileNotFoundError:
            return  # it is being renamed
        if is_other:
            self._read_rest(self._file)  # what was written until it was renamed
            self._file.close()
            self._file = self._path.open("rb")
            self._part = b""
            self._read_rest(self._file)

    def _read_rest(self, file: IO[bytes]) -> None:
        while piece := file.readline(MAX_LINE_BYTES):
            self._part += piece
            if self._part.endswith(b"\n"):
                self._take(self._part)
                self._part = b""
            elif len(self._part) > MAX_LINE_BYTES:
                self._part = self._part[:MAX_LINE_BYTES]  # none of a request

    def _take(self, line: bytes) -> None:
        self.lines += 1
        try:
            record = json.loads(line)
            if isinstance(record, dict) and record.get("event") == EVENT:
                one = (time_of(record), record)
                rows_of([one])  # what is none of a request raises here
                self._requests.append(one)
        except BROKEN:
            self.broken += f'"{EVENT}"'.encode() in line

    def rows(self, window_s: float) -> tuple[Rows, Window]:
        """The requests of the last seconds before the newest one."""
        taken = list(self._requests)
        newest = max((time_s for time_s, _ in taken), default=0.0)
        taken = [one for one in taken if one[0] >= newest - window_s]
        ids = [printable(str(record.get("request_id", "?"))) for _, record in taken]
        return rows_of(taken), Window(self.lines, self.broken, ids=ids)
