"""One of two workers is drained or stopped (SIGSTOP): the other answers, no request is lost. And
both are tuned to a goal, and adapt to it.
"""

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.contract.cli.command_line import yolopool
from tests.waiting import until
from yolopool import Client, errors
from yolopool.client.model_records import Batching
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
IMAGE = demo.find().images[0]
SHAPES = demo.find().models["shapes"]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of a pool whose two workers both have the demo model."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:2")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, "shapes", SHAPES)
            yield client


def test_a_drained_worker_comes_back_as_a_new_process_and_no_request_fails(client: Client) -> None:
    client.load("shapes", replicas=2)
    before = {worker.id: worker.incarnation for worker in client.workers()}
    drained = client.detect(IMAGE, model="shapes").worker
    failed: list[errors.YolopoolError] = []
    answered: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            try:
                answered.append(client.detect(IMAGE, model="shapes").worker)
            except errors.YolopoolError as error:
                failed.append(error)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    assert client.drain_worker(drained) == ()

    def is_back() -> bool:
        now = {worker.id: worker for worker in client.workers()}
        one = now.get(drained)
        return one is not None and one.state == "READY" and not one.cordoned

    until("a fresh process is there", is_back, 30)
    enough.set()
    for caller in callers:
        caller.join()
    after = {worker.id: worker.incarnation for worker in client.workers()}
    assert failed == []
    assert set(answered) == set(before)
    assert after.keys() == before.keys()
    assert [id_ for id_ in before if after[id_] != before[id_]] == [drained]


def pid_of(address: str) -> int:
    """The process of ours that listens at an address."""
    port = int(address.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        for one in child.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port:
                return int(child.pid)
    raise AssertionError(f"nobody of ours listens at {address}")


def test_nobody_waits_for_one_that_is_stopped(client: Client) -> None:
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


def test_tune_reaches_a_goal_and_says_so_where_it_can_not(client: Client) -> None:
    at = ("--address", client.address, "--batch", "1,4", "--seconds", "0.05", "--json")
    goal = ("tune", "shapes", "--p99", "2s", "--rate", "40", "--store", "--check", "1")
    done = yolopool(None, *goal, *at)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["is_reached"]
    assert found["trial"]["p99_s"] <= 2.0
    assert (found["trial"]["failed"], found["trial"]["requests"] > 10) == (0, True)
    (version,) = client.model("shapes").versions
    proposed = found["proposal"]
    assert version.batching["sim"] == Batching(
        proposed["max_batch"],
        tuple(proposed["preferred_sizes"]),
        0.0,  # the device is hardly busy at that rate
        p99_goal_ms=2000,
    )
    assert version.wanted_replicas == proposed["replicas"]
    # A pass alone takes longer: nothing reaches it, and nothing is set.
    done = yolopool(None, "tune", "shapes", "--p99", "0.5ms", "--rate", "40", "--store", *at)
    assert done.returncode == 9, done.stderr
    short = json.loads(done.stdout)
    assert (short["is_reached"], short["proposal"], short["stored"]) == (False, None, False)
    assert short["shortfall"]["nearest"]["p99_s"] > 0.0005
    assert client.model("shapes").versions[0].batching == version.batching


def test_a_worker_adapts_to_the_goal_and_says_so(client: Client) -> None:
    client.load("shapes", replicas=1)
    client.set_batching("shapes", "sim", Batching(8, max_delay_ms=30.0, p99_goal_ms=5.0))
    until("it gives up delay", lambda: _adapted(client) < 30.0, 20)
    client.set_batching("shapes", "sim", None)
    until("it is recorded", lambda: [*client.events(kinds=["BATCHING_ADAPTED"])], 5)
    event = next(iter(client.events(kinds=["BATCHING_ADAPTED"])))
    assert event.model == "shapes@1"
    assert "batch 8, delay 30 ms -> batch 8, delay 15 ms" in event.message
    assert "its goal is 5 ms" in event.message


def _adapted(client: Client) -> float:
    """The longest delay now, after some requests at once."""
    for answer in client.detect_many([IMAGE] * 120, model="shapes"):
        assert answer.error is None
    held = [one for one in client.model("shapes").versions[0].replicas if one.adaption is not None]
    return min(
        (one.adaption.max_delay_ms for one in held if one.adaption is not None), default=30.0
    )
