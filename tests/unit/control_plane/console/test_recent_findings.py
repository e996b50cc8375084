"""Findings on the end of a log: its last minutes, whole lines alone."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.console import recent_findings
from control_plane.console.recent_findings import WINDOW_S, diagnosed

NOW = 1_800_000_000.0
GIB = 2**30


def line(at_s: float, number: int, inference_ms: float, used: float) -> str:
    told = {
        "event": "request",
        "timestamp": datetime.fromtimestamp(at_s, UTC).isoformat(),
        "request_id": f"r{number}",
        "model": "shapes",
        "version": 1,
        "outcome": "OK",
        "device": "cuda:0",
        "worker": "w",
        "principal": "key:a",
        "inference_ms": inference_ms,
        "total_ms": inference_ms + 5,
        "queue_ms": 1.0,
        "batch_size": 1,
        "device_used_bytes": used * GIB,
        "device_free_bytes": (4 - used) * GIB,
    }
    return json.dumps(told) + "\n"


def test_the_last_minutes_are_looked_at_and_broken_lines_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "requests.jsonl"
    begin = NOW - WINDOW_S + 10
    old = [line(NOW - WINDOW_S - 10, number, 900.0, 3.98) for number in range(50)]
    roomy = [line(begin + number, number, 48.0 + number % 4, 1.2) for number in range(60)]
    tight = [line(begin + 100 + number, 100 + number, 297.0, 3.98) for number in range(60)]
    broken = ["{}\n", '{"event": "request"}\n', "\xff\n", '{"event": "request", "model']
    log.write_text("".join([*old, *roomy, *tight, *broken]), encoding="latin-1")
    told = diagnosed(log, NOW)
    assert (told["requests"], told["answered"]) == (120, 120)
    assert told["since_unix_s"] == begin
    first = told["findings"][0]
    assert first["cause"] == "MEMORY_PRESSURE"
    # The requests of the slow passes, by which ids they are found again.
    assert first["requests"]
    assert {int(id_[1:]) >= 100 for id_ in first["requests"]} == {True}
    # Of a large log the end, from a whole line on.
    monkeypatch.setattr(recent_findings, "TAIL_BYTES", 5 * len(tight[0]) + 80)
    assert 0 < diagnosed(log, NOW)["requests"] <= 5


def test_a_log_without_requests_has_no_findings(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_text("")
    told = diagnosed(log, NOW)
    assert (told["requests"], told["findings"]) == (0, [])
    with pytest.raises(FileNotFoundError):
        diagnosed(tmp_path / "none", NOW)
