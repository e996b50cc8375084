"""Rollouts through a whole pool: candidates that are really broken, at 10 % and in shadow.

The models are graphs that find coloured spots, so a fault is exactly what it is called.
"""

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image
from typer.testing import CliRunner

from tests import onnx_graphs
from tests.lying_graphs import Builder, Spots
from yolopool import Client
from yolopool.cli.main import app
from yolopool.client.rollout.rollout_records import Rollout
from yolopool.errors import InferenceFailed
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SIDE = 320
# One in so many pictures is almost white: on those a graph can be made to fail.
WHITE_EVERY = 20
Rows = Callable[[Builder, str], str]


def added(*values: float) -> Rows:
    return lambda made, rows: made.op("Add", rows, made.const(np.reshape(values, (1, 7, 1))))


def times(*values: float) -> Rows:
    return lambda made, rows: made.op("Mul", rows, made.const(np.reshape(values, (1, 7, 1))))


def swapped(made: Builder, rows: str) -> str:
    return made.op("Gather", rows, made.ints(0, 1, 2, 3, 5, 4, 6), axis=1)


def slow(made: Builder, pixels: str) -> str:
    """The same pixels, after two convolutions whose result counts nothing."""
    rng = np.random.default_rng(0)
    wide = made.const(rng.normal(size=(48, 3, 3, 3)))
    narrow = made.const(rng.normal(size=(3, 48, 3, 3)))
    grown = made.op("Conv", pixels, wide, pads=[1, 1, 1, 1])
    again = made.op("Conv", grown, narrow, pads=[1, 1, 1, 1])
    return made.op("Add", pixels, made.scaled(again, 0.0))


def failing(made: Builder, pixels: str) -> str:
    """Reads beyond a table of one where a picture is almost white."""
    mean = made.op("ReduceMean", pixels, keepdims=0)
    white = made.op("Cast", made.op("Greater", mean, made.const(0.85)), to=TensorProto.INT64)
    place = made.op("Mul", white, made.const(1000, np.int64))
    one = made.op("Gather", made.const([1.0]), place, axis=0)
    return made.op("Mul", pixels, one)


BROKEN = {
    "boxes + 2 px": (Spots(rows=added(2, 0, 0, 0, 0, 0, 0)), "shift"),
    "boxes + 5 px": (Spots(rows=added(5, 0, 0, 0, 0, 0, 0)), ""),
    "boxes + 10 px": (Spots(rows=added(10, 0, 0, 0, 0, 0, 0)), ""),
    "two classes swapped": (Spots(rows=swapped), ""),
    "a class lost": (Spots(rows=times(1, 1, 1, 1, 0, 1, 1)), ""),
    "confidence / 2": (Spots(rows=times(1, 1, 1, 1, 0.5, 0.5, 0.5)), ""),
    "slow": (Spots(pixels=slow), "time"),
    "5 % fail": (Spots(pixels=failing), "errors"),
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of a pool of this host's CPU in which spots:stable means spots@1."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            file = onnx_graphs.write(Spots().model(), Path(folder) / "spots.onnx")
            client.register("spots", file)
            client.promote("spots@1", "stable")
            yield client


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    white = number % WHITE_EVERY == 0
    image = np.full((SIDE, SIDE, 3), 235 if white else 0, np.uint8)
    for _ in range(0 if white else 4):
        x, y = rng.integers(0, SIDE // 32 - 1, 2) * 32
        side, colour = int(rng.choice([16, 32, 64])), int(rng.integers(0, 3))
        image[y : y + side, x : x + side, colour] = rng.integers(150, 256)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png")
    return out.getvalue()


def until_settled(client: Client, most_s: float = 120.0) -> Rollout:
    """Callers ask for spots:stable until its rollout has ended."""
    number, until = 0, time.monotonic() + most_s
    while time.monotonic() < until:
        for _ in range(20):
            number += 1
            with suppress(InferenceFailed):  # of the candidate, at 10 %
                client.detect(picture(number), "spots:stable")
        found = client.rollout("spots:stable").rollout
        if found.settled:
            return found
    raise AssertionError(client.rollout("spots:stable"))


def registered(client: Client, graph: Spots, folder: Path) -> int:
    file = onnx_graphs.write(graph.model(), folder / "candidate.onnx")
    return client.register("spots", file).number


@pytest.mark.matrix(sample=1, of="broken candidates")
@pytest.mark.parametrize("steps", [(100,), (0,)], ids=["10 %", "shadow"])
@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_candidate_is_rolled_back(
    client: Client, kind: str, steps: tuple[int, ...], tmp_path: Path
) -> None:
    graph, by = BROKEN[kind]
    version = registered(client, graph, tmp_path)
    client.start_rollout("spots:stable", version, steps=steps, shadow=1000, min_s=0.0)
    ended = until_settled(client)
    assert ended.outcome == "ROLLED_BACK", ended
    assert by in ended.reasons[0]
    alias = client.alias("spots:stable")
    assert alias.targets == {1: 1000}
    assert client.detect(picture(1), "spots:stable").model == "spots@1"


@pytest.mark.matrix(sample=0)
def test_an_equal_version_goes_through_and_is_told_of(client: Client, tmp_path: Path) -> None:
    # As far off as allowed, so that it is another file and not broken.
    version = registered(client, Spots(rows=added(0.2, 0, 0, 0, 0, 0, 0)), tmp_path)
    client.start_rollout(
        "spots:stable", version, steps=(500,), shadow=1000, min_samples=50, min_s=0.0,
        tolerance={"errors": 0.1, "slower": 1.0},
    )  # fmt: skip
    try:
        ended = until_settled(client)
        assert ended.outcome == "DONE", ended
        assert client.alias("spots:stable").targets == {1: 500, version: 500}
        assert any("boxes too far" in line for line in ended.findings)
        words = ["rollouts", "show", "spots:stable", "--address", client.address]
        shown = CliRunner().invoke(app, words)
        assert shown.exit_code == 0, shown.output
        assert "done" in shown.output
    finally:
        client.promote("spots@1", "stable")


def test_two_versions_are_compared_on_a_folder(client: Client, tmp_path: Path) -> None:
    version = registered(client, Spots(rows=swapped), tmp_path)
    for number in range(1, 13):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    words = ["models", "compare", "spots@1", f"spots@{version}", "--images", str(tmp_path)]
    where = ["--save", str(tmp_path / "worst"), "--address", client.address]
    done = CliRunner().invoke(app, [*words, *where])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "beyond" in done.output
    pictures = sorted((tmp_path / "worst").iterdir())
    assert 1 <= len(pictures) <= 8
    with Image.open(pictures[0]) as worst:
        assert worst.size == (2 * SIDE + 4, SIDE)
