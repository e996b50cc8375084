"""Parity with the model library's `predict`, family by task: images alone, in batches of one size
and of many, in rectangles and in squares; and that a pipeline which is off by little is noticed.

python -m benchmarks.parity
python -m benchmarks.parity --match 'yolo26'
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.harness import families, hardware, results
from benchmarks.harness.results import Check, Result, Row
from worker.backends.base import LoadedModel, run
from worker.packs.pack import Pack
from worker.packs.pack_store import PackStore
from worker.postprocess.mask_encoding import RunLengths
from worker.postprocess.outputs import Candidates, NmsOptions
from worker.postprocess.results import MaskFormat, Results, results_of
from worker.preprocess import letterbox
from worker.preprocess.letterbox import Letterboxed, Origin
from yolopool.client.masks import Mask
from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END, HEAD_MODE_UNSPECIFIED
from yolopool.vocabulary import ShapePolicy

U8 = npt.NDArray[np.uint8]
MODELS = (
    "shapes", "yolov3-tiny", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolov10n", "yolo11n",
    "yolo12n", "yolo26n",
    *(f"{family}-{task}" for task in families.TASKS for family in
      ("yolov8n", "yolo11n", "yolo12n", "yolo26n")),
)  # fmt: skip
SIZE = 320
# Of one size, and of many; those of SQUARES meet in one pass whatever the shape policy.
EQUAL = [(260, 501)] * 3
MIXED = [(320, 320), (280, 333), (501, 300), (640, 640)]
SQUARES = [index for index, (height, width) in enumerate(MIXED) if height == width]
MOST_PIXELS, MOST_SCORE = 1e-3, 1e-5


@dataclass(frozen=True, slots=True)
class Difference:
    """Of some images: largest of boxes, corners and keypoints in pixels, of scores, of masks in
    pixels that are not the same, and objects that only one side has.
    """

    pixels: float = 0.0
    score: float = 0.0
    mask_pixels: int = 0
    unmatched: int = 0

    @property
    def is_parity(self) -> bool:
        """Whether it is within what rounding does."""
        return (
            self.pixels <= MOST_PIXELS
            and self.score <= MOST_SCORE
            and not self.mask_pixels
            and not self.unmatched
        )

    def __or__(self, other: "Difference") -> "Difference":
        return Difference(
            max(self.pixels, other.pixels),
            max(self.score, other.score),
            self.mask_pixels + other.mask_pixels,
            self.unmatched + other.unmatched,
        )


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How an image is prepared and what is kept of it; as served, or off by something."""

    frame: Callable[[U8], U8] = lambda image: image
    boxed: Callable[[U8], U8] = lambda image: image
    confidence: float | None = None


def shift(image: U8) -> U8:
    """By half a pixel to the right and down."""
    matrix = np.array([[1, 0, 0.5], [0, 1, 0.5]], np.float32)
    height, width = image.shape[:2]
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)), np.uint8)


def swap(image: U8) -> U8:
    """Red for blue."""
    return np.ascontiguousarray(image[..., ::-1])


def darken(image: U8) -> U8:
    """As if pixels were divided by 256."""
    return np.asarray(np.round(image * (255 / 256)), np.uint8)


PERTURBED = {
    "half a pixel": Pipeline(boxed=shift),
    "channels": Pipeline(frame=swap),
    "scale": Pipeline(boxed=darken),
}


