"""Imports through a whole pool: hostile files beside good ones, weights alone, and both heads."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import onnx_graphs
from tests.contract.backend.test_graph_backends import black_is_not_finite
from tests.e2e.test_odd_inputs import of_grey
from tests.models import Zoo, build_woken, picture, save
from yolopool import Client
from yolopool.client.model_records import ModelVersion
from yolopool.errors import InferenceFailed, InvalidOption
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
NAMES = [f"class {number}" for number in range(80)]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of a pool of this host's CPU, to which each test gives models of its own."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            yield client


class Runs:
    """A pickle that would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pool_outlives_hostile_files(client: Client, tmp_path: Path) -> None:
    canary, shapes = tmp_path / "canary", demo.find().models["shapes"]
    torch.save({"model": Runs(f"touch {canary}")}, tmp_path / "hostile.pt")
    (tmp_path / "cut.pt").write_bytes(shapes.read_bytes()[:100_000])
    for name, reason in (("hostile", "ARTIFACT_UNSAFE"), ("cut", "ARTIFACT_INVALID")):
        version = client.register(name, tmp_path / f"{name}.pt")
        assert (version.state, version.reason) == ("FAILED", reason)
        assert version.message
    demo.register(client, "shapes", shapes)
    assert len(client.detect(demo.find().images[0], model="shapes"))
    assert not canary.exists()


def test_weights_alone_serve_as_the_whole_checkpoint(
    client: Client, zoo: Zoo, tmp_path: Path
) -> None:
    whole = zoo.checkpoint("yolov8n")
    model = torch.load(whole, weights_only=False)["model"]  # made by this test run
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    client.register("whole", whole, image_size=320)

    def register(name: str, names: list[str]) -> ModelVersion:
        return client.register(
            name,
            tmp_path / "weights.pt",
            image_size=320,
            architecture="yolov8n.yaml",
            class_names=names,
        )

    alone = register("alone", NAMES)
    assert (alone.state, alone.message, list(alone.class_names)) == ("READY", "", NAMES)
    assert alone.head_mode == "one-to-many"
    assert min(alone.gflops, alone.parameters, alone.artifact_bytes, alone.pack_bytes) > 0
    image = picture(0, 320, 320)
    found, expected = (
        client.detect(image, model=name, channel_order="bgr") for name in ("alone", "whole")
    )
    assert len(found) > 30
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    # The same bytes with the same words are the pack that is there; with other names they are not.
    again, renamed = register("again", NAMES), register("renamed", NAMES[::-1])
    assert again.state == renamed.state == "READY"
    assert again.pack == alone.pack != renamed.pack


def test_the_head_is_chosen_at_registration(client: Client, zoo: Zoo) -> None:
    checkpoint, image = zoo.checkpoint("yolo26n"), picture(0, 320, 320)
    many = client.register("many", checkpoint)
    one = client.register("one", checkpoint, head_mode="end-to-end")
    assert (many.head_mode, one.head_mode) == ("one-to-many", "end-to-end")
    assert many.pack != one.pack
    of_many, of_one = (
        client.detect(image, model=name, channel_order="bgr").xyxy for name in ("many", "one")
    )
    assert min(len(of_many), len(of_one)) > 30
    assert not np.array_equal(of_many, of_one)
    refused = client.register("none", zoo.checkpoint("yolov8n"), head_mode="end-to-end")
    assert (refused.state, refused.reason) == ("FAILED", "ARTIFACT_UNSUPPORTED")


def test_rectangles_grey_images_and_answers_that_are_not_finite(
    client: Client, tmp_path: Path
) -> None:
    """Through the control plane and a worker's own preprocessing."""
    grey = of_grey(build_woken("yolov8n.yaml", 7))
    path = save(grey, tmp_path / "grey.pt")
    version = client.register("grey", path, image_size=(192, 320), shape_policy="square")
    assert (version.image_height, version.image_width, version.image_size) == (192, 320, 320)
    image = picture(0, 200, 333)
    assert len(client.detect(image, model="grey", channel_order="bgr")) > 30
    with pytest.raises(InvalidOption, match="takes 320x192 alone"):
        client.detect(image, model="grey", channel_order="bgr", image_size=640)

    graph = onnx_graphs.write(black_is_not_finite(0), tmp_path / "graph.onnx")
    assert client.register("graph", graph).state == "READY"
    black = np.zeros((320, 320, 3), np.uint8)
    with pytest.raises(InferenceFailed, match="not finite"):
        client.detect(black, model="graph", channel_order="bgr")
    assert len(client.detect(black + 9, model="graph", channel_order="bgr"))

    grey.model[1].conv.weight.data[0] = float("nan")
    broken = client.register("grey", save(grey, path))
    assert (broken.state, broken.reason) == ("FAILED", "ARTIFACT_INVALID")
    assert len(client.detect(image, model="grey", channel_order="bgr")) > 30
