"""Non-maximum suppression, equal box for box to the model library's `non_max_suppression`.

Runs on the host: with torchvision where it imports, else in blocks with numpy, which is much
faster than the library's own loop since it stops at the last box that was asked for.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from worker.arrays import F32, I64, Bools, is_finite
from worker.postprocess import rotated_boxes
from worker.postprocess.outputs import NmsOptions

# Boxes of different classes are moved this many pixels apart so that they never overlap, and at
# most MAX_COMPARED boxes are compared: max_wh and max_nms of ultralytics.utils.nms.
CLASS_OFFSET = 7680
MAX_COMPARED = 30_000
_BLOCK = 64

# The classes of some rows (indices among n) of an image in the batch. It is called only for rows
# above a threshold.
Classes = Callable[[int, I64], I64]
Suppress = Callable[[F32, F32, float, int], I64]


class Suppressed(NamedTuple):
    """The rows of an image that remain, most confident first: indices int64 (n,), boxes float32
    (n, 4), confidence float32 (n,) and class int64 (n,). Not `finite`: a score is NaN or infinite,
    or a box with a score above the threshold is; no row is kept.
    """

    rows: I64
    boxes: F32
    confidence: F32
    class_id: I64
    finite: bool = True


_NOT_FINITE = Suppressed(
    np.zeros(0, np.int64),
    np.zeros((0, 4), np.float32),
    np.zeros(0, np.float32),
    np.zeros(0, np.int64),
    finite=False,
)


def one_to_many(
    boxes: F32,
    confidence: F32,
    classes: Classes,
    options: Sequence[NmsOptions],
    angles: F32 | None = None,
) -> tuple[Suppressed, ...]:
    """Suppresses overlapping boxes of a batch.

    boxes: float32 (batch, 4, n) of centre x, y, width, height in letterboxed pixels; confidence:
    float32 (batch, n), the best score of each; options: one for each image. The remaining boxes
    are corners. With angles, float32 (batch, n), boxes are compared by ProbIoU and stay as given.
    """
    return tuple(
        _of_image(
            boxes[image],
            confidence[image],
            partial(classes, image),
            None if angles is None else angles[image],
            wanted,
        )
        for image, wanted in enumerate(options)
    )


def end_to_end(final: F32, options: NmsOptions) -> Suppressed:
    """Filters the final rows of one image: float32 (n, 6 or more) of box, confidence, class."""
    thresholds = _thresholds(options)
    rows = _not_below(final[:, 4], thresholds)
    if not is_finite(final[rows]):
        return _NOT_FINITE
    class_id = final[rows, 5].astype(np.int64)
    wanted = np.flatnonzero(final[rows, 4] > thresholds[class_id])[: options.max_detections]
    kept = rows[wanted]
    return Suppressed(kept, final[kept, :4], final[kept, 4], class_id[wanted])


def _of_image(
    boxes: F32,
    confidence: F32,
    classes: Callable[[I64], I64],
    angles: F32 | None,
    options: NmsOptions,
) -> Suppressed:
    thresholds = _thresholds(options)
    rows = _not_below(confidence, thresholds)
    scores = confidence[rows]
    if not is_finite(scores):
        return _NOT_FINITE
    class_id = classes(rows)
    wanted = scores > thresholds[class_id]
    rows, class_id, scores = rows[wanted], class_id[wanted], scores[wanted]
    if len(rows) > MAX_COMPARED:
        order = descending(scores)[:MAX_COMPARED]
        rows, class_id, scores = rows[order], class_id[order], scores[order]
    offset = class_id.astype(np.float32) * np.float32(0 if options.agnostic else CLASS_OFFSET)
    own, turned = boxes[:, rows].T, None if angles is None else angles[rows]
    if not is_finite(own) or not (turned is None or is_finite(turned)):
        return _NOT_FINITE
    if turned is None:
        own = _corners(own)
        kept = suppress(own + offset[:, None], scores, options.iou, options.max_detections)
    else:
        moved = np.column_stack((own[:, :2] + offset[:, None], own[:, 2:], turned))
        order = descending(scores)
        kept = rotated_boxes.suppress(moved, order, options.iou, options.max_detections)
    return Suppressed(rows[kept], own[kept], scores[kept], class_id[kept])


def suppress_in_numpy(boxes: F32, scores: F32, iou: float, limit: int) -> I64:
    """The indices of the first `limit` boxes that greedy suppression keeps, most confident first.

    boxes: float32 (n, 4) corners; scores: float32 (n,). Equals TorchNMS.nms of ultralytics
    in every comparison, also for empty boxes.
    """
    order = descending(scores)
    # One row for each side, so that compared values are adjacent in memory.
    sides = np.ascontiguousarray(boxes[order].T)
    areas = (sides[2] - sides[0]) * (sides[3] - sides[1])
    # An empty box can make 0/0. What the library does then depends on the remaining boxes.
    ordinary = bool((areas > 0).all() and np.isfinite(areas).all())
    greedy = _greedy_blocks if ordinary else _greedy_loop
    return order[greedy(sides, areas, iou, limit)]


def descending(scores: F32) -> I64:
    """The order in which the library sorts scores: torch decides between equal ones."""
    return torch.from_numpy(scores).argsort(descending=True).numpy()


def _greedy_blocks(sides: F32, areas: F32, iou: float, limit: int) -> I64:
    """Suppresses within the most confident block, then removes what this block suppresses from
    the rest, so that few boxes are compared after they are suppressed.
    """
    left = np.arange(len(areas))
    kept: list[I64] = []
    count = 0
    while len(left):
        block, rest = sides[:, :_BLOCK], sides[:, _BLOCK:]
        block_areas, rest_areas = areas[:_BLOCK], areas[_BLOCK:]
        fresh = _greedy_bits(~(_overlaps(block, block_areas, block, block_areas) <= iou))
        kept.append(left[fresh])
        count += len(fresh)
        if count >= limit:
            break
        hits = ~(_overlaps(block[:, fresh], block_areas[fresh], rest, rest_areas) <= iou)
        alive = np.flatnonzero(~hits.any(0))
        left, sides, areas = left[_BLOCK:][alive], rest[:, alive], rest_areas[alive]
    return np.concatenate(kept)[:limit] if kept else np.zeros(0, np.int64)


def _greedy_bits(hits: Bools) -> I64:
    """The rows of a square of hits that no kept row above them hits. A row is packed into one
    integer, since as many operations on arrays would take most of the time.
    """
    size = -(-hits.shape[1] // 8)
    packed = np.packbits(hits, axis=1, bitorder="little").tobytes()
    kept, removed = [], 0
    for row in range(len(hits)):
        if not removed >> row & 1:
            kept.append(row)
            removed |= int.from_bytes(packed[row * size : (row + 1) * size], "little")
    return np.array(kept, np.int64)


def _greedy_loop(sides: F32, areas: F32, iou: float, limit: int) -> I64:
    """The library's own loop, for boxes without area."""
    kept: list[int] = []
    rest = np.arange(len(areas))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        while len(rest) and len(kept) < limit:
            first, rest = rest[:1], rest[1:]
            kept.append(int(first[0]))
            inter = _intersections(sides[:, first], sides[:, rest])[0]
            if inter.sum() == 0:
                continue
            rest = rest[inter / (areas[first] + areas[rest] - inter) <= iou]
    return np.array(kept, np.int64)


