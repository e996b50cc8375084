"""A worker process that is drained: it ends, its supervisor starts a fresh one, nothing is lost."""

import tempfile
import threading
from pathlib import Path

import pytest

from tests.waiting import until
from yolopool import Client, errors
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
IMAGE = demo.find().images[0]
SHAPES = demo.find().models["shapes"]


def test_a_drained_worker_comes_back_as_a_new_process_and_no_request_fails() -> None:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="sim:2")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, "shapes", SHAPES)
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
