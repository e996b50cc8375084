"""`yolopool doctor` on files as they are: renamed, compressed, broken, growing."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.yolopool.doctor.test_diagnosis import CLASSIC, ROOT
from yolopool.cli.doctor import following
from yolopool.cli.doctor.following import Followed
from yolopool.cli.doctor.log_files import MAX_LINE_BYTES
from yolopool.cli.main import app
from yolopool.doctor.diagnosis import findings


def texts(lines: list[dict[str, Any]] = CLASSIC) -> list[str]:
    return [
        json.dumps(
            {
                "timestamp": f"2026-12-01T08:00:{number:02d}.000000Z",
                "event": "request",
                "request_id": f"r{number}",
                **line,
            }
        )
        + "\n"
        for number, line in enumerate(lines)
    ]


def asked(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_log_of_up_is_read_with_what_was_renamed_before_it(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    first, second, third = texts()
    (logs / "requests.jsonl.10.gz").write_bytes(gzip.compress(first.encode()))
    (logs / "requests.jsonl.2").write_text('{"event": "ready"}\n' + second)
    (logs / "requests.jsonl").write_text(third)
    told = json.loads(asked("--data-dir", tmp_path, "--json"))
    assert (told["requests"], told["broken_lines"], told["lines"]) == (3, 0, 4)
    (finding,) = told["findings"]
    assert finding["cause"] == "MEMORY_PRESSURE"
    assert finding["lines"] == [f"{logs}/requests.jsonl:1"]
    assert told["by_model_and_device"][0]["requests"] == 3


def test_without_a_folder_it_is_the_one_of_up() -> None:
    folders = [
        next(one.default for one in ROOT.commands[name].params if "--data-dir" in one.opts)
        for name in ("up", "doctor")
    ]
    assert folders[0] == folders[1]


def test_what_can_not_be_read_is_counted_and_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cut = texts()[0][:100]
    log.write_text(
        "[12 bytes of the log were not written]\n" + cut + '\n{"event": "request"}\n'
        '{"event": "infer", "why": "request"}\n["request"]\n' + "".join(texts())
    )
    told = json.loads(asked(log, "--json"))
    assert (told["requests"], told["broken_lines"]) == (3, 3)
    log.write_bytes(bytes(range(256)) * 50)
    assert json.loads(asked(log, "--json"))["requests"] == 0


def test_a_person_reads_cause_cost_lines_and_change(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(texts()))
    told = " ".join(asked(log).split())
    for words in (
        "3 requests in 0.0 minutes, 3 answered",
        "1. critical passes on cuda:GPU-0 slow down as its memory fills MEMORY_PRESSURE",
        "It costs 249 ms of each of 1 requests, 82 % of their time",
        "yolopool worker --device cuda:GPU-0 --memory-budget 0.75",
    ):
        assert words in told
    log.write_text("".join(texts(CLASSIC[:2] * 4)))
    assert "Nothing stands out" in asked(log)


def test_what_callers_choose_is_shown_and_does_nothing(tmp_path: Path) -> None:
    """Escapes of a terminal, half a character, what rich takes for its markup, and numbers without
    end; and no command has it but in quotes.
    """
    log = tmp_path / "log"
    lines = [
        {**CLASSIC[0], "model": "\x1b]\x07[/b]", "version": 0},
        {**CLASSIC[1], "model": "b\ud800", "version": 0},
        {**CLASSIC[0], "version": 10**400},
        {
            **CLASSIC[2],
            "principal": "token:x; touch owned",
            "client_retry": 1,
            "outcome": "CANCELLED",
        },
    ]
    log.write_text("".join(texts(lines)))
    told = asked(log)
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "[/b]" in told
    assert "1 lines can't be read" in told
    assert "yolopool tenants set 'x; touch owned'" in told
    asked(log, "--html", tmp_path / "page.html")
    followed = Followed(str(log))
    followed.read_on()
    rows, window = followed.rows(60)
    assert len(rows) == 3
    assert followed.broken == 1
    log.write_text(json.dumps({**json.loads(texts()[0]), "request_id": "a\x1b[2J"}) + "\n")
    followed.read_on()  # it was emptied
    rows, window = followed.rows(60)
    assert [window.place(number + 1) for number in range(4)] == ["r0", "r1", "r3", "a\ufffd[2J"]
    followed.close()


def test_the_page_needs_nothing_else_and_runs_nothing(tmp_path: Path) -> None:
    log, page = tmp_path / "log", tmp_path / "report.html"
    hostile = [{**line, "model": "<script>alert(1)</script>"} for line in CLASSIC]
    log.write_text("".join(texts(hostile)))
    asked(log, "--html", page)
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=|url\(|@import", text)
    for title in ("Latency over time", "Waits over time", "Memory against latency"):
        assert title in text


def test_standard_input_and_files_that_are_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yolopool", "doctor", "-", "--json"],
        input="".join(texts()).encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["requests"] == 3
    for arguments, words in (
        ([tmp_path / "no"], "there is no file"),
        (["--data-dir", tmp_path], "--request-log"),
        (["--data-dir", tmp_path, "--live"], "there is no request log"),
    ):
        failed = CliRunner().invoke(app, ["doctor", *map(str, arguments)])
        assert failed.exit_code != 0
        assert words in str(failed.exception)


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log.gz"
    log.write_bytes(gzip.compress("".join(texts() * 500).encode())[:-20])
    failed = CliRunner().invoke(app, ["doctor", str(log)])
    assert "is damaged" in str(failed.exception)
    packed = bytearray(gzip.compress("".join(texts() * 500).encode()))
    packed[40:60] = b"\xff" * 20
    log.write_bytes(packed)
    failed = CliRunner().invoke(app, ["doctor", str(log)])
    assert "is damaged" in str(failed.exception)


def test_a_line_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 3 * MAX_LINE_BYTES + "\n" + "".join(texts()))
    told = json.loads(asked(log, "--json"))
    assert (told["requests"], told["lines"]) == (3, 4)
    assert told["findings"][0]["lines"] == [f"{log}:4"]


def test_a_log_is_followed_from_a_whole_line_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_text("".join(texts()))
    size_bytes = log.stat().st_size
    ends = [len(texts()[2]), len("".join(texts()[1:]))]
    for tail_bytes, count in ((ends[0], 1), (ends[1] - 1, 1), (ends[1], 2), (size_bytes, 3)):
        monkeypatch.setattr(following, "TAIL_BYTES", tail_bytes)
        followed = Followed(str(log))
        followed.read_on()
        assert (len(followed.rows(60)[0]), followed.broken) == (count, 0)
        followed.close()


def test_what_is_written_until_the_renaming_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(texts()[0])
    followed = Followed(str(log))

    class Log(type(log)):  # type: ignore[misc]
        def stat(self, **options: Any) -> Any:
            """Renamed between the reading and the look."""
            with log.open("a") as stream:
                stream.write(texts()[1])
            log.rename(tmp_path / "log.1")
            log.write_text(texts()[2])
            return log.stat(**options)

    followed._path = Log(log)
    followed.read_on()
    assert len(followed.rows(60)[0]) == 3
    followed.close()


def test_a_log_that_grows_is_followed_through_its_renaming(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second, third = texts()
    log.write_text(first + second[:50])
    followed = Followed(str(log))
    followed.read_on()
    assert len(followed.rows(60)[0]) == 1
    with log.open("a") as stream:
        stream.write(second[50:])
    log.rename(tmp_path / "log.1")
    followed.read_on()  # nobody has made it anew yet
    log.write_text('{"event": "request", cut\n' + third)
    followed.read_on()
    rows, window = followed.rows(60)
    assert (len(rows), window.lines, window.broken) == (3, 4, 1)
    (finding,) = findings(rows)
    assert finding.cause == "MEMORY_PRESSURE"
    assert [window.place(place) for place in finding.places] == ["r2"]
    assert len(followed.rows(1.5)[0]) == 2
    followed.close()
