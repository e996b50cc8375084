"""`yolopool up` as a person ends it: whatever way that is, no process is left."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
COMMAND = "from yolopool.cli.main import main; main()"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        yield Path(path)


@pytest.fixture
def up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Just started: what of the pool is there already is for the test to wait for."""
    arguments = ["up", "--devices", "sim:2", "--no-demo", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--port", "0", "--http-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()
    for left in of_the_pool(folder):
        left.kill()


def of_the_pool(folder: Path, module: str = "") -> list[psutil.Process]:
    """Processes that name the data directory, whoever their parent is now; `module`: of it alone.
    One may end at any moment, so its words are asked for once.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            words = process.cmdline()
            is_named = any(str(folder) in word for word in words)
            if "up" not in words and is_named and (not module or module in words):
                found.append(process)
    return found


def of_module(folder: Path, module: str) -> Callable[[], bool]:
    return lambda: bool(of_the_pool(folder, module))


# Each is there before it can have asked to die with its parent: Python itself takes longer.
@pytest.mark.parametrize("newest", ["control_plane", "importer", "worker"])
def test_killed_while_it_starts(up: subprocess.Popen[str], folder: Path, newest: str) -> None:
    until(f"{newest} was started", of_module(folder, newest), limit_s=60)
    up.kill()
    until("nothing is left", lambda: not of_the_pool(folder), limit_s=20)


def test_killed_while_it_serves(up: subprocess.Popen[str], folder: Path) -> None:
    assert up.stdout is not None
    assert up.stdout.readline().startswith("READY")
    up.kill()
    until("nothing is left", lambda: not of_the_pool(folder), limit_s=20)


def test_a_second_ctrl_c_does_not_wait(up: subprocess.Popen[str], folder: Path) -> None:
    assert up.stdout is not None
    assert up.stderr is not None
    assert up.stdout.readline().startswith("READY")
    (control_plane,) = of_the_pool(folder, "control_plane")
    control_plane.suspend()  # can't end by itself
    up.send_signal(signal.SIGINT)
    while "stopping" not in (line := up.stderr.readline()):
        assert line, "it ended without a word"
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 128 + signal.SIGINT
    until("nothing is left", lambda: not of_the_pool(folder))


def test_what_ends_by_itself_is_started_again(up: subprocess.Popen[str], folder: Path) -> None:
    assert up.stdout is not None
    assert up.stderr is not None
    assert up.stdout.readline().startswith("READY")
    (first,) = of_the_pool(folder, "control_plane")
    port = [word for word in first.cmdline() if word.startswith("--port=")]
    first.kill()
    until(
        "another control plane runs",
        lambda: any(p.pid != first.pid for p in of_the_pool(folder, "control_plane")),
        limit_s=60,
    )
    assert port == ["--port=0"]
    os.kill(up.pid, signal.SIGINT)
    assert "control plane ended; restarting it" in up.communicate(timeout=60)[1]
    logged = (folder / "logs" / "control_plane.log").read_text()
    assert '"event": "serving"' in logged
    assert not of_the_pool(folder)
