"""Logging stops nobody and fails nobody: what can't be written is dropped, counted and told."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from yolopool.server import logs
from yolopool.server.log_writer import DirectLog, LogFile, LogOutput, QueuedLog, RotatedFile


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def descriptor() -> Iterator[int]:
    """One that a log file may take, as it takes that of stderr."""
    opened = os.open(os.devnull, os.O_WRONLY)
    yield opened
    os.close(opened)


def test_what_is_written_arrives_in_order(pipe: tuple[int, int]) -> None:
    stream = QueuedLog(LogOutput(pipe[1]))
    for number in range(100):
        stream.write(f"{number}\n")
    stream.drain(10)
    assert os.read(pipe[0], 4096).decode().split() == [str(number) for number in range(100)]
    assert stream.dropped_lines == 0


def test_without_a_thread_the_log_waits_for_one(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream = QueuedLog(LogOutput(pipe[1]))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        stream.write("a\n")
        stream.write("b\n")
    stream.write("c\n")
    stream.drain(10)
    assert os.read(pipe[0], 4096) == b"a\nb\nc\n"


def test_a_reader_that_stands_still_holds_nobody_up_and_hears_what_it_missed(
    pipe: tuple[int, int],
) -> None:
    stream = QueuedLog(LogOutput(pipe[1]), max_bytes=200_000)
    line = b"x" * 999 + b"\n"
    for _ in range(1000):
        stream.pass_on(line)
    stream.drain(0.01)  # nor the end of the process
    seen = b""
    while len(seen) < 100_000:  # more than the pipe holds: there is room again
        seen += os.read(pipe[0], 65536)
    stream.pass_on(b"last\n")
    while not seen.endswith(b"last\n"):
        seen += os.read(pipe[0], 65536)
    # Where the thread wrote between two lines, there is more than one notice.
    told = sum(map(int, re.findall(rb"\[(\d+) bytes of the log were not written\]\n", seen)))
    assert 500_000 < told < 1_000_000
    assert told + seen.count(line) * len(line) == 1_000_000
    assert stream.dropped_lines == told / len(line)
    stream.drain(10)


def test_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    output = LogOutput(writing)
    DirectLog(output).write("to nobody\n")
    queued = QueuedLog(output)
    queued.pass_on(b"nor this\nnor that\n")
    queued.drain(10)
    assert queued.dropped_lines == 3
    os.close(writing)


def test_a_full_disk_is_no_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    output = LogOutput(full)
    DirectLog(output).write("a line\n")
    queued = QueuedLog(output)
    queued.pass_on(b"of a child\nand its last")
    queued.drain(10)
    assert queued.dropped_lines == 2
    os.close(full)


def test_a_line_that_was_cut_is_ended_and_the_loss_is_told(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    output = LogOutput(writing)
    line = b"x" * 99_999 + b"\n"
    output.put(line)  # the pipe takes only a part
    output.put(b"lost whole\n")
    cut = os.read(reading, 100_000)
    assert line.startswith(cut)
    output.put(b"after\n")
    lost = len(line) - len(cut) + len(b"lost whole\n")
    notice = b"\n[%d bytes of the log were not written]\nafter\n" % lost
    assert os.read(reading, 1000) == notice
    output.put(b"told once\n")
    assert os.read(reading, 1000) == b"told once\n"
    assert output.dropped_lines == 2


def test_a_file_takes_the_place_of_a_closed_stderr(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from yolopool.server.log_writer import LogFile
os.close(2)
LogFile(Path(sys.argv[1])).put(b"a line\\n")
os.system("echo of a child >&2")
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], check=True)
    assert (tmp_path / "log").read_text() == "a line\nof a child\n"


def test_a_file_is_rotated_by_its_size(tmp_path: Path, descriptor: int) -> None:
    path = tmp_path / "log"
    path.write_text("of an earlier run\n")
    output = LogFile(path, max_bytes=60, kept=2, descriptor=descriptor)
    for number in range(12):
        output.put(b"line number %4d\n" % number)
    os.write(descriptor, b"a library\n")  # what goes there without this class
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 70 for file in tmp_path.iterdir())
    kept = "".join((tmp_path / name).read_text() for name in ("log.2", "log.1", "log"))
    assert kept.split("\n")[-3:] == ["line number   11", "a library", ""]
    assert output.dropped_lines == 0


def test_a_file_that_cannot_be_rotated_is_written_on(tmp_path: Path, descriptor: int) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    output = LogFile(folder / "log", max_bytes=20, descriptor=descriptor)
    moved = folder.rename(tmp_path / "elsewhere")
    for number in range(5):
        output.put(b"line number %4d\n" % number)
    assert (moved / "log").read_text().count("\n") == 5
    assert output.dropped_lines == 0


@pytest.mark.usefixtures("structlog_as_it_was")
def test_a_log_file_that_cannot_be_opened_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logs.dropped_lines()
    stream = logs.set_up_logs("test", file=str(tmp_path / "missing" / "log"))
    assert isinstance(stream, QueuedLog)
    stream.drain(10)
    assert "the log file can't be opened" in capfd.readouterr().err
    assert logs.dropped_lines() == before


class Turning:
    """A file of its own that is renamed by size and age, on a clock that tests set."""

    def __init__(self, path: Path, now: float = 1000.0) -> None:
        self.path, self.now = path, now
        self.file = self.opened()

    def opened(self) -> RotatedFile:
        return RotatedFile(self.path, 100, 60.0, 2, lambda: self.now)

    def put(self, text: str) -> None:
        self.file.put(text.encode() + b"\n")

    def read(self) -> dict[str, str]:
        return {one.name: one.read_text() for one in sorted(self.path.parent.iterdir())}


def test_a_file_of_its_own_turns_by_size_and_by_age(tmp_path: Path) -> None:
    log = Turning(tmp_path / "logs" / "r.jsonl")
    log.put("a" * 60)
    log.put("b" * 60)  # no room beside the first
    log.now += 61
    log.put("c")
    log.put("d")
    assert log.read() == {
        "r.jsonl": "c\nd\n",
        "r.jsonl.1": "b" * 60 + "\n",
        "r.jsonl.2": "a" * 60 + "\n",
    }
    log.now += 61
    log.put("e")
    assert log.read() == {"r.jsonl": "e\n", "r.jsonl.1": "c\nd\n", "r.jsonl.2": "b" * 60 + "\n"}


def test_its_age_is_that_of_its_first_line_whoever_wrote_it(tmp_path: Path) -> None:
    log = Turning(tmp_path / "r.jsonl", now=1764576000.0)
    log.put('{"timestamp": "2025-12-01T08:00:00.000000Z"}')
    log.now += 50
    log.file = log.opened()  # another process goes on with it
    log.put("b")
    assert list(log.read()) == ["r.jsonl"]
    log.now += 11
    log.put("c")
    assert list(log.read()) == ["r.jsonl", "r.jsonl.1"]


def test_it_is_made_anew_where_somebody_moved_it(tmp_path: Path) -> None:
    log = Turning(tmp_path / "r.jsonl")
    log.put("a")
    log.path.rename(tmp_path / "moved")
    log.put("b")
    assert log.read() == {"moved": "a\n", "r.jsonl": "b\n"}


def test_two_that_write_to_one_file_turn_it_together(tmp_path: Path) -> None:
    first, second = Turning(tmp_path / "r.jsonl"), Turning(tmp_path / "r.jsonl")
    first.put("a" * 60)
    first.put("b" * 60)
    second.put("c")
    assert first.read() == {"r.jsonl": "b" * 60 + "\nc\n", "r.jsonl.1": "a" * 60 + "\n"}


def test_of_two_that_find_it_due_at_once_one_turns_it(tmp_path: Path) -> None:
    first = Turning(tmp_path / "r.jsonl")
    first.put("a" * 60)

    def meanwhile() -> float:
        """Asked between the look at the file and its renaming."""
        if due:
            first.put(due.pop())
        return first.now

    due: list[str] = []
    second = RotatedFile(first.path, 100, 60.0, 2, meanwhile)
    due.append("b" * 60)
    second.put(b"c" * 39 + b"\n")
    assert first.read() == {
        "r.jsonl": "b" * 60 + "\n" + "c" * 39 + "\n",
        "r.jsonl.1": "a" * 60 + "\n",
    }


def test_who_can_not_turn_it_leaves_that_to_others(tmp_path: Path) -> None:
    log, other = Turning(tmp_path / "logs" / "r.jsonl"), Turning(tmp_path / "logs" / "r.jsonl")
    log.put("a" * 60)
    (tmp_path / "logs" / "r.jsonl.1").mkdir()
    (tmp_path / "logs" / "r.jsonl.1" / "in the way").touch()
    (tmp_path / "logs" / "r.jsonl.2").mkdir()
    (tmp_path / "logs" / "r.jsonl.2" / "in the way").touch()
    log.put("b" * 60)  # it goes on where it is
    assert log.path.read_text() == "a" * 60 + "\n" + "b" * 60 + "\n"
    for number in (1, 2):
        (tmp_path / "logs" / f"r.jsonl.{number}" / "in the way").unlink()
        (tmp_path / "logs" / f"r.jsonl.{number}").rmdir()
    other.put("c")
    assert list(log.read()) == ["r.jsonl", "r.jsonl.1"]


def test_it_is_made_anew_where_somebody_took_it_away(tmp_path: Path) -> None:
    log = Turning(tmp_path / "r.jsonl")
    log.put("a")
    log.path.unlink()
    log.put("b")
    assert log.read() == {"r.jsonl": "b\n"}
    log.path.unlink()
    tmp_path.rmdir()  # it can't be made: the line is lost, and the process goes on
    log.put("c")
