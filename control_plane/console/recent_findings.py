"""What the doctor finds in the end of the request log, as the page of findings shows it."""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from yolopool.doctor.diagnosis import findings
from yolopool.doctor.rows import rows_of
from yolopool.request_log.fields import EVENT

TAIL_BYTES = 4 * 2**20
WINDOW_S = 300.0
_MARK = f'"{EVENT}"'.encode()


def diagnosed(log: Path, now: float) -> dict[str, Any]:
    """Findings on the requests of the last minutes of a log, as JSON has them; now: Unix seconds.
    Raises OSError if the log can't be read.
    """
    lines = [one for one in _lines(_tail(log)) if one[0] >= now - WINDOW_S]
    ids = [str(line.get("request_id", "")) for _, line in lines]
    found = [one.to_dict() for one in findings(rows_of(lines))]
    for one in found:
        # Nobody counted the lines before these.
        one["requests"] = [ids[place - 1] for place in one.pop("lines")]
    answered = sum(line["outcome"] == "OK" for _, line in lines)
    return {
        "window_s": WINDOW_S,
        "requests": len(lines),
        "answered": answered,
        "since_unix_s": min((at for at, _ in lines), default=now),
        "findings": found,
    }


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        size_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, size_bytes - TAIL_BYTES))
        data = file.read(TAIL_BYTES)
    # It may begin in the middle of a line.
    return data.partition(b"\n")[2] if size_bytes > TAIL_BYTES else data


def _lines(data: bytes) -> Iterator[tuple[float, dict[str, Any]]]:
    for text in data.splitlines():
        if _MARK not in text:
            continue
        try:
            line = json.loads(text)
            one = datetime.fromisoformat(line["timestamp"]).timestamp(), line
            rows_of([one])  # what is none of a request raises here
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # the last one may be half written
        yield one
