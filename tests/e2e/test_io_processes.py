"""A pool whose workers take images in processes of their own: one is killed under load."""

import os
import signal
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from tests.waiting import until
from yolopool import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
IMAGE = demo.find().images[0]
SHAPES = demo.find().models["shapes"]


def io_pids() -> set[int]:
    """Our I/O processes that live."""
    return {child.pid for child in psutil.Process().children(recursive=True) if _is_io(child)}


def _is_io(process: psutil.Process) -> bool:
    try:
        is_ended = process.status() == psutil.STATUS_ZOMBIE
        return not is_ended and "worker.io_processes.server" in process.cmdline()
    except psutil.NoSuchProcess:
        return False  # it ended between two looks


def test_a_killed_one_costs_no_request_and_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("YOLOPOOL_WORKER_IO_PROCESSES", "2")
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:2")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, "shapes", SHAPES)
            client.load("shapes", replicas=2)
            until("all I/O processes are there", lambda: len(io_pids()) == 4)
            first, answers, ended = io_pids(), [], threading.Event()

            def ask() -> None:
                while not ended.is_set():
                    answers.append(client.detect(IMAGE, model="shapes", timeout_s=20).worker)

            callers = [threading.Thread(target=ask) for _ in range(4)]
            for caller in callers:
                caller.start()
            until("requests are answered", lambda: len(answers) > 20)
            victim = min(first)
            os.kill(victim, signal.SIGKILL)
            until("another took its place", lambda: len(io_pids() - {victim}) == 4)
            before = len(answers)
            until("requests are answered still", lambda: len(answers) > before + 50)
            ended.set()
            for caller in callers:
                # One that was not answered has ended with its error, which fails the test too.
                caller.join()
            assert first - {victim} < io_pids()
            assert set(answers) == {worker.id for worker in client.workers()}
    assert not io_pids()