class Ours:
    """A pack as a worker runs it."""

    def __init__(self, pack: Pack, model: LoadedModel) -> None:
        self._pack, self._model = pack, model

    def results(self, images: Sequence[U8], policy: ShapePolicy, pipe: Pipeline) -> list[Results]:
        """Of images in as few passes as their shapes allow, each pass of one shape."""
        places = [self._place(pipe.frame(image), policy, pipe) for image in images]
        shapes = [place.letterboxed.image.shape for place in places]
        answers: dict[int, Candidates] = {}
        for shape in dict.fromkeys(shapes):
            rows = [index for index, one in enumerate(shapes) if one == shape]
            batch = [places[index].letterboxed.image for index in rows]
            passed = run(self._model, batch, [self._options(pipe)] * len(batch))
            answers |= dict(zip(rows, passed.candidates, strict=True))
        return [
            results_of(answers[index], place, MaskFormat.RLE) for index, place in enumerate(places)
        ]

    def _place(self, image: U8, policy: ShapePolicy, pipe: Pipeline) -> Origin:
        size, stride = self._pack.manifest.settings.image_size, self._pack.manifest.stride
        if self._pack.manifest.task == "classify":
            boxed = letterbox.centre_crop(image, size, stride)
        else:
            boxed = letterbox.letterbox(image, size, stride, policy)
        boxed = Letterboxed(np.ascontiguousarray(pipe.boxed(boxed.image)), boxed.original_shape)
        return Origin(boxed, (0, 0), (image.shape[0], image.shape[1]))

    def _options(self, pipe: Pipeline) -> NmsOptions:
        settings = self._pack.manifest.settings
        confidence = settings.confidence if pipe.confidence is None else pipe.confidence
        thresholds = (confidence,) * len(self._pack.manifest.class_names)
        return NmsOptions(thresholds, settings.iou, settings.max_detections, False)


def difference(ours: Results, theirs: Any) -> Difference:
    """Of one image; `theirs` is one of the library's Results."""
    if ours.probabilities is not None:
        expected = theirs.probs.data.numpy()
        # Of many classes each has little: told as a share of the likeliest.
        return Difference(score=_largest(ours.probabilities - expected) / float(expected.max()))
    rows = (theirs.boxes if ours.rotated is None else theirs.obb).data.numpy()
    if len(rows) != len(ours.class_id) or (rows[:, -1] != ours.class_id).any():
        return Difference(unmatched=max(1, abs(len(rows) - len(ours.class_id))))
    score = _largest(ours.confidence - rows[:, -2])
    if ours.rotated is not None:
        away = np.abs(ours.rotated - rows[:, :5])
        return Difference(_largest(away[:, :4]), max(score, _largest(away[:, 4])))
    whole = Difference(_largest(ours.xyxy - rows[:, :4]), score)
    if ours.keypoints is not None:
        away = np.abs(ours.keypoints - theirs.keypoints.data.numpy())
        return whole | Difference(_largest(away[..., :2]), _largest(away[..., 2:]))
    return whole | Difference(mask_pixels=_mask_pixels(ours, theirs))


def _mask_pixels(ours: Results, theirs: Any) -> int:
    if ours.masks is None:
        return 0  # the task has none
    away = 0
    if theirs.masks is None:
        return len(ours.masks)
    for one, mask in zip(ours.masks, theirs.masks.data.numpy().astype(bool), strict=True):
        assert isinstance(one, RunLengths)
        mine = Mask((one.width, one.height), counts=one.counts).to_array()
        away += int(np.count_nonzero(mine != mask))
    return away


def _largest(away: npt.NDArray[np.float32]) -> float:
    return float(np.abs(away).max()) if away.size else 0.0


@dataclass(frozen=True, slots=True)
class Company:
    """Images that are sent together, and what the library says of them."""

    name: str
    images: list[U8]
    expected: list[Any]


def companies(library: Any, policy: ShapePolicy) -> Iterator[Company]:
    """Alone, with others of one size, with others of many. The library takes squares for images of
    many sizes; in rectangles it is asked for each pass by itself, as the pool makes them.
    """
    from tests.models import picture

    rect = policy is ShapePolicy.RECT
    equal = [picture(seed, *size) for seed, size in enumerate(EQUAL)]
    mixed = [picture(seed, *size) for seed, size in enumerate(MIXED)]
    yield Company("alone", mixed[1:2], library.predict(mixed[1:2], rect))
    yield Company("one size", equal, library.predict(equal, rect))
    expected = library.predict(mixed, rect=False)
    if rect:
        expected = [library.predict([image], rect)[0] for image in mixed]
        together = library.predict([mixed[index] for index in SQUARES], rect)
        for index, result in zip(SQUARES, together, strict=True):
            expected[index] = result
    yield Company("many sizes", mixed, expected)


def perturbed(plain: Sequence[Results]) -> dict[str, Pipeline]:
    """Pipelines that are off by little; the threshold is one that some of the results lie under."""
    scores = plain[0].confidence
    if not len(scores):
        return PERTURBED
    return PERTURBED | {"threshold": Pipeline(confidence=float(np.median(scores)))}


