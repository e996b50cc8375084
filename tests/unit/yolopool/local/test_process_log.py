"""What a process said since it was started, whatever stood in its log before."""

import subprocess
import sys
from pathlib import Path

from yolopool.local.process_log import SHOWN_LINES, ProcessLog

MANY = SHOWN_LINES + 5


def said(log: ProcessLog, words: str) -> None:
    """As a child says it."""
    with log.opened() as output:
        subprocess.run([sys.executable, "-S", "-c", f"print({words!r})"], stdout=output, check=True)


def test_of_an_earlier_run_nothing_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "log"
    said(ProcessLog(path), "port 1 is taken")
    log = ProcessLog(path)
    said(log, "port 2 is taken")
    assert log.last_words() == "port 2 is taken"
    said(log, "port 3 is taken")
    assert log.last_words() == "port 3 is taken"
    assert path.read_text().split("\n")[0] == "port 1 is taken"


def test_only_the_end_is_shown(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "log")
    said(log, "\n".join(map(str, range(MANY))))
    assert log.last_words().split("\n") == [str(number) for number in range(5, MANY)]


def test_a_file_that_was_rotated_is_shown_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("long ago\n" * 100)
    log = ProcessLog(path)
    with log.opened():
        path.rename(tmp_path / "log.1")
        path.write_text("new\n")
    assert log.last_words() == "new"


def test_without_a_file_there_are_no_words(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "missing" / "log")
    with log.opened() as output:
        assert output == subprocess.DEVNULL
    assert log.last_words() == ""
