"""Reads the answer of an ONNX graph in one form, whatever its layout, to compare it with another.

Pure. For what asks whether two answers are the same; serving reads boxes with its own readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolopool.v1 import types_pb2

F32 = npt.NDArray[np.float32]
# Tolerance of a score's range, for the rounding of half precision.
_SLACK = 1e-2


class Unreadable(Exception):
    """An answer is not of its layout; the message says how, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Form:
    """How outputs are read. `layout` is unspecified for probabilities of classes alone."""

    layout: "types_pb2.OutputLayout.ValueType"
    classes: int

    @property
    def has_boxes(self) -> bool:
        return self.layout != types_pb2.OUTPUT_LAYOUT_UNSPECIFIED

    @property
    def is_final(self) -> bool:
        """Whether rows are boxes by confidence, the most confident first, not cells of a grid."""
        return self.layout == types_pb2.OUTPUT_LAYOUT_END_TO_END


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer to one image. boxes: float32 (n, 4), centre x, y, width, height as shares of the
    input, (0, 4) of classifications. confidence: float32 (n,). values: float32 (n, k), all else
    that a row says. whole: float32 (m,), what belongs to no row.
    """

    boxes: F32
    confidence: F32
    values: F32
    whole: F32


def read(
    form: Form, outputs: Sequence[npt.NDArray[np.generic]], batch: int, size: tuple[int, int]
) -> tuple[Rows, ...]:
    """The answers to `batch` images of `size` (height, width) pixels; outputs in the order of the
    layout. Raises Unreadable, also where numbers are not finite.
    """
    answers = [np.asarray(output, np.float32) for output in outputs]
    for answer in answers:
        if not np.isfinite(answer).all():
            raise Unreadable("it has numbers that are not finite")
    height, width = size
    sides = np.array([width, height, width, height], np.float32)
    read_by = {
        types_pb2.OUTPUT_LAYOUT_UNSPECIFIED: _probabilities,
        types_pb2.OUTPUT_LAYOUT_OBJECTNESS: _objectness,
        types_pb2.OUTPUT_LAYOUT_PLAIN: _plain,
        types_pb2.OUTPUT_LAYOUT_PAIR: _pair,
        types_pb2.OUTPUT_LAYOUT_END_TO_END: _end_to_end,
    }[form.layout]
    rows = tuple(read_by(answers, form.classes, batch, sides))
    for one in rows:
        if not ((one.confidence >= -_SLACK) & (one.confidence <= 1 + _SLACK)).all():
            raise Unreadable("its scores are not within 0..1")
    return rows


def _probabilities(answers: list[F32], classes: int, batch: int, sides: F32) -> list[Rows]:
    _check(answers[0], (batch, classes))
    nothing = np.zeros((0, 4), np.float32)
    return [Rows(nothing, row, row[:, None], _none()) for row in answers[0]]


def _plain(answers: list[F32], classes: int, batch: int, sides: F32) -> list[Rows]:
    rows, *more = answers
    if rows.ndim != 3 or rows.shape[0] != batch or rows.shape[1] < 4 + classes:
        raise Unreadable(_said(rows, (batch, f"{4 + classes} or more", None)))
    for other in more:  # prototypes of masks
        if other.ndim < 1 or len(other) != batch:
            raise Unreadable(_said(other, (batch, None, None, None)))
    found = []
    for number, own in enumerate(rows.transpose(0, 2, 1)):
        scores = own[:, 4 : 4 + classes].max(1)
        whole = np.concatenate([_none(), *(other[number].ravel() for other in more)])
        found.append(Rows(own[:, :4] / sides, scores, own[:, 4:], whole))
    return found


def _objectness(answers: list[F32], classes: int, batch: int, sides: F32) -> list[Rows]:
    _check(answers[0], (batch, None, 5 + classes))
    return [
        Rows(own[:, :4] / sides, own[:, 4] * own[:, 5:].max(1), own[:, 4:], _none())
        for own in answers[0]
    ]


def _pair(answers: list[F32], classes: int, batch: int, sides: F32) -> list[Rows]:
    _check(answers[0], (batch, None, 1, 4))
    corners = answers[0][:, :, 0]
    _check(answers[1], (batch, corners.shape[1], classes))
    return [
        Rows(_centred(own), scores.max(1), scores, _none())
        for own, scores in zip(corners, answers[1], strict=True)
    ]


def _end_to_end(answers: list[F32], classes: int, batch: int, sides: F32) -> list[Rows]:
    (answer,) = answers
    if answer.ndim == 2:
        _check(answer, (None, 7))
        if not np.isin(answer[:, 0], np.arange(batch)).all():
            raise Unreadable(f"it names images that are not among the {batch} of the pass")
        ordered = answer[:, [1, 2, 3, 4, 6, 5]]
        parts = [ordered[answer[:, 0] == image] for image in range(batch)]
    else:
        _check(answer, (batch, None, 6))
        parts = list(answer)
    found = []
    for part in parts:
        own = part[np.argsort(-part[:, 4], kind="stable")]
        own = own[own[:, 4] > 0]  # empty rows fill an answer up
        class_id = own[:, 5]
        if not ((class_id >= 0) & (class_id < classes) & (class_id == np.floor(class_id))).all():
            raise Unreadable(f"its classes are not within the {classes} that have names")
        found.append(Rows(_centred(own[:, :4] / sides), own[:, 4], own[:, 5:6], _none()))
    return found


def _centred(corners: F32) -> F32:
    low, high = corners[:, :2], corners[:, 2:]
    centred: F32 = np.concatenate(((low + high) / 2, high - low), axis=1)
    return centred


def _none() -> F32:
    return np.zeros(0, np.float32)


def _check(answer: F32, form: tuple[int | None, ...]) -> None:
    fits = answer.ndim == len(form) and all(
        wanted is None or found == wanted for found, wanted in zip(answer.shape, form, strict=True)
    )
    if not fits:
        raise Unreadable(_said(answer, form))


def _said(answer: F32, form: tuple[int | str | None, ...]) -> str:
    wanted = ", ".join("n" if size is None else str(size) for size in form)
    return f"it has the form {answer.shape}, not ({wanted})"
