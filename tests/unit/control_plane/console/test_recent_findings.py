"""Findings on the end of a log: its last minutes, whole lines alone."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from control_plane.console import recent_findings
from control_plane.console.recent_findings import FRESH_S, WINDOW_S, RecentFindings

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
    told = RecentFindings(log).look(NOW)
    assert (told["requests"], told["answered"]) == (120, 120)
    assert told["since_unix_s"] == begin
    first = told["findings"][0]
    assert first["cause"] == "MEMORY_PRESSURE"
    # The requests of the slow passes, by which ids they are found again.
    assert first["requests"]
    assert {int(id_[1:]) >= 100 for id_ in first["requests"]} == {True}
    # Of a large log the end, from a whole line on.
    monkeypatch.setattr(recent_findings, "TAIL_BYTES", 5 * len(tight[0]) + 80)
    assert 0 < RecentFindings(log).look(NOW)["requests"] <= 5


def test_a_log_without_requests_has_no_findings(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_text("")
    told = RecentFindings(log).look(NOW)
    assert (told["requests"], told["findings"]) == (0, [])
    with pytest.raises(FileNotFoundError):
        RecentFindings(tmp_path / "none").look(NOW)


def test_a_look_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_text(line(NOW, 0, 10.0, 1.0) + line(NOW, 1, 10.0, 1.0)[:40])
    recent = RecentFindings(log)
    assert recent.look(NOW)["requests"] == 1
    with log.open("a") as file:
        file.write(line(NOW, 1, 10.0, 1.0)[40:] + line(NOW + 1, 2, 10.0, 1.0))
    assert recent.look(NOW + FRESH_S / 2)["requests"] == 1  # the same for all who look now
    assert recent.look(NOW + FRESH_S)["requests"] == 3
    log.rename(tmp_path / "requests.jsonl.1")  # it was turned
    log.write_text(line(NOW + 2, 3, 10.0, 1.0))
    told = recent.look(NOW + 2 * FRESH_S)
    assert (told["requests"], told["since_unix_s"]) == (4, NOW)
    assert recent.look(NOW + WINDOW_S + 1.5)["requests"] == 1
