"""Rotated boxes: corners, hulls and suppression by ProbIoU, as the model library computes them.

A rotated box is float32 (5,): centre x, y, width, height in pixels, and the angle in radians,
clockwise on the screen. Pure: numpy alone.
"""

import numpy as np

from worker.arrays import F32, I64

_EPSILON = np.float32(1e-7)
# Pairs are compared in blocks: the matrix of 30,000 boxes would take 3.6 GB.
_BLOCK = 128


def corners(boxes: F32) -> F32:
    """Corners float32 (n, 4, 2) of boxes (n, 5), as ops.xywhr2xyxyxyxy: the first is the lower
    right one when the angle is 0, the second is above it.
    """
    cos, sin = np.cos(boxes[:, 4:]), np.sin(boxes[:, 4:])
    centre, half_width, half_height = boxes[:, :2], boxes[:, 2:3] / 2, boxes[:, 3:4] / 2
    along = np.concatenate((half_width * cos, half_width * sin), axis=1)
    across = np.concatenate((-half_height * sin, half_height * cos), axis=1)
    right, left = centre + along, centre - along
    four = (right + across, right - across, left - across, left + across)
    return np.stack(four, axis=1).astype(np.float32)


def hulls(boxes: F32) -> F32:
    """The upright boxes round rotated ones (n, 5): float32 (n, 4)."""
    points = corners(boxes)
    return np.concatenate((points.min(1), points.max(1)), axis=1)


def probiou(left: F32, right: F32) -> F32:
    """Similarity of each of `left` (n, 5) with each of `right` (m, 5), float32 (n, m) in 0..1.

    ultralytics.utils.metrics.batch_probiou, after https://arxiv.org/abs/2106.06072.
    """
    x1, y1, x2, y2 = left[:, :1], left[:, 1:2], right[None, :, 0], right[None, :, 1]
    a1, b1, c1 = (term[:, None] for term in _covariance(left))
    a2, b2, c2 = (term[None] for term in _covariance(right))
    spread = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    distance = ((a1 + a2) * (y1 - y2) ** 2 + (b1 + b2) * (x1 - x2) ** 2) / (spread + _EPSILON)
    skew = ((c1 + c2) * (x2 - x1) * (y1 - y2)) / (spread + _EPSILON)
    sizes = np.maximum(a1 * b1 - c1**2, 0) * np.maximum(a2 * b2 - c2**2, 0)
    shape = np.log(spread / (4 * np.sqrt(sizes) + _EPSILON) + _EPSILON)
    apart = np.clip(distance * np.float32(0.25) + (skew + shape) * np.float32(0.5), _EPSILON, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-apart) + _EPSILON), np.float32)


def suppress(boxes: F32, order: I64, iou: float, limit: int) -> I64:
    """The indices of the first `limit` boxes whose ProbIoU with every box before them in `order`,
    kept or not, is at most `iou`: TorchNMS.fast_nms of ultralytics.

    boxes: float32 (n, 5); order: int64 (n,), most confident first.
    """
    ordered = boxes[order]
    kept: list[I64] = []
    count = 0
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        hidden = np.zeros(len(block), bool)
        hidden |= (np.triu(probiou(block, block), 1) > iou).any(0)
        for before in range(0, start, _BLOCK):
            open_ = np.flatnonzero(~hidden)
            if not len(open_):
                break
            hits = probiou(ordered[before : before + _BLOCK], block[open_]) > iou
            hidden[open_[hits.any(0)]] = True
        fresh = start + np.flatnonzero(~hidden)
        kept.append(fresh)
        count += len(fresh)
        if count >= limit:
            break
    return order[np.concatenate(kept)[:limit]] if kept else np.zeros(0, np.int64)


def _covariance(boxes: F32) -> tuple[F32, F32, F32]:
    """a, b, c, each (n,), of the covariances [[a, c], [c, b]] of boxes as normal distributions."""
    along: F32 = boxes[:, 2] ** 2 / np.float32(12)
    across: F32 = boxes[:, 3] ** 2 / np.float32(12)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    wide: F32 = along * cos**2 + across * sin**2
    high: F32 = along * sin**2 + across * cos**2
    return wide, high, (along - across) * cos * sin
