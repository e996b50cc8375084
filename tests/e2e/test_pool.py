"""The whole pool in real processes: right boxes, room for two of three, one load for twenty,
a killed worker, a restart, and an end that leaves nothing behind.
"""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageOps

from benchmarks.harness import dataset
from benchmarks.harness.matching import Detected, match, total
from benchmarks.harness.switches import Answer, Callers, Move, lives, moved, out_of_time
from tests.waiting import until
from yolopool import AsyncClient, Client, errors
from yolopool.client.model_records import Replica
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
IMAGE = demo.find().images[0]
SHAPES = demo.find().models["shapes"]
SIM_CONTEXT_BYTES = 256 * 1024**2


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        yield Path(path)


def options(folder: Path, devices: str, budget: str = "") -> PoolOptions:
    return PoolOptions(folder, port=0, http_port=0, devices=devices, memory_budget=budget)


def a_pool(folder: Path, devices: str, budget: str = "") -> LocalPool:
    return LocalPool(options(folder, devices, budget), lambda text: None)


@pytest.fixture(scope="module")
def shapes() -> Iterator[tuple[Client, Path]]:
    """A client of a pool on a CPU that has the demo model, and the pool's folder."""
    # The paths of sockets are short.
    with (
        tempfile.TemporaryDirectory(prefix="yp-") as path,
        a_pool(Path(path), "cpu") as pool,
        Client(pool.address) as client,
    ):
        demo.register(client, "shapes", SHAPES)
        yield client, Path(path)


@pytest.fixture(scope="module")
def simulated() -> Iterator[tuple[LocalPool, Client]]:
    """A pool of one simulated device that has the demo model, and a client of it."""
    with (
        tempfile.TemporaryDirectory(prefix="yp-") as path,
        a_pool(Path(path), "sim:1") as pool,
        Client(pool.address) as client,
    ):
        demo.register(client, "one", SHAPES)
        yield pool, client


def test_the_labelled_shapes_are_found(shapes: tuple[Client, Path]) -> None:
    client, _ = shapes
    scores = []
    for image in dataset.load(dataset.FOLDER):
        found = client.detect(image.encoded, model="shapes")
        boxes = [Detected(one.class_name, one.xyxy, one.confidence) for one in found]
        scores.append(match(image.labels, boxes))
    (worker,) = client.workers()
    every = total(scores)
    assert every.recall >= 0.95
    assert every.false_positives <= 0.05 * every.labelled
    assert worker.replicas[0].state == "HOT"
    assert worker.ledger.measured_bytes > worker.ledger.context_bytes


def test_a_stream_finds_what_single_calls_find(shapes: tuple[Client, Path]) -> None:
    client, _ = shapes
    images = dataset.encoded()
    results = list(client.detect_stream([*images, b"no image"], "shapes", window=4))
    assert [result.id for result in results] == list(range(len(images) + 1))
    assert isinstance(results[-1].error, errors.ImageNotDecodable)
    for image, result in zip(images, results, strict=False):
        alone = client.detect(image, model="shapes")
        assert result.detections is not None
        assert result.detections.class_name == alone.class_name
        np.testing.assert_allclose(result.detections.xyxy, alone.xyxy, atol=0.01)


def test_other_users_of_the_host_read_nothing(shapes: tuple[Client, Path]) -> None:
    """Of what the pool wrote: artifacts, packs, caches, logs, Redis' files, and folders of them."""
    _, folder = shapes
    until("the copy is written", (folder / "registry-copy.jsonl").exists)
    written = {path: path.lstat().st_mode for path in folder.rglob("*") if not path.is_symlink()}
    assert {"registry-copy.jsonl", "weights.bin", "control_plane.log", "redis"} <= {
        path.name for path in written
    }
    assert [str(path) for path, mode in written.items() if mode & 0o007] == []
    secrets = [path for path in written if path.name in ("registry-copy.jsonl", "admin.key")]
    assert {written[path] & 0o777 for path in secrets} == {0o600}


def test_no_caller_notices_that_an_alias_moves(
    simulated: tuple[LocalPool, Client],
) -> None:
    """As benchmarks/alias_switch, shorter: nothing fails, and each answer is of a live version."""
    pool, client = simulated
    for _ in range(5):
        client.register("moved", SHAPES)
    client.promote("moved@1", "stable")
    client.load("moved:stable")

    async def story() -> tuple[list[Answer], list[Move]]:
        async with AsyncClient(pool.address) as asking, AsyncClient(pool.address) as ordering:
            async with Callers([asking], IMAGE.read_bytes(), "moved:stable", 32) as callers:
                moves = [
                    await moved("promote", partial(ordering.promote, f"moved@{number}", "stable"))
                    for number in range(2, 6)
                ]
                moves += [
                    await moved("rollback", partial(ordering.rollback, "moved:stable"))
                    for _ in range(2)
                ]
            return callers.answers, moves

    answers, moves = asyncio.run(story())
    assert [move.version for move in moves] == [2, 3, 4, 5, 4, 3]
    assert {one.reason for one in answers} == {""}
    assert out_of_time(answers, lives(1, moves)) == []
    assert {one.version for one in answers} >= {1, 2, 3, 4}


