"""Reads boxes and scores from the outputs of foreign ONNX graphs, with one reader for each layout.

Pure. The import chose the layout. What it could not know about the file is checked on each answer:
an output of another form is an error, and never boxes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.arrays import F32, I64
from worker.postprocess import nms
from worker.postprocess.outputs import Candidates, NmsOptions, not_finite
from yolopool.errors import InferenceFailed
from yolopool.v1.types_pb2 import (
    OUTPUT_LAYOUT_END_TO_END,
    OUTPUT_LAYOUT_OBJECTNESS,
    OUTPUT_LAYOUT_PAIR,
    OUTPUT_LAYOUT_PLAIN,
    OutputLayout,
)

# Tolerance of a score's range, for the rounding of half precision.
_SLACK = 1e-2
# Tell pixels from fractions of the image: no box in pixels ends within _SMALL of the corner, and no
# fraction is larger than _LARGE.
_SMALL, _LARGE = 2.0, 8.0
# Only boxes of more confidence than this are checked.
_SURE = 0.05


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows of a batch before NMS. boxes: float32 (b, 4, n), centre x, y, width, height in pixels of
    the input. confidence: float32 (b, n), the best score of each row. `classes` gives the classes,
    int64, of some rows of one image.
    """

    boxes: F32
    confidence: F32
    classes: Callable[[int, I64], I64]


@dataclass(frozen=True, slots=True)
class Final:
    """Final boxes, most confident first: for each image float32 (n, 6) of corners in pixels of the
    input, confidence, class.
    """

    rows: tuple[F32, ...]


def decode(
    layout: "OutputLayout.ValueType",
    outputs: Sequence[npt.NDArray[np.generic]],
    classes: int,
    batch: int,
    size: tuple[int, int],
) -> Scored | Final:
    """Reads the outputs that a pack's graph names, in its order, for `batch` images of `size`
    (height, width) pixels. Raises InferenceFailed if they do not have the layout.
    """
    answers = [np.asarray(output, np.float32) for output in outputs]
    if layout == OUTPUT_LAYOUT_END_TO_END:
        return _end_to_end(answers[0], classes, batch)
    scored = {
        OUTPUT_LAYOUT_OBJECTNESS: _objectness,
        OUTPUT_LAYOUT_PLAIN: _plain,
        OUTPUT_LAYOUT_PAIR: _pair,
    }[layout](answers, classes, batch, size)
    low, high = scored.confidence < -_SLACK, scored.confidence > 1 + _SLACK
    # NaN and infinity are no sign of another layout. They fail their own image alone: see nms.
    if low.any() or np.isfinite(scored.confidence[high]).any():
        raise _wrong("its scores are not within 0..1")
    sure = scored.confidence > _SURE
    _check_pixels(scored.boxes.transpose(0, 2, 1)[sure])
    return scored


def candidates(answer: Scored | Final, options: Sequence[NmsOptions]) -> tuple[Candidates, ...]:
    """The boxes of each image that NMS keeps or, for final boxes, those above the thresholds.
    `options` has one entry for each image.
    """
    if isinstance(answer, Final):
        left = [nms.end_to_end(*pair) for pair in zip(answer.rows, options, strict=True)]
    else:
        left = list(nms.one_to_many(answer.boxes, answer.confidence, answer.classes, options))
    return tuple(
        Candidates(kept.boxes, kept.confidence, kept.class_id) if kept.finite else not_finite()
        for kept in left
    )


def _objectness(answers: list[F32], classes: int, batch: int, size: tuple[int, int]) -> Scored:
    rows = _shaped(answers[0], (batch, None, 5 + classes))
    # YOLOv5's own order: every class times objectness, then the best of them.
    confidence = rows[..., 5:].max(2) * rows[..., 4]

    def of(image: int, some: I64) -> I64:
        best: I64 = np.argmax(rows[image, some, 5:] * rows[image, some, 4:5], axis=1)
        return best

    return Scored(np.ascontiguousarray(rows[..., :4].transpose(0, 2, 1)), confidence, of)


def _plain(answers: list[F32], classes: int, batch: int, size: tuple[int, int]) -> Scored:
    columns = _shaped(answers[0], (batch, 4 + classes, None))

    def of(image: int, some: I64) -> I64:
        best: I64 = np.argmax(columns[image][4:, some], axis=0)
        return best

    return Scored(columns[:, :4], columns[:, 4:].max(1), of)


def _pair(answers: list[F32], classes: int, batch: int, size: tuple[int, int]) -> Scored:
    corners = _shaped(answers[0], (batch, None, 1, 4))[:, :, 0].transpose(0, 2, 1)
    scores = _shaped(answers[1], (batch, corners.shape[2], classes))
    confidence = scores.max(2)
    large = (np.abs(corners) > _LARGE) & np.isfinite(corners)
    if large.transpose(0, 2, 1)[confidence > _SURE].any():
        raise _wrong("its boxes are pixels, not shares of the image")
    height, width = size
    low, high = corners[:, :2], corners[:, 2:]
    centred = np.concatenate(((low + high) / 2, high - low), axis=1)
    pixels = centred * np.array([width, height, width, height], np.float32)[:, None]
    return Scored(pixels, confidence, lambda image, some: np.argmax(scores[image, some], axis=1))


def _end_to_end(answer: F32, classes: int, batch: int) -> Final:
    if answer.ndim == 2:
        rows = _shaped(answer, (None, 7))
        image = rows[:, 0]
        if not np.isin(image, np.arange(batch)).all():
            raise _wrong(f"it names images that are not among the {batch} of the batch")
        ordered = rows[:, [1, 2, 3, 4, 6, 5]]
        parts = [ordered[image == index] for index in range(batch)]
    else:
        parts = list(_shaped(answer, (batch, None, 6)))
    return Final(tuple(_checked(part, classes) for part in parts))


def _checked(rows: F32, classes: int) -> F32:
    """Drops the empty rows that fill an answer up; sorts the rest, most confident first."""
    rows = rows[~(rows[:, 4] <= 0)]
    # NaN and infinity fail their own image alone: see nms.
    finite = rows[np.isfinite(rows).all(1)]
    if not (finite[:, 4] <= 1 + _SLACK).all():
        raise _wrong("its scores are not within 0..1")
    class_id = finite[:, 5]
    if not ((class_id >= 0) & (class_id < classes) & (class_id == np.floor(class_id))).all():
        raise _wrong(f"its classes are not within the {classes} that have names")
    sure = finite[finite[:, 4] > _SURE]
    low, high = sure[:, :2], sure[:, 2:4]
    if not (low <= high).all():
        raise _wrong("its boxes are no corners")
    _check_pixels(sure[:, :4])
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def _check_pixels(boxes: F32) -> None:
    """boxes: (n, 4) of some confidence. Fractions of the image would all lie in its corner."""
    if len(boxes) and not (boxes > _SMALL).any():
        raise _wrong("its boxes are shares of the image, not pixels")


def _shaped(answer: F32, form: tuple[int | None, ...]) -> F32:
    fits = answer.ndim == len(form) and all(
        wanted is None or found == wanted for found, wanted in zip(answer.shape, form, strict=True)
    )
    if not fits:
        said = ", ".join("n" if size is None else str(size) for size in form)
        raise _wrong(f"it has the form {answer.shape}, not ({said})")
    return answer


def _wrong(what: str) -> InferenceFailed:
    return InferenceFailed(
        f"the answer of the ONNX graph is not of its layout: {what}: register the file again and "
        "say its layout and its class names"
    )
