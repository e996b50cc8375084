"""Builds through a whole pool: other backends and precisions, tried, served, and told of."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from examples.shapes import make_data
from tests.labels import write_labels
from worker.hardware import compute_class
from yolopool import Client
from yolopool.cli.main import app
from yolopool.client.detections import Detections
from yolopool.local import demo
from yolopool.local.pool import LocalPool, PoolOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SHAPES = Path(__file__).parents[2] / "examples" / "shapes" / "images"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of a pool of this host's CPU that has the demo's detector."""
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        options = PoolOptions(Path(folder), port=0, http_port=0, devices="cpu")
        with LocalPool(options, lambda text: None) as pool, Client(pool.address) as client:
            demo.register(client, "shapes", demo.find().models["shapes"])
            yield client


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the demo's pictures, a .txt each."""
    return write_labels(tmp_path_factory.mktemp("labels"))


def run(client: Client, *words: str | Path, status: int = 0) -> Any:
    """What a command prints as JSON."""
    arguments = ["models", *map(str, words), "--address", client.address]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == status, (done.output, done.exception)
    return json.loads(done.stdout)


def test_a_build_says_how_far_it_drifts(client: Client, labels: Path) -> None:
    here = compute_class.of_host()
    asked = ("--backend", "openvino", "--precision", "fp32", "--images", SHAPES)
    where = ("--labels", labels, "--compute-class", here)
    (row,) = run(client, "build", "shapes", *asked, *where)["builds"]
    assert row["compute_class"] == here
    assert row["variant"] == "openvino/fp32"
    assert row["exact"] == "torch/fp32"
    assert row["objects"] == row["matched"] > 20
    assert row["largest_px"] < 0.05
    assert row["map50_95"] == pytest.approx(row["exact_map50_95"], abs=1e-3)
    assert row["exact_map50_95"] > 0.8
    (version,) = client.model("shapes").versions
    assert [one.name for one in version.builds] == ["shapes+openvino-fp32-cpu@1"]
    assert not version.served


def test_int8_is_calibrated_on_what_is_uploaded(
    client: Client, labels: Path, tmp_path: Path
) -> None:
    for number, (shown, _) in enumerate(make_data.scenes(1, 20)):
        shown.save(tmp_path / f"{number}.png")
    asked = ("--backend", "openvino", "--precision", "int8", "--calibration", tmp_path)
    tried = ("--images", SHAPES, "--labels", labels, "--max-px", "8")
    (row,) = run(client, "build", "shapes", *asked, *tried)["builds"]
    assert row["variant"] == "openvino/int8"
    assert row["objects"] == row["matched"] > 20
    assert 0.1 < row["largest_px"] < 8
    assert row["map50_95"] == pytest.approx(row["exact_map50_95"], abs=0.03)


def test_auto_serves_the_fastest_within_its_bounds(client: Client) -> None:
    found = run(client, "build", "shapes", "--backend", "onnx", "--images", SHAPES)
    (row,) = found["builds"]
    assert row["variant"] == "onnx/fp32"
    faster = row["ms"] < row["exact_ms"]
    assert found["serves"] == ("onnx/fp32" if faster else "")
    answer = client.detect(SHAPES / "00000.png", "shapes")
    if faster:
        assert answer.drift is not None
        assert (answer.drift.exact, answer.drift.matched) == ("torch/fp32", row["matched"])
    else:
        assert answer.drift is None


def test_nothing_beyond_a_bound_serves(client: Client) -> None:
    # No side of any box is allowed to move, and sums in another order move all of them.
    asked = ("--backend", "openvino", "--precision", "fp32", "--images", SHAPES)
    client.set_variant("shapes", "cpu", "")
    found = run(client, "build", "shapes", *asked, "--serve", "--max-px", "-1", status=8)
    assert "moved" in found["builds"][0]["beyond"]
    assert found["serves"] == ""
    assert client.detect(SHAPES / "00000.png", "shapes").variant == "torch/fp32/cpu"


def test_a_version_is_served_by_its_build_and_by_itself_again(client: Client) -> None:
    image = SHAPES / "00000.png"
    client.build("shapes", backend="openvino", precision="fp32")
    before = client.detect(image, "shapes")
    run(client, "variant", "shapes", "openvino/fp32")
    answer = answered_by(client, "openvino/fp32/cpu")
    assert abs(answer.xyxy - before.xyxy).max() < 0.05
    run(client, "variant", "shapes", "none")
    assert (answered_by(client, "torch/fp32/cpu").xyxy == before.xyxy).all()


def answered_by(client: Client, variant: str) -> Detections:
    """The first answer of a build that replicas are being loaded anew for."""
    until = time.monotonic() + 30
    while (answer := client.detect(SHAPES / "00000.png", "shapes")).variant != variant:
        assert time.monotonic() < until, answer.variant
    return answer