def test_three_models_in_room_for_two(folder: Path) -> None:
    names = ("one", "two", "three")
    with a_pool(folder, "sim:1") as pool, Client(pool.address) as client:
        for name in names:
            demo.register(client, name, SHAPES)
        client.load("one")
        (worker,) = client.workers()
        weights, workspace = worker.replicas[0].weights_bytes, worker.ledger.workspace_bytes
    budget = SIM_CONTEXT_BYTES + workspace + int(2.5 * weights)
    with a_pool(folder, "sim:1", str(budget)) as pool, Client(pool.address) as client:
        for name in [*names, *names]:
            assert client.detect(IMAGE, model=name).model == f"{name}@1"
            (worker,) = client.workers()
            assert worker.ledger.used_bytes <= worker.ledger.budget_bytes == budget
        until(
            "the third is here too, beside the device",
            lambda: sorted(r.state for r in client.workers()[0].replicas) == ["HOT", "HOT", "WARM"],
        )
        client.load("two", pin=True)
        client.load("one", pin=True)
        with pytest.raises(errors.LedgerFull, match="pinned"):
            client.detect(IMAGE, model="three", timeout_s=20)


def test_twenty_callers_at_once_are_one_load(shapes: tuple[Client, Path]) -> None:
    client, _ = shapes
    demo.register(client, "twenty", SHAPES)
    answers: list[int] = []
    start = threading.Barrier(20)

    def ask() -> None:
        start.wait()
        answers.append(len(client.detect(IMAGE, model="twenty")))

    def held() -> Replica:
        (worker,) = client.workers()
        return next(one for one in worker.replicas if one.model == "twenty@1")

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until("all are counted", lambda: held().requests_total == 20)
    assert answers == [2] * 20
    assert held().loads_total == 1


