"""Non-maximum suppression, box for box what the model library's `non_max_suppression` gives.

The device only picks the rows above a threshold, in one step for the batch; suppression runs on
the host: by torchvision where it imports, else by blocks in numpy, which is much faster than
the library's own loop (it stops at the last box that is asked for).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from worker.backends.base import Candidates, NmsOptions

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
# Boxes of different classes are moved this many pixels apart, so that they never overlap, and
# at most so many boxes are compared: ultralytics.utils.nms, max_wh and max_nms.
CLASS_OFFSET = 7680
MAX_COMPARED = 30_000
_BLOCK = 128

Suppress = Callable[[F32, F32, float, int], I64]


def one_to_many(prediction: torch.Tensor, options: Sequence[NmsOptions]) -> tuple[Candidates, ...]:
    """Suppresses overlapping boxes of a batch.

    `prediction` is float (batch, 4 + nc, n): centre x, y, width, height in letterboxed pixels,
    then one score a class; one options an image.
    """
    lowest = torch.tensor([min(one.class_confidence) for one in options], dtype=torch.float32)
    mask = prediction[:, 4:].amax(1) > lowest.to(prediction.device)[:, None]
    rows = prediction.transpose(-1, -2)[mask]
    best = rows[:, 4:].max(1) if len(rows) else None
    counts = mask.sum(1).tolist()
    if best is None:
        return tuple(_candidates(np.zeros((0, 4), np.float32), *_none()) for _ in options)
    boxes = _corners(_host(rows[:, :4]))
    confidence, class_id = _host(best.values), best.indices.cpu().numpy()
    answers, start = [], 0
    for count, one in zip(counts, options, strict=True):
        part = slice(start, start + count)
        answers.append(_suppress_image(boxes[part], confidence[part], class_id[part], one))
        start += count
    return tuple(answers)


def end_to_end(rows: torch.Tensor, options: NmsOptions) -> Candidates:
    """Filters the final boxes of one image: float (n, 6) of corners, confidence, class."""
    final = _host(rows)
    class_id = final[:, 5].astype(np.int64)
    kept = np.flatnonzero(final[:, 4] > _thresholds(options)[class_id])[: options.max_detections]
    return _candidates(final[kept, :4], final[kept, 4], class_id[kept])


def _suppress_image(boxes: F32, confidence: F32, class_id: I64, options: NmsOptions) -> Candidates:
    wanted = confidence > _thresholds(options)[class_id]
    boxes, confidence, class_id = boxes[wanted], confidence[wanted], class_id[wanted]
    if len(boxes) > MAX_COMPARED:
        order = descending(confidence)[:MAX_COMPARED]
        boxes, confidence, class_id = boxes[order], confidence[order], class_id[order]
    offset = class_id.astype(np.float32) * np.float32(0 if options.agnostic else CLASS_OFFSET)
    kept = suppress(boxes + offset[:, None], confidence, options.iou, options.max_detections)
    return _candidates(boxes[kept], confidence[kept], class_id[kept])


def suppress_in_numpy(boxes: F32, scores: F32, iou: float, limit: int) -> I64:
    """Indices of the first `limit` boxes that greedy suppression keeps, most confident first.

    boxes: float32 (n, 4) corners; scores: float32 (n,). Equals TorchNMS.nms of ultralytics
    in every comparison, its treatment of empty boxes included.
    """
    order = descending(scores)
    corners = boxes[order]
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    # An empty box can make 0/0, and what the library does then depends on the boxes left.
    ordinary = bool((areas > 0).all() and np.isfinite(areas).all())
    greedy = _greedy_blocks if ordinary else _greedy_loop
    return order[greedy(corners, areas, iou, limit)]


def descending(scores: F32) -> I64:
    """Order of scores as the library sorts them: torch decides what comes first among equals."""
    return torch.from_numpy(scores).argsort(descending=True).numpy()


def _greedy_blocks(corners: F32, areas: F32, iou: float, limit: int) -> I64:
    alive = np.ones(len(corners), bool)
    kept: list[I64] = []
    found = 0
    for start in range(0, len(corners), _BLOCK):
        block = start + np.flatnonzero(alive[start : start + _BLOCK])
        if not len(block):
            continue
        hits = ~(_overlaps(corners[block], areas[block], corners[block], areas[block]) <= iou)
        removed = np.zeros(len(block), bool)
        for row in range(len(block)):
            if not removed[row]:
                removed[row + 1 :] |= hits[row, row + 1 :]
        fresh = block[~removed]
        kept.append(fresh)
        found += len(fresh)
        if found >= limit:
            break
        later = start + _BLOCK + np.flatnonzero(alive[start + _BLOCK :])
        hits = ~(_overlaps(corners[fresh], areas[fresh], corners[later], areas[later]) <= iou)
        alive[later[hits.any(0)]] = False
    return np.concatenate(kept)[:limit] if kept else np.zeros(0, np.int64)


def _greedy_loop(corners: F32, areas: F32, iou: float, limit: int) -> I64:
    """The library's loop as it is, for boxes without area."""
    kept: list[int] = []
    rest = np.arange(len(corners))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        while len(rest) and len(kept) < limit:
            first, rest = rest[0], rest[1:]
            kept.append(int(first))
            inter = _intersections(corners[first], corners[rest])
            if inter.sum() == 0:
                continue
            rest = rest[inter / (areas[first] + areas[rest] - inter) <= iou]
    return np.array(kept, np.int64)


def _overlaps(left: F32, left_areas: F32, right: F32, right_areas: F32) -> F32:
    """Intersection over union, float32 (len(left), len(right)), in the library's operations."""
    inter = _intersections(left[:, None], right[None])
    union = left_areas[:, None] + right_areas[None]
    union -= inter
    inter /= union
    return inter


def _intersections(left: F32, right: F32) -> F32:
    width = np.minimum(left[..., 2], right[..., 2]) - np.maximum(left[..., 0], right[..., 0])
    height = np.minimum(left[..., 3], right[..., 3]) - np.maximum(left[..., 1], right[..., 1])
    np.maximum(width, 0, out=width)
    np.maximum(height, 0, out=height)
    width *= height
    return width


def _corners(centred: F32) -> F32:
    half = centred[:, 2:4] / 2
    return np.concatenate((centred[:, :2] - half, centred[:, :2] + half), axis=1)


def _thresholds(options: NmsOptions) -> F32:
    return np.asarray(options.class_confidence, np.float32)


def _host(tensor: torch.Tensor) -> F32:
    return np.asarray(tensor.float().cpu().numpy(), np.float32)


def _none() -> tuple[F32, I64]:
    return np.zeros(0, np.float32), np.zeros(0, np.int64)


def _candidates(boxes: F32, confidence: F32, class_id: I64) -> Candidates:
    return Candidates(
        np.ascontiguousarray(boxes), np.ascontiguousarray(confidence), class_id.astype(np.int64)
    )


def _fastest() -> Suppress:
    try:
        from torchvision.ops import nms
    except (ImportError, RuntimeError, OSError, AttributeError):
        # Not installed, or built for another torch: then its operators are missing at import.
        return suppress_in_numpy

    def by_torchvision(boxes: F32, scores: F32, iou: float, limit: int) -> I64:
        kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
        return np.asarray(kept[:limit].numpy(), np.int64)

    return by_torchvision


suppress: Suppress = _fastest()
