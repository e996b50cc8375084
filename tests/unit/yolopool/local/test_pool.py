"""What `yolopool up` does while no process can be started."""

import subprocess
import sys
from pathlib import Path

import pytest

from yolopool.local import pool as local_pool
from yolopool.local.pool import LocalPool, PoolOptions
from yolopool.local.process_log import ProcessLog


def test_a_process_that_can_not_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_pool, "RESTART_DELAY_S", 0.0)
    monkeypatch.setattr(local_pool, "POLL_S", 0.001)
    said: list[str] = []
    pool = LocalPool(PoolOptions(tmp_path), said.append)
    command = [str(tmp_path / "python")]  # not there yet
    child = local_pool._Child("importer", command, ProcessLog(tmp_path / "log"), {})
    child.process = subprocess.Popen([sys.executable, "-c", ""])
    child.process.wait()
    pool._children.append(child)
    pool.watch(lambda: len(said) >= 3)
    assert said[0].startswith("importer ended; restarting it")
    assert said[2] == "importer can't be started now: No such file or directory; trying again"
    child.command[:] = [sys.executable, "-c", "import time; time.sleep(60)"]
    pool.watch(lambda: not child.ended() and not child.restart_at)
    assert child.process.poll() is None
    child.process.kill()
    child.process.wait()