def test_a_killed_worker_comes_back_under_calls(simulated: tuple[LocalPool, Client]) -> None:
    pool, client = simulated
    client.detect(IMAGE, model="one")
    stop, outcomes = threading.Event(), []

    def call() -> None:
        with Client(pool.address) as own:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    own.detect(IMAGE, model="one", timeout_s=10)
                    outcome = "OK"
                except errors.YolopoolError as error:
                    outcome = error.reason
                outcomes.append((outcome, began, time.monotonic()))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    first = client.workers()[0].incarnation
    killed = time.monotonic()
    for process in _processes_of("sim:0"):
        process.kill()
    until(
        "a call that began after the kill succeeds",
        lambda: any(word == "OK" and began > killed + 0.5 for word, began, _ in outcomes),
        limit_s=60,
    )
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert client.workers()[0].incarnation != first
    typed = {"OK", "WORKER_LOST", "NO_WORKER", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    assert {word for word, _, _ in outcomes} <= typed
    # Timed only against the deadline that each call was given.
    assert max(end - began for _, began, end in outcomes) < 12


def test_a_recycled_worker_is_replaced_without_a_failed_call(
    simulated: tuple[LocalPool, Client],
) -> None:
    pool, client = simulated
    demo.register(client, "two", SHAPES)
    for name in ("one", "two"):
        client.load(name)
    first = client.workers()[0].incarnation
    stop, outcomes = threading.Event(), []

    def call() -> None:
        with Client(pool.address) as own:
            while not stop.is_set():
                try:
                    own.detect(IMAGE, model="one", timeout_s=20)
                    outcomes.append("OK")
                except errors.YolopoolError as error:
                    outcomes.append(f"{error.reason}: {error.message}")

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for process in _processes_of("sim:0"):
        process.send_signal(signal.SIGUSR1)
    until(
        "another process serves in its place",
        lambda: [w.incarnation for w in client.workers() if w.incarnation != first],
        limit_s=60,
    )
    until("the old one is gone", lambda: len(_processes_of("sim:0")) == 1, limit_s=20)
    before = len(outcomes)
    until("calls go on", lambda: len(outcomes) > before + 10)
    stop.set()
    for thread in threads:
        thread.join()
    (worker,) = client.workers()
    assert set(outcomes) == {"OK"}
    assert "SIGUSR1" in worker.replaces_because
    held = {replica.model: replica.state for replica in worker.replicas}
    assert (held["one@1"], held["two@1"]) == ("HOT", "HOT")


def _processes_of(device: str) -> list[psutil.Process]:
    """The living worker processes of a device."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if f"--device={device}" in process.cmdline():
                found.append(process)
    return found


def test_a_restart_on_the_same_folder_keeps_the_registry(folder: Path) -> None:
    with a_pool(folder, "sim:1") as pool, Client(pool.address) as client:
        demo.register(client, "team/shapes", SHAPES)
        again = client.register("team/shapes", SHAPES, image_size=320)
        assert (again.name, again.state) == ("team/shapes@2", "READY")
        before = client.models()
    with a_pool(folder, "sim:1") as pool, Client(pool.address) as client:
        (model,) = client.models()
        assert model.default_version == 2
        assert [v.artifact for v in model.versions] == [v.artifact for v in before[0].versions]
        assert client.detect(IMAGE, model="team/shapes@1").model == "team/shapes@1"


def test_bad_requests_have_reasons_and_the_pool_lives_on(
    shapes: tuple[Client, Path], tmp_path: Path
) -> None:
    client, _ = shapes
    refused = {
        "IMAGE_NOT_DECODABLE": lambda: client.detect(b"no image", model="shapes"),
        "MODEL_NOT_FOUND": lambda: client.detect(IMAGE, model="absent"),
        "VERSION_NOT_FOUND": lambda: client.detect(IMAGE, model="shapes@9"),
        "ALIAS_NOT_FOUND": lambda: client.detect(IMAGE, model="shapes:stable"),
        "INVALID_MODEL_REFERENCE": lambda: client.detect(IMAGE, model="../etc"),
        "INVALID_OPTION": lambda: client.detect(IMAGE, model="shapes", confidence=2),
    }
    for reason, call in refused.items():
        with pytest.raises(errors.YolopoolError) as caught:
            call()
        assert caught.value.reason == reason
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"not a model" * 1000)
    version = client.register("junk", junk)
    assert (version.state, version.reason) == ("FAILED", "ARTIFACT_INVALID")
    with pytest.raises(errors.YolopoolError) as caught:
        client.detect(IMAGE, model="junk")
    assert caught.value.reason == "MODEL_IMPORT_FAILED"
    assert len(client.detect(IMAGE, model="shapes")) == 2


def as_jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    with Image.open(IMAGE) as picture:
        picture.convert("RGB").save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def test_a_picture_is_the_same_by_every_way(shapes: tuple[Client, Path], tmp_path: Path) -> None:
    client, _ = shapes
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "turned.jpg"
    path.write_bytes(as_jpeg(exif=turned))
    first = client.detect(path, model="shapes")
    assert len(first) == 2
    with Image.open(path) as unread, Image.open(path) as loaded:
        upright = np.asarray(ImageOps.exif_transpose(loaded))
        deep = upright.astype(np.uint16) * 256 + 99
        ways = [(image, None) for image in (path.read_bytes(), unread, loaded, upright, deep)]
        for image, bits in [*ways, (np.right_shift(deep, np.uint16(4)), 12)]:
            again = client.detect(image, model="shapes", channel_order="rgb", bit_depth=bits)
            np.testing.assert_array_equal(again.xyxy, first.xyxy)
            np.testing.assert_array_equal(again.confidence, first.confidence)
            assert again.image_size == first.image_size


def test_damage_is_told_and_not_logged(shapes: tuple[Client, Path]) -> None:
    client, folder = shapes
    whole = as_jpeg()
    damaged = whole[: len(whole) * 3 // 4] + b"\xff\xd9"
    with pytest.raises(errors.ImageDamaged, match="premature end of data segment"):
        client.detect(damaged, model="shapes")
    found = client.detect(damaged, model="shapes", accept_damaged=True)
    assert "premature end" in found.image_damage
    assert not client.detect(whole[:-2], model="shapes").image_damage
    logs = [path.read_text() for path in folder.rglob("worker.log")]
    assert logs
    assert not [log for log in logs if "Corrupt JPEG" in log]


def test_ctrl_c_ends_all(folder: Path) -> None:
    command = "import sys; from yolopool.cli.main import main; main()"
    up = subprocess.Popen(
        [
            sys.executable, "-c", command, "up", "--devices", "sim:2", "--no-demo",
            "--data-dir", str(folder), "--port", "0", "--http-port", "0",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert up.stdout is not None
    line = up.stdout.readline()
    assert line.startswith("READY"), up.stderr.read() if up.stderr else line
    address = line.split()[2]
    with Client(address) as client:
        assert client.fleet().workers_ready == 2
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) >= 6  # Redis, control plane, importer, supervisor and two workers
    os.kill(up.pid, signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 0
    assert not [child for child in children if child.is_running()]