def rows_of(name: str, ours: Ours, library: Any, head: str, task: str) -> Iterator[Row]:
    """A row a shape policy and company; a task without letterboxes has one policy."""
    for policy in list(ShapePolicy)[: 1 if task == "classify" else None]:
        for company in companies(library, policy):
            plain = ours.results(company.images, policy, Pipeline())
            exact = _all(plain, company.expected)
            missed = [
                what
                for what, pipe in perturbed(plain).items()
                if _all(ours.results(company.images, policy, pipe), company.expected).is_parity
            ]
            counts = [len(one.class_id) for one in plain if one.probabilities is None]
            yield {
                "model": name,
                "task": task,
                "head": head,
                "shapes": policy.value if task != "classify" else "",
                "images": company.name,
                "least_results": min(counts) if counts else None,
                "largest_px": exact.pixels,
                "largest_score": exact.score,
                "mask_px": exact.mask_pixels,
                "unmatched": exact.unmatched,
                "parity": exact.is_parity,
                "unnoticed": ", ".join(missed),
            }


def _all(ours: Sequence[Results], theirs: Sequence[Any]) -> Difference:
    whole = Difference()
    for one, other in zip(ours, theirs, strict=True):
        whole |= difference(one, other)
    return whole


def rows_of_model(name: str, folder: Path) -> Iterator[Row]:
    """All rows of a model, with each head that it has."""
    from benchmarks.harness.library import Library
    from importer.refusal import ImportRefused
    from tests.models import SHAPES, build_woken, save
    from worker.backends.pytorch.backend import TorchBackend

    checkpoint, (_, task) = folder / "model.pt", families.parts(name)
    if name == "shapes":
        checkpoint.write_bytes((SHAPES / "models" / "shapes.pt").read_bytes())
    else:
        save(build_woken(f"{name}.yaml", 7), checkpoint, SIZE)
    backend = TorchBackend("cpu", 1)
    backend.open()
    for mode, head in ((HEAD_MODE_UNSPECIFIED, ""), (HEAD_MODE_END_TO_END, "end-to-end")):
        try:
            place = families.import_here(checkpoint, folder / f"pack{mode}", head_mode=mode)
        except ImportRefused:
            continue  # it has no such head
        pack = PackStore(folder).fetch(place)
        model = backend.load(pack, "fp32")
        library = Library(checkpoint, task, bool(head), SIZE)
        yield from rows_of(name, Ours(pack, model), library, head, task)
        model.close()
        pack.close()
    backend.close()


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--match", default="", help="only models that this expression finds")
    parser.add_argument("--least", type=int, default=30, help="results an image, of woken models")
    return parser


def run_all(options: argparse.Namespace) -> Result:
    """All models, one after the other."""
    machine, started_at = hardware.describe(), results.now()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
        os.environ.update(YOLO_CONFIG_DIR=scratch, YOLO_VERBOSE="false")
        for index, name in enumerate(MODELS):
            if re.search(options.match, name):
                folder = Path(scratch) / str(index)
                folder.mkdir()
                rows += rows_of_model(name, folder)
                print(name, len(rows), file=sys.stderr, flush=True)
    unlike = [_title(row) for row in rows if not row["parity"]]
    blind = [f"{_title(row)}: {row['unnoticed']}" for row in rows if row["unnoticed"]]
    least = {"shapes": 1}
    few = [
        _title(row)
        for row in rows
        if isinstance(count := row["least_results"], int)
        and count < least.get(str(row["model"]), options.least)
    ]
    return Result(
        scenario="parity",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"family by task": tuple(rows)},
        checks=(
            Check(f"within {MOST_PIXELS} px and {MOST_SCORE}", not unlike, _some(rows, unlike)),
            Check(
                "every perturbed pipeline is noticed in every row", not blind, _some(rows, blind)
            ),
            Check(f"{options.least} results an image", not few, _some(rows, few)),
        ),
    )


def _title(row: Row) -> str:
    return " ".join(str(row[key]) for key in ("model", "head", "shapes", "images") if row[key])


def _some(rows: Sequence[Row], bad: Sequence[str]) -> str:
    return (
        f"{len(bad)} of {len(rows)} rows not: {'; '.join(bad[:8])}" if bad else f"{len(rows)} rows"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run_all(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
