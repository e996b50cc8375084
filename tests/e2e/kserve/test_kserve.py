"""An unmodified tritonclient against a pool of real processes on a CPU."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.kserve.process import TritonProcess
from tests.models import Zoo
from tests.waiting import until
from yolopool import Client
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
SHAPES = demo.find().models["shapes"]
MODEL = "team/shapes"


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        options = PoolOptions(Path(path), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as pool:
            with Client(pool.address) as client:
                demo.register(client, MODEL, SHAPES)
            yield pool


@pytest.fixture(scope="module")
def triton() -> Iterator[TritonProcess]:
    with TritonProcess() as process:
        yield process


@pytest.fixture(params=["grpc", "http"])
def door(request: pytest.FixtureRequest, pool: LocalPool) -> dict[str, str]:
    address = pool.address if request.param == "grpc" else pool.http
    return {"door": request.param, "address": address}


def test_every_call_is_served(triton: TritonProcess, door: dict[str, str]) -> None:
    triton.run("every_call", **door)


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("size", [1, 8])
def test_pictures_and_tensors_answer_what_detect_answers(
    triton: TritonProcess, pool: LocalPool, door: dict[str, str], size: int
) -> None:
    triton.run("answers_are_detects", native=pool.address, size=size, **door)


@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("task", ["seg", "pose", "obb", "cls"])
def test_what_belongs_to_a_task(
    triton: TritonProcess, pool: LocalPool, zoo: Zoo, task: str
) -> None:
    with Client(pool.address) as client:
        version = client.register(task, zoo.checkpoint(f"yolo11n-{task}"), image_size=320)
        assert version.state == "READY", version
    triton.run("of_task", address=pool.address, native=pool.address, model=task)


def test_parameters_are_options_of_detect(
    triton: TritonProcess, pool: LocalPool, door: dict[str, str]
) -> None:
    triton.run("options", native=pool.address, **door)


def test_an_alias_is_the_name_of_a_model(
    triton: TritonProcess, pool: LocalPool, door: dict[str, str]
) -> None:
    with Client(pool.address) as client:
        for _ in range(2):
            client.register(f"by-{door['door']}", SHAPES)
    triton.run("by_alias", native=pool.address, model=f"by-{door['door']}", **door)


def test_errors_have_their_status_and_a_sentence(
    triton: TritonProcess, door: dict[str, str]
) -> None:
    triton.run("errors", **door)


def test_its_asyncio_clients(triton: TritonProcess, pool: LocalPool, door: dict[str, str]) -> None:
    triton.run("asyncio_client", native=pool.address, **door)


def test_callbacks_and_streams(triton: TritonProcess, pool: LocalPool) -> None:
    triton.run("callbacks", address=pool.address, native=pool.address)
    triton.run("a_stream", address=pool.address, native=pool.address)


def test_perf_analyzer_finds_what_it_asks_for(triton: TritonProcess, pool: LocalPool) -> None:
    triton.run("as_perf_analyzer", address=pool.address, requests=24, at_once=4)


def test_a_restart_of_worker_and_control_plane_in_the_middle(
    triton: TritonProcess, pool: LocalPool, tmp_path: Path
) -> None:
    stop, over, told = tmp_path / "stop", threading.Event(), dict[str, Any]()
    calls = dict(address=pool.address, native=pool.address, path=str(stop))
    asking = threading.Thread(target=lambda: told.update(triton.run("ask_until", **calls)))
    watching = threading.Thread(target=pool.watch, args=(over.is_set,))
    watching.start()
    asking.start()
    try:
        answered_more(stop)
        for process in processes("--device=cpu"):
            process.kill()
        answered_more(stop)
        for process in processes("control_plane"):
            process.kill()
        answered_more(stop)
    finally:
        stop.touch()
        asking.join()
        over.set()
        watching.join()
    assert told["answered"] >= 30
    assert told["retried"] >= 1


def answered_more(stop: Path) -> None:
    count = stop.with_suffix(".count")

    def answered() -> int:
        return int(count.read_text() or 0) if count.exists() else 0

    before = answered()
    until("ten more answers", lambda: answered() >= before + 10, limit_s=90)


def processes(word: str) -> list[psutil.Process]:
    """Of the pool, with this word on the command line."""
    children = psutil.Process().children(recursive=True)
    found = [one for one in children if one.is_running() and word in one.cmdline()]
    assert found
    return found
