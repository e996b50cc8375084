"""Mean average precision as in COCO (Lin et al. 2014; pycocotools/cocoeval.py). Pure.

Detections are matched greedily by score at IoU .50 to .95. Precision is made monotonic and sampled
at 101 recalls.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# A row of detections is x1, y1, x2, y2, score, class; a row of truths is x1, y1, x2, y2, class.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# As in COCO: at most so many detections of a class on an image.
MAX_DETECTIONS = 100


def iou(left: Array, right: Array) -> Array:
    """Intersection over union of n boxes with m boxes: (n, m), 0..1."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:4], right[None, :, 2:4])
    sides = np.clip(high - low, 0, None)
    common = sides[:, :, 0] * sides[:, :, 1]
    areas = [np.prod(b[:, 2:4] - b[:, :2], axis=1) for b in (left, right)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, 1e-12), np.float64)


def match(detections: Array, truths: Array, threshold: float) -> NDArray[np.bool_]:
    """Which detections (best score first) match a truth that no better detection has matched."""
    hits = np.zeros(len(detections), np.bool_)
    overlaps = iou(detections, truths)
    for row in range(len(detections)):
        free = overlaps[row]
        if free.size and free.max() >= threshold:
            hits[row] = True
            overlaps[:, int(free.argmax())] = -1.0
    return hits


def average_precision(hits: NDArray[np.bool_], scores: Array, truths: int) -> float:
    """Area under the precision-recall curve, 0..1; `truths` is their number, at least one."""
    ranked = hits[np.argsort(-scores, kind="mergesort")]
    found = np.cumsum(ranked)
    recall = found / truths
    precision = found / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(envelope, 0.0)[places].mean())


def class_precision(
    detections: Mapping[str, Array], truths: Mapping[str, Array], cls: int, threshold: float
) -> float | None:
    """Average precision of one class over all images; None if no image shows it."""
    hits, scores, total = [np.zeros(0, np.bool_)], [np.zeros(0)], 0
    for name, wanted in truths.items():
        real = wanted[wanted[:, 4] == cls]
        given = detections[name][detections[name][:, 5] == cls]
        given = given[np.argsort(-given[:, 4], kind="mergesort")][:MAX_DETECTIONS]
        total += len(real)
        hits.append(match(given, real, threshold))
        scores.append(given[:, 4])
    if not total:
        return None
    return average_precision(np.concatenate(hits), np.concatenate(scores), total)


def mean_precision(
    detections: Mapping[str, Array], truths: Mapping[str, Array], classes: int
) -> tuple[float, float]:
    """(mAP50, mAP50-95): means over the classes that occur in the truths."""
    table = [
        [class_precision(detections, truths, cls, float(t)) for t in THRESHOLDS]
        for cls in range(classes)
    ]
    shown = np.array([row for row in table if row[0] is not None], np.float64)
    return float(shown[:, 0].mean()), float(shown.mean())
