"""A worker process that is stopped (SIGSTOP): nobody hears so, and no request waits for it."""

import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from yolopool import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
IMAGE = demo.find().images[0]
SHAPES = demo.find().models["shapes"]


def pid_of(address: str) -> int:
    """The process of ours that listens at an address."""
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        for one in child.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                return int(child.pid)
    raise AssertionError(f"nobody of ours listens at {address}")


def test_requests_are_answered_by_the_other() -> None:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:2")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, "shapes", SHAPES)
            client.load("shapes", replicas=2)
            stopped = client.detect(IMAGE, model="shapes").worker
            workers = {worker.id: worker for worker in client.workers()}
            pid = pid_of(workers[stopped].address)
            os.kill(pid, signal.SIGSTOP)
            try:
                # Each with a deadline far beyond an attempt's limit, far below the lease's end.
                answers = [client.detect(IMAGE, model="shapes", timeout_s=3) for _ in range(20)]
            finally:
                os.kill(pid, signal.SIGCONT)
            assert {answer.worker for answer in answers} == workers.keys() - {stopped}
            # Heard again, it serves again.
            for _ in range(200):
                if client.detect(IMAGE, model="shapes").worker == stopped:
                    break
            else:
                raise AssertionError("the worker that goes on gets no requests")
