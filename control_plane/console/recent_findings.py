"""What the doctor finds in the end of the request log, as the page of findings shows it. One look
serves all open pages, and reads what came since the one before.
"""

import os
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from yolopool.doctor.diagnosis import findings
from yolopool.doctor.rows import rows_of
from yolopool.request_log.fields import EVENT

TAIL_BYTES = 4 * 2**20
MAX_LINES = 4000
WINDOW_S, FRESH_S = 300.0, 15.0
_MARK = f'"{EVENT}"'.encode()


class RecentFindings:
    """Not thread-safe: one look at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._lines: deque[tuple[float, dict[str, Any]]] = deque(maxlen=MAX_LINES)
        # How far which file was read.
        self._file, self._read_bytes = 0, 0
        self._looked_s = float("-inf")
        self._told: dict[str, Any] = {}

    def look(self, now: float) -> dict[str, Any]:
        """Findings on the requests of the last minutes, as JSON has them, at most FRESH_S old; now:
        Unix seconds. Raises OSError if the log can't be read.
        """
        if not 0 <= now - self._looked_s < FRESH_S:
            self._lines.extend(_lines_of(self._new()))
            while self._lines and self._lines[0][0] < now - WINDOW_S:
                self._lines.popleft()
            self._told = _told([one for one in self._lines if one[0] >= now - WINDOW_S], now)
            self._looked_s = now
        return self._told

    def _new(self) -> bytes:
        """Whole lines that came since the last look; of many the last ones."""
        with self._log.open("rb") as file:
            there = os.fstat(file.fileno())
            if there.st_ino != self._file or there.st_size < self._read_bytes:
                self._file, self._read_bytes = there.st_ino, 0
            begin = max(self._read_bytes, there.st_size - TAIL_BYTES)
            file.seek(begin)
            data = file.read(TAIL_BYTES)
        whole = data[: data.rfind(b"\n") + 1]  # the last one may be half written
        is_cut = begin > self._read_bytes
        self._read_bytes = begin + len(whole)
        return whole.partition(b"\n")[2] if is_cut else whole


def _told(lines: list[tuple[float, dict[str, Any]]], now: float) -> dict[str, Any]:
    found = [one.to_dict() for one in findings(rows_of(lines))]
    for one in found:
        # Nobody counted the lines before these.
        places = one.pop("lines")
        one["requests"] = [str(lines[place - 1][1].get("request_id", "")) for place in places]
    return {
        "window_s": WINDOW_S,
        "requests": len(lines),
        "answered": sum(line["outcome"] == "OK" for _, line in lines),
        "since_unix_s": min((at for at, _ in lines), default=now),
        "findings": found,
    }


def _lines_of(data: bytes) -> Iterator[tuple[float, dict[str, Any]]]:
    for text in data.splitlines():
        if _MARK not in text:
            continue
        try:
            line = orjson.loads(text)
            one = datetime.fromisoformat(line["timestamp"]).timestamp(), line
            rows_of([one])  # what is none of a request raises here
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        yield one
