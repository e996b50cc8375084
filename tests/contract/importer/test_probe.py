"""ONNX files that keep something else than they declare: never served with another answer than the
right one, in no company and no shape.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from importer.refusal import ImportRefused
from tests import onnx_graphs
from tests.contract.imports import import_in_child
from tests.lying_graphs import LIES, NAMES, TRUE, Spots
from tests.models import location
from worker.backends.base import LoadedModel, run
from worker.backends.onnx.model import OnnxModel
from worker.backends.onnx.onnxruntime_backend import OnnxRuntime
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.graphs import pictures
from yolopool.v1 import types_pb2

OPTIONS = NmsOptions((0.3,) * len(NAMES), 0.5, 300, agnostic=False)


async def outcome_of(spots: Spots, folder: Path) -> str:
    """What became of a file, in words. Whatever is served is served rightly."""
    path = onnx_graphs.write(spots.model(), folder / "spots.onnx")
    settings = types_pb2.VersionSettings()
    if spots.lead > 1:  # the file's own words do not say the layout for sure
        settings.output_layout = types_pb2.OUTPUT_LAYOUT_PLAIN
    try:
        report = await import_in_child(path, folder / "pack", settings=settings)
    except ImportRefused as refusal:
        return f"refused: {refusal.reason}: {refusal.message}"
    pack = PackStore(folder).fetch(location(folder / "pack"))
    graph = pack.manifest.onnx
    declared = spots.size[0] if isinstance(spots.size[0], int) else 0
    bounds = []
    if graph.batch != declared:
        bounds.append(f"{graph.batch} a pass")
    if graph.height and not isinstance(spots.size[2], int):
        bounds.append("squares")
    assert len(report.warnings) >= len(bounds)
    assert report.tried
    told = ("same answer", "0 to 255")
    if any(words in warning for warning in report.warnings for words in told):
        return "told"
    runtime = OnnxRuntime("cpu", 1)
    runtime.open()
    model = OnnxModel(pack, runtime.load(pack), 1)
    try:
        for height, width in shapes(pack):
            assert wrong_answers(model, height, width) == []
    finally:
        model.close()
        pack.close()
    return ", ".join(bounds) or "right"


def shapes(pack: Pack) -> Iterator[tuple[int, int]]:
    """Those that a worker may run."""
    yield 320, 320
    if pack.manifest.settings.shape_policy == types_pb2.SHAPE_POLICY_RECT:
        yield from ((192, 320), (320, 224))


def wrong_answers(model: LoadedModel, height: int, width: int) -> list[str]:
    """Passes of one, two and seven images: whose answer is not the object of the image."""
    wrong = []
    for numbers in ([0], [1], [2], [1, 2], [2, 0, 1, 1, 0, 2, 0]):
        images = [pictures.scene(number, height, width) for number in numbers]
        found = run(model, images, [OPTIONS] * len(images)).candidates
        wrong += [
            f"picture {number} as {place} of {len(numbers)} at {width}x{height}"
            for place, (number, one) in enumerate(zip(numbers, found, strict=True))
            if not is_found(one, number, height, width)
        ]
    return wrong


def is_found(candidates: Candidates, number: int, height: int, width: int) -> bool:
    """Whether the best box of the object's colour lies in the object."""
    own = candidates.xyxy[candidates.class_id == number]
    if not len(own):
        return False
    x, y = pictures.PLACES[0][number]
    centre = (own[0, :2] + own[0, 2:]) / 2 / (width, height)
    return bool(
        (np.abs(centre - (x, y)) < 0.15 * min(height, width) / np.array([width, height])).all()
    )


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("kind", TRUE)
async def test_a_graph_that_keeps_its_word_is_served_as_declared(kind: str, tmp_path: Path) -> None:
    assert await outcome_of(TRUE[kind], tmp_path) == "right"


# What becomes of each lie; the others are refused.
ONE_A_PASS = {
    "all get the first image's answer", "all get the last image's answer", "answers in reverse",
    "answers moved by one", "the batch is squeezed", "batch 1 in a reshape",
    "rows of all images mixed", "scaled by the brightest of all images",
    "less the mean of all images", "one answer to all", "the mean of all answers",
    "scores added up over images", "only the first image is looked at",
    "only two images are looked at", "only four images are looked at",
    "in half precision, answers in reverse", "in uint8, all get the first image's answer",
    "final boxes of the first image alone", "final boxes of four images alone",
    "final boxes in reverse", "suppression of the first image alone",
    "no image is named but the first",
}  # fmt: skip
SQUARES = {
    "the grid of one size", "the grid of one size, cut", "brought to one size inside",
    "padded to a square inside",
}  # fmt: skip
OTHERS = {
    "batch 2 in a reshape": "2 a pass",
    "scores divided among images": "told",
    "values of 0 to 255": "told",
}


@pytest.mark.matrix(sample=5)
@pytest.mark.parametrize("kind", LIES)
async def test_a_graph_that_does_not_is_refused_or_bounded(kind: str, tmp_path: Path) -> None:
    expected = OTHERS.get(kind, "refused")
    expected = "1 a pass" if kind in ONE_A_PASS else expected
    expected = "squares" if kind in SQUARES else expected
    assert (await outcome_of(LIES[kind], tmp_path)).partition(":")[0] == expected
