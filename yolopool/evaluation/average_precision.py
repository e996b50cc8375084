"""Average precision by class, as the model library's `val` computes it. Pure.

Detections are matched greedily by score at IoU .50 to .95, as in COCO (Lin et al. 2014). Precision
is made monotonic; the area under it is that of 101 recalls joined by straight lines, where
pycocotools takes steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
# A row of detections is x1, y1, x2, y2, score, class; a row of truths is x1, y1, x2, y2, class.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Where precision and recall by confidence are sampled, and the share of it that is smoothed over.
CONFIDENCES = np.linspace(0, 1, 1000)
_SMOOTHED = 0.1
_TINY = 1e-16


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections beside the truths of the same image, or of several.

    hits: (n, 10), whether each found a truth at each of THRESHOLDS; scores and classes: (n,);
    truths: (m,), the classes of the truths.
    """

    hits: Flags
    scores: Array
    classes: Ints
    truths: Ints


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """What of one class was found. `precisions` are average precisions at THRESHOLDS; `curve` is
    the precision at each of RECALLS, at IoU 0.5. `precision` and `recall` are those at the
    confidence where the mean F1 of all classes is best.
    """

    class_id: int
    truths: int
    precision: float
    recall: float
    precisions: Array
    curve: Array

    @property
    def ap50(self) -> float:
        return float(self.precisions[0])

    @property
    def ap50_95(self) -> float:
        return float(self.precisions.mean())


@dataclass(frozen=True, slots=True)
class Precision:
    """The classes that occur in the truths, by id, and the confidence where their mean F1 is best.
    The means are 0 if there are no truths.
    """

    classes: tuple[ClassPrecision, ...]
    confidence: float

    @property
    def map50(self) -> float:
        return _mean([one.ap50 for one in self.classes])

    @property
    def map50_95(self) -> float:
        return _mean([one.ap50_95 for one in self.classes])

    @property
    def precision(self) -> float:
        return _mean([one.precision for one in self.classes])

    @property
    def recall(self) -> float:
        return _mean([one.recall for one in self.classes])


def iou(left: Array, right: Array) -> Array:
    """Intersection over union of n boxes with m boxes: (n, m), 0..1."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:4], right[None, :, 2:4])
    sides = np.clip(high - low, 0, None)
    common = sides[:, :, 0] * sides[:, :, 1]
    areas = [np.prod(b[:, 2:4] - b[:, :2], axis=1) for b in (left, right)]
    union = areas[0][:, None] + areas[1][None, :] - common
    return np.asarray(common / np.maximum(union, 1e-12), np.float64)


def match(overlaps: Array, scores: Array, classes: Ints, truths: Ints) -> Matches:
    """Matches the detections of one image. `overlaps`: (n, m) with its truths.

    At each threshold each detection, the most confident first, takes the truth of its class that
    it overlaps most and that none before it took.
    """
    hits = np.zeros((len(scores), len(THRESHOLDS)), np.bool_)
    same = np.where(classes[:, None] == truths[None, :], overlaps, 0.0)
    taken = np.zeros((len(truths), len(THRESHOLDS)), np.bool_)
    columns = np.arange(len(THRESHOLDS))
    for row in np.argsort(-scores, kind="stable"):
        if not len(truths) or same[row].max() < THRESHOLDS[0]:
            continue
        free = np.where(taken, 0.0, same[row][:, None])
        best = free.argmax(axis=0)
        hits[row] = free[best, columns] >= THRESHOLDS
        taken[best, columns] |= hits[row]
    return Matches(hits, scores, classes, truths)


def total(parts: Sequence[Matches]) -> Precision:
    """The precision over several images."""
    if not parts:
        return Precision((), 0.0)
    scores = np.concatenate([part.scores for part in parts])
    order = np.argsort(-scores, kind="stable")
    whole = Matches(
        np.concatenate([part.hits for part in parts])[order],
        scores[order],
        np.concatenate([part.classes for part in parts])[order],
        np.concatenate([part.truths for part in parts]),
    )
    ids, counts = np.unique(whole.truths, return_counts=True)
    curves = [_Curves.of(whole, int(cls), int(n)) for cls, n in zip(ids, counts, strict=True)]
    at = _best(curves)
    classes = tuple(
        ClassPrecision(
            int(cls),
            int(n),
            float(one.by_confidence[at]),
            float(one.recalls[at]),
            one.areas,
            one.curve,
        )
        for cls, n, one in zip(ids, counts, curves, strict=True)
    )
    return Precision(classes, float(CONFIDENCES[at]))


@dataclass(frozen=True, slots=True)
class _Curves:
    """Of one class: areas (10,), the curve at RECALLS, and precision and recall at CONFIDENCES."""

    areas: Array
    curve: Array
    by_confidence: Array
    recalls: Array

    @classmethod
    def of(cls, ranked: Matches, class_id: int, truths: int) -> "_Curves":
        own = ranked.classes == class_id
        hits, scores = ranked.hits[own], ranked.scores[own]
        if not len(scores):
            nothing = np.zeros_like(CONFIDENCES)
            return cls(np.zeros(len(THRESHOLDS)), np.zeros_like(RECALLS), nothing, nothing)
        found = hits.cumsum(axis=0)
        recall = found / truths
        precision = found / np.arange(1, len(hits) + 1)[:, None]
        curves = [_curve(recall[:, at], precision[:, at]) for at in range(len(THRESHOLDS))]
        return cls(
            np.array([_area(curve) for curve in curves]),
            curves[0],
            np.interp(-CONFIDENCES, -scores, precision[:, 0], left=1),
            np.interp(-CONFIDENCES, -scores, recall[:, 0], left=0),
        )


def _curve(recall: Array, precision: Array) -> Array:
    """Precision at RECALLS: at none it is 1, and beyond the last recall that was reached 0."""
    reached = np.concatenate(([0.0], recall, [recall[-1], 1.0]))
    known = np.concatenate(([1.0], precision, [0.0, 0.0]))
    envelope = np.maximum.accumulate(known[::-1])[::-1]
    return np.asarray(np.interp(RECALLS, reached, envelope), np.float64)


def _area(curve: Array) -> float:
    return float(((curve[1:] + curve[:-1]) / 2 * np.diff(RECALLS)).sum())


def _best(curves: Sequence[_Curves]) -> int:
    """The index in CONFIDENCES where the mean F1 of the classes, smoothed, is highest."""
    if not curves:
        return 0
    f1 = [
        2 * one.by_confidence * one.recalls / (one.by_confidence + one.recalls + _TINY)
        for one in curves
    ]
    # An odd number of samples, with the ends repeated.
    width = round(len(CONFIDENCES) * _SMOOTHED * 2) // 2 + 1
    padded = np.pad(np.mean(f1, axis=0), width // 2, mode="edge")
    return int(np.convolve(padded, np.ones(width) / width, mode="valid").argmax())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def mean_precision(
    detections: Mapping[str, Array], truths: Mapping[str, Array]
) -> tuple[float, float]:
    """(mAP50, mAP50-95) over the classes that occur in the truths, by rows of each image."""
    parts = []
    for name, real in truths.items():
        given = detections[name]
        classes, wanted = given[:, 5].astype(np.int64), real[:, 4].astype(np.int64)
        parts.append(match(iou(given, real), given[:, 4], classes, wanted))
    found = total(parts)
    return found.map50, found.map50_95
