"""ONNX graphs that find coloured spots without any weights, and ways in which such a graph can keep
something else than its file declares.

Cells of 8, 16 and 32 pixels; the score of a class is the mean of its colour in the cell, the box is
twice the cell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NAMES = ("red", "green", "blue")
SIZE, STRIDES, CLASSES = 320, (8, 16, 32), 3
ROWS = sum((SIZE // stride) ** 2 for stride in STRIDES)
METADATA = {
    "names": str(dict(enumerate(NAMES))), "task": "detect", "stride": "32", "imgsz": "[320, 320]",
    "args": "{'nms': False}",
}  # fmt: skip
FREE = ("batch", 3, "height", "width")


class Builder:
    """Makes nodes one after the other; names are numbers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        name = f"t{len(self.nodes) + len(self.weights)}"
        names = [name, *(f"{name}.{more}" for more in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"t{len(self.nodes) + len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def of(self, tensor: str, axis: int, start: int, end: int = 2**31, step: int = 1) -> str:
        """A slice of one axis."""
        parts = (self.ints(value) for value in (start, end, axis, step))
        return self.op("Slice", tensor, *parts)

    def size(self, tensor: str, axis: int) -> str:
        return self.of(self.op("Shape", tensor), 0, axis, axis + 1)

    def scaled(self, tensor: str, factor: float) -> str:
        return self.op("Mul", tensor, self.const(factor))


Change = Callable[[Builder, str], str]


def _unchanged(made: Builder, tensor: str) -> str:
    return tensor


@dataclass(frozen=True, slots=True)
class Spots:
    """A graph, and where it departs from the truth: in its `pixels` (b, 3, h, w), in the `places`
    (b, 1, h, w) that a cell's centre is computed from, in its `rows` (b, 7, n), or in its `final`
    rows (b, n, 6), if there are such.
    """

    pixels: Change = _unchanged
    rows: Change = _unchanged
    final: Change | None = None
    lead: int = 0  # the batch in its reshapes; 0: as it comes
    size: Sequence[int | str] = FREE
    dtype: int = TensorProto.FLOAT
    said: dict[str, str] = field(default_factory=lambda: dict(METADATA))
    declared: Sequence[int | str] = ()

    def model(self) -> onnx.ModelProto:
        made = Builder()
        pixels = "images"
        if self.dtype != TensorProto.FLOAT:
            pixels = made.op("Cast", pixels, to=TensorProto.FLOAT)
        if self.dtype == TensorProto.UINT8:
            pixels = made.scaled(pixels, 1 / 255)
        pixels = self.pixels(made, pixels)
        rows = self.rows(made, _rows(made, pixels, self.lead))
        declared: Sequence[int | str] = (self.size[0], 4 + CLASSES, "n")
        if isinstance(self.size[2], int):
            declared = (self.size[0], 4 + CLASSES, ROWS)
        if self.final is not None:
            rows = self.final(made, _final(made, rows))
            declared = (self.size[0], "n" if declared[2] == "n" else ROWS, 6)
        made.nodes.append(helper.make_node("Identity", [rows], ["output0"]))
        graph = helper.make_graph(
            made.nodes,
            "spots",
            [helper.make_tensor_value_info("images", self.dtype, list(self.size))],
            [
                helper.make_tensor_value_info(
                    "output0", TensorProto.FLOAT, list(self.declared or declared)
                )
            ],
            made.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        helper.set_model_props(model, self.said)
        return model


def _rows(made: Builder, pixels: str, lead: int) -> str:
    """(b, 7, n): centre, size, and a score a class."""
    columns = []
    for stride in STRIDES:
        cells = made.op(
            "AveragePool", pixels, kernel_shape=[stride, stride], strides=[stride, stride]
        )
        one = made.op("Add", made.scaled(made.of(cells, 1, 0, 1), 0), made.const(1))
        centres = (
            made.op(
                "Sub",
                made.scaled(made.op("CumSum", one, made.const(axis, np.int64)), stride),
                made.const(stride / 2),
            )
            for axis in (3, 2)
        )
        side = made.scaled(one, 2 * stride)
        row = made.op("Concat", *centres, side, side, cells, axis=1)
        columns.append(made.op("Reshape", row, made.ints(lead, 4 + CLASSES, -1)))
    return made.op("Concat", *columns, axis=2)


def _final(made: Builder, rows: str) -> str:
    """(b, n, 6): corners, confidence, class of each row, suppressing none."""
    rows = made.op("Transpose", rows, perm=[0, 2, 1])
    centre, half = made.of(rows, 2, 0, 2), made.scaled(made.of(rows, 2, 2, 4), 0.5)
    scores = made.of(rows, 2, 4)
    best = made.op("ReduceMax", scores, axes=[2], keepdims=1)
    kind = made.op("Cast", made.op("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
    low, high = made.op("Sub", centre, half), made.op("Add", centre, half)
    return made.op("Concat", low, high, best, kind, axis=2)


def _suppressed(overlap: float = 0.45, first_only: bool = False, unnamed: bool = False) -> Change:
    """(k, 7): image, corners, class, confidence of the rows that suppression leaves, of all images
    one after the other. May look at the first image alone, or name none but the first.
    """

    def change(made: Builder, final: str) -> str:
        boxes, best = made.of(final, 2, 0, 4), made.of(final, 2, 4, 5)
        if first_only:
            seen_boxes, seen = made.of(boxes, 0, 0, 1), made.of(best, 0, 0, 1)
        else:
            seen_boxes, seen = boxes, best
        left = made.op(
            "NonMaxSuppression",
            seen_boxes,
            made.op("Transpose", seen, perm=[0, 2, 1]),
            made.const([200], np.int64),
            made.const([overlap]),
            made.const([0.25]),
        )
        image, row = made.of(left, 1, 0, 1), made.of(left, 1, 2, 3)
        place = made.op("Concat", image, row, axis=1)
        kept = made.op("GatherND", final, place)  # (k, 6)
        number = made.op("Cast", image, to=TensorProto.FLOAT)
        if unnamed:
            number = made.scaled(number, 0)
        return made.op(
            "Concat", number, made.of(kept, 1, 0, 4), made.of(kept, 1, 5), made.of(kept, 1, 4, 5),
            axis=1,
        )  # fmt: skip

    return change


def _scores(change: Change) -> Change:
    """Changes the scores of rows (b, 7, n) alone."""
    return lambda made, rows: made.op(
        "Concat", made.of(rows, 1, 0, 4), change(made, made.of(rows, 1, 4)), axis=1
    )


def _boxes(change: Change) -> Change:
    return lambda made, rows: made.op(
        "Concat", change(made, made.of(rows, 1, 0, 4)), made.of(rows, 1, 4), axis=1
    )


def _all_as(place: int) -> Change:
    def change(made: Builder, rows: str) -> str:
        one = made.of(rows, 0, place, place + 1 or 2**31)
        return made.op("Expand", one, made.op("Shape", rows))

    return change


def _only(count: int) -> Change:
    """Images from the `count`-th on get scores of 0, as of a loop that was unrolled."""

    def change(made: Builder, scores: str) -> str:
        one = made.op(
            "Add", made.scaled(made.of(made.of(scores, 1, 0, 1), 2, 0, 1), 0), made.const(1)
        )
        number = made.op("CumSum", one, made.const(0, np.int64))
        seen = made.op("Less", number, made.const(count + 0.5))
        return made.op("Mul", scores, made.op("Cast", seen, to=TensorProto.FLOAT))

    return change


def _grid(sliced: bool) -> Change:
    """Boxes from a constant of 320 x 320."""
    parts = []
    for stride in STRIDES:
        rows, columns = np.mgrid[: SIZE // stride, : SIZE // stride]
        side = np.full(rows.shape, 2.0 * stride)
        parts.append(
            np.stack([(columns + 0.5) * stride, (rows + 0.5) * stride, side, side]).reshape(4, -1)
        )
    constant = np.concatenate(parts, axis=1)[None]

    def change(made: Builder, boxes: str) -> str:
        grid = made.const(constant)
        if sliced:
            grid = made.op("Slice", grid, made.ints(0), made.size(boxes, 2), made.ints(2))
        return made.op("Add", made.scaled(boxes, 0), grid)

    return change


def _resized(mode: str) -> Change:
    """The graph brings each image to 320 x 320 itself."""

    def change(made: Builder, pixels: str) -> str:
        batch = made.of(made.op("Shape", pixels), 0, 0, 2)
        size = made.op("Concat", batch, made.ints(SIZE, SIZE), axis=0)
        return made.op("Resize", pixels, "", "", size, mode=mode)

    return change


def _padded(made: Builder, pixels: str) -> str:
    """The graph pads each image to a square, with the image in its middle."""
    height, width = made.size(pixels, 2), made.size(pixels, 3)
    side = made.op("Max", height, width)
    two = made.ints(2)
    above = made.op("Div", made.op("Sub", side, height), two)
    left = made.op("Div", made.op("Sub", side, width), two)
    below = made.op("Sub", made.op("Sub", side, height), above)
    right = made.op("Sub", made.op("Sub", side, width), left)
    none = made.ints(0, 0)
    pads = made.op("Concat", none, above, left, none, below, right, axis=0)
    return made.op("Pad", pixels, pads, made.const(114 / 255))


def _swapped(made: Builder, boxes: str) -> str:
    order = made.ints(1, 0, 3, 2)
    return made.op("Gather", boxes, order, axis=1)


def _flipped(made: Builder, boxes: str) -> str:
    x, y, rest = made.of(boxes, 1, 0, 1), made.of(boxes, 1, 1, 2), made.of(boxes, 1, 2)
    return made.op("Concat", x, made.op("Sub", made.const(float(SIZE)), y), rest, axis=1)


def _corners(made: Builder, boxes: str) -> str:
    centre, half = made.of(boxes, 1, 0, 2), made.scaled(made.of(boxes, 1, 2), 0.5)
    return made.op("Concat", made.op("Sub", centre, half), made.op("Add", centre, half), axis=1)


def _undecoded(made: Builder, boxes: str) -> str:
    zero = made.scaled(boxes, 0)
    return made.op("Add", zero, made.const(np.array([0.5, 0.5, 0.7, 0.7]).reshape(1, 4, 1)))


def _of_whole(kind: str, axes: Sequence[int] | None) -> Change:
    """Divides by the largest value, or subtracts the mean, of more than one image."""

    def change(made: Builder, pixels: str) -> str:
        of: dict[str, Any] = {} if axes is None else {"axes": list(axes)}
        value = made.op(kind, pixels, keepdims=1, **of)
        if kind == "ReduceMax":
            return made.op("Div", pixels, made.op("Add", value, made.const(1e-6)))
        return made.op("Clip", made.op("Add", made.op("Sub", pixels, value), made.const(0.5)),
                       made.const(0.0), made.const(1.0))  # fmt: skip

    return change


def _reversed(made: Builder, rows: str) -> str:
    return made.of(rows, 0, -1, -(2**31), -1)


def _rolled(made: Builder, rows: str) -> str:
    return made.op("Concat", made.of(rows, 0, 1), made.of(rows, 0, 0, 1), axis=0)


def _merged(made: Builder, rows: str) -> str:
    """Rows of all images mixed: seven of each image's numbers no longer belong together."""
    turned = made.op("Transpose", rows, perm=[1, 0, 2])
    return made.op("Reshape", turned, made.op("Shape", rows))


def _times(value: float) -> Change:
    return lambda made, tensor: made.scaled(tensor, value)


def _noisy(made: Builder, scores: str) -> str:
    noise = made.op("RandomUniformLike", scores, low=0.0, high=0.3)
    return made.op("Clip", made.op("Add", scores, noise), made.const(0.0), made.const(1.0))


def _one_answer(made: Builder, rows: str) -> str:
    return made.op("ReduceMax", rows, axes=[0], keepdims=1)


def _mean_answer(made: Builder, rows: str) -> str:
    return made.op("Expand", made.op("ReduceMean", rows, axes=[0], keepdims=1),
                   made.op("Shape", rows))  # fmt: skip


def _twice(made: Builder, rows: str) -> str:
    return made.op("Concat", rows, rows, axis=0)


def _class_of(value: float) -> Change:
    return lambda made, final: made.op(
        "Concat", made.of(final, 2, 0, 5), made.op("Add", made.of(final, 2, 5), made.const(value)),
        axis=2,
    )  # fmt: skip


def _centred(made: Builder, final: str) -> str:
    low, high = made.of(final, 2, 0, 2), made.of(final, 2, 2, 4)
    centre = made.scaled(made.op("Add", low, high), 0.5)
    return made.op("Concat", centre, made.op("Sub", high, low), made.of(final, 2, 4), axis=2)


def _confidence(change: Change) -> Change:
    return lambda made, final: made.op(
        "Concat", made.of(final, 2, 0, 4), change(made, made.of(final, 2, 4, 5)),
        made.of(final, 2, 5), axis=2,
    )  # fmt: skip


def _corner_boxes(factor: float) -> Change:
    return lambda made, final: made.op(
        "Concat", made.scaled(made.of(final, 2, 0, 4), factor), made.of(final, 2, 4), axis=2
    )


_IMAGES_OF_FOUR = (4, 3, SIZE, SIZE)
_END_TO_END = {**METADATA, "end2end": "True"}
_NMS = {**METADATA, "args": "{'nms': True}"}
_FLAT: dict[str, Any] = {"said": _NMS, "declared": ("n", 7)}


def _final_spots(final: Change = _unchanged, **more: Any) -> Spots:
    return Spots(final=final, said=_END_TO_END, **more)


TRUE = {
    "plain": Spots(),
    "uint8": Spots(dtype=TensorProto.UINT8),
    "half": Spots(dtype=TensorProto.FLOAT16),
    "one fixed size": Spots(size=(1, 3, SIZE, SIZE)),
    "batches of four": Spots(size=_IMAGES_OF_FOUR),
    "batches of four in a reshape": Spots(size=_IMAGES_OF_FOUR, lead=4),
    "final": _final_spots(),
    "suppressed": Spots(final=_suppressed(), **_FLAT),
}

# What the file keeps instead of what it declares.
LIES = {
    # of a batch
    "all get the first image's answer": Spots(rows=_all_as(0)),
    "all get the last image's answer": Spots(rows=_all_as(-1)),
    "answers in reverse": Spots(rows=_reversed),
    "answers moved by one": Spots(rows=_rolled),
    "the batch is squeezed": Spots(
        pixels=lambda made, x: made.op(
            "Unsqueeze", made.op("Squeeze", x, made.ints(0)), made.ints(0)
        )
    ),
    "batch 1 in a reshape": Spots(lead=1),
    "batch 2 in a reshape": Spots(lead=2),
    "batch 8 in a reshape": Spots(lead=8),
    "rows of all images mixed": Spots(rows=_merged),
    "scaled by the brightest of all images": Spots(pixels=_of_whole("ReduceMax", None)),
    "less the mean of all images": Spots(pixels=_of_whole("ReduceMean", [0, 2, 3])),
    "one answer to all": Spots(rows=_one_answer),
    "the mean of all answers": Spots(rows=_mean_answer),
    "two answers to each": Spots(rows=_twice),
    "scores divided among images": Spots(
        rows=_scores(lambda made, x: made.op("Softmax", x, axis=0))
    ),
    "scores added up over images": Spots(
        rows=_scores(
            lambda made, x: made.op(
                "Clip",
                made.scaled(made.op("CumSum", x, made.const(0, np.int64)), 0.5),
                made.const(0.0),
                made.const(1.0),
            )
        )
    ),
    "only the first image is looked at": Spots(rows=_scores(_only(1))),
    "only two images are looked at": Spots(rows=_scores(_only(2))),
    "only four images are looked at": Spots(rows=_scores(_only(4))),
    "in half precision, answers in reverse": Spots(rows=_reversed, dtype=TensorProto.FLOAT16),
    "in uint8, all get the first image's answer": Spots(rows=_all_as(0), dtype=TensorProto.UINT8),
    "of four images, all get the first one's answer": Spots(rows=_all_as(0), size=_IMAGES_OF_FOUR),
    "of four images, answers in reverse": Spots(rows=_reversed, size=_IMAGES_OF_FOUR),
    # of sizes
    "the grid of one size": Spots(rows=_boxes(_grid(False))),
    "the grid of one size, cut": Spots(rows=_boxes(_grid(True))),
    "brought to one size inside": Spots(pixels=_resized("linear")),
    "padded to a square inside": Spots(pixels=_padded),
    # of boxes
    "x and y swapped": Spots(rows=_boxes(_swapped)),
    "y from below": Spots(rows=_boxes(_flipped)),
    "corners for centres": Spots(rows=_boxes(_corners)),
    "shares for pixels": Spots(rows=_boxes(_times(1 / SIZE))),
    "cells for pixels": Spots(rows=_boxes(_times(1 / 8))),
    "pixels of twice the size": Spots(rows=_boxes(_times(2))),
    "places within their cells": Spots(rows=_boxes(_undecoded)),
    # of values
    "scores that are logits": Spots(rows=_scores(lambda made, x: made.scaled(x, 12))),
    "scores below 0": Spots(rows=_scores(lambda made, x: made.op("Sub", x, made.const(0.9)))),
    "scores that are no numbers": Spots(rows=_scores(_times(float("nan")))),
    "boxes that are no numbers": Spots(rows=_boxes(_times(float("nan")))),
    "boxes without end": Spots(rows=_boxes(_times(float("inf")))),
    "uint8 that is not normalised": Spots(
        pixels=lambda made, x: made.scaled(x, 255), dtype=TensorProto.UINT8
    ),
    "values of 0 to 255": Spots(pixels=_times(1 / 255)),
    "another answer each time": Spots(rows=_scores(_noisy)),
    # of final boxes
    "final boxes of the first image alone": _final_spots(_confidence(_only(1))),
    "final boxes of four images alone": _final_spots(_confidence(_only(4))),
    "final boxes by centre and size": _final_spots(_centred),
    "final boxes as shares": _final_spots(_corner_boxes(1 / SIZE)),
    "final boxes in reverse": _final_spots(_reversed),
    "classes beyond the names": _final_spots(_class_of(3)),
    "half classes": _final_spots(_class_of(0.5)),
    "suppression of the first image alone": Spots(final=_suppressed(first_only=True), **_FLAT),
    "no image is named but the first": Spots(final=_suppressed(unnamed=True), **_FLAT),
}