def _overlaps(left: F32, left_areas: F32, right: F32, right_areas: F32) -> F32:
    """Intersection over union, float32 (left, right), by the library's operations."""
    inter = _intersections(left, right)
    union = left_areas[:, None] + right_areas
    union -= inter
    inter /= union
    return inter


def _intersections(left: F32, right: F32) -> F32:
    """Areas shared, float32 (left, right), of boxes as rows of sides x1, y1, x2, y2."""
    width = np.minimum(left[2][:, None], right[2])
    width -= np.maximum(left[0][:, None], right[0])
    np.maximum(width, 0, out=width)
    height = np.minimum(left[3][:, None], right[3])
    height -= np.maximum(left[1][:, None], right[1])
    np.maximum(height, 0, out=height)
    return np.asarray(np.multiply(width, height, out=width), np.float32)


def _corners(centred: F32) -> F32:
    half = centred[:, 2:4] / 2
    return np.concatenate((centred[:, :2] - half, centred[:, :2] + half), axis=1)


def _not_below(confidence: F32, thresholds: F32) -> I64:
    """The rows that may count. NaN is among them, which no comparison is true of."""
    return np.flatnonzero(~(confidence <= thresholds.min()))


def _thresholds(options: NmsOptions) -> F32:
    return np.asarray(options.class_confidence, np.float32)


def _fastest() -> Suppress:
    try:
        from torchvision.ops import nms
    except (ImportError, RuntimeError, OSError, AttributeError):
        # It is not installed, or built for another torch and then lacks its operators.
        return suppress_in_numpy

    def by_torchvision(boxes: F32, scores: F32, iou: float, limit: int) -> I64:
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
        return np.asarray(kept[:limit].numpy(), np.int64)

    return by_torchvision


suppress: Suppress = _fastest()
