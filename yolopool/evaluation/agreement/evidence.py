"""What is known of a candidate beside the stable version: sums, which add up over control planes in
any order. Pure but for being added to.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from yolopool.evaluation.agreement.betting import SHARES, log_growth
from yolopool.evaluation.agreement.disagreement import (
    FIRST_OF_IMAGE,
    Disagreement,
    Tolerance,
    directions,
)
from yolopool.evaluation.agreement.matching import Array, Found

# Of boxes by their area, as COCO has them: below 32 x 32 pixels, below 96 x 96, larger.
SIZES = ("small", "medium", "large")
_AREAS = np.array([32.0**2, 96.0**2])
# Confidences are counted in steps of 0.05.
BINS = 20
# Classes that are followed apart: what single classes say needs memory for each.
MAX_CLASSES = 300


class Evidence:
    """`requests`: compared; `failed`: of them, by (stable, candidate). `images`: both answered.
    `logs`: of each direction of a sample, against more and against less, by stake. `sums` and
    `counts`: of samples. `lost`: by class: sum, count, then logs. `objects`: by size: of the stable
    version, found again, of the candidate. `classes`: by class: of the stable version, of the
    candidate. `scores`: histograms of both. `moved`: pixels right and down of matched boxes,
    summed. `times`: sum of the logarithms of the candidate's time by the stable version's, and
    their count.
    """

    def __init__(self, allowed: Tolerance) -> None:
        self.allowed = allowed
        found = directions(allowed)
        self._bounds = np.array([one.bound for one in found])
        self._lost_bound = np.array([allowed.lost])
        self.requests = self.images = 0
        self.failed = np.zeros(2)
        self.logs = np.zeros((len(found), 2, len(SHARES)))
        self.sums, self.counts = np.zeros(len(found)), np.zeros(len(found))
        self.lost: dict[int, Array] = {}
        self.classes: dict[int, Array] = {}
        self.objects = np.zeros((3, len(SIZES)))
        self.scores = np.zeros((2, BINS))
        self.moved, self.times = np.zeros(2), np.zeros(2)

    def note_outcome(self, *, stable_failed: bool, candidate_failed: bool) -> None:
        """One request of each that are alike: on the same image, or one after the other."""
        self.requests += 1
        self.failed += (stable_failed, candidate_failed)
        self._note(0, np.array([(1.0 + candidate_failed - stable_failed) / 2]))

    def note_times(self, stable_ms: float, candidate_ms: float) -> None:
        """Milliseconds on a worker, without waiting, of two requests that are alike."""
        if min(stable_ms, candidate_ms) <= 0.0:
            return
        slower = candidate_ms > stable_ms * (1.0 + self.allowed.slower)
        self.times += (np.log(candidate_ms / stable_ms), 1)
        self._note(1, np.array([float(slower)]))

    def note_images(self, stable: Found, candidate: Found, found: Disagreement) -> None:
        """Two answers about the same image, and what `disagreement` says of them."""
        self.images += 1
        self._note(FIRST_OF_IMAGE, found.samples)
        for cls, share in found.lost.items():
            if cls in self.lost or len(self.lost) < MAX_CLASSES:
                grown = log_growth(np.array([share]), self._lost_bound)[0, 0]
                zero = np.zeros(2 + len(SHARES))
                self.lost[cls] = self.lost.get(cls, zero) + np.array([share, 1.0, *grown])
        kept = found.pairs[:, 0]
        self.objects += (
            _by_size(stable.boxes),
            _by_size(stable.boxes[kept]),
            _by_size(candidate.boxes),
        )
        for side, answer in enumerate((stable, candidate)):
            places = np.minimum((answer.scores * BINS).astype(np.int64), BINS - 1)
            np.add.at(self.scores[side], places, 1)
            for cls, count in zip(*np.unique(answer.classes, return_counts=True), strict=True):
                if int(cls) in self.classes or len(self.classes) < MAX_CLASSES:
                    self.classes.setdefault(int(cls), np.zeros(2))[side] += count
        self.moved += found.moved.sum(axis=0)

    def _note(self, first: int, samples: Array) -> None:
        places = slice(first, first + len(samples))
        self.logs[places] += log_growth(samples, self._bounds[places])
        known = ~np.isnan(samples)
        self.sums[places] += np.where(known, samples, 0.0)
        self.counts[places] += known

    def add(self, other: "Evidence") -> None:
        """Adds what another control plane gathered under the same tolerance."""
        self.requests += other.requests
        self.images += other.images
        for name in _ARRAYS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _BY_CLASS:
            mine, theirs = getattr(self, name), getattr(other, name)
            for cls, values in theirs.items():
                mine[cls] = mine[cls] + values if cls in mine else values

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        arrays = {name: _text(getattr(self, name)) for name in _ARRAYS}
        by_class = {
            name: {str(cls): _text(values) for cls, values in getattr(self, name).items()}
            for name in _BY_CLASS
        }
        return {"requests": self.requests, "images": self.images, **arrays, **by_class}

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any], allowed: Tolerance) -> "Evidence":
        """What `to_plain` told. Raises ValueError or KeyError where a release counts otherwise."""
        found = cls(allowed)
        found.requests, found.images = int(raw["requests"]), int(raw["images"])
        for name in _ARRAYS:
            shape = getattr(found, name).shape
            setattr(found, name, _array(raw[name]).reshape(shape))
        for name in _BY_CLASS:
            by_class = {int(key): _array(text) for key, text in raw[name].items()}
            setattr(found, name, by_class)
        return found


_ARRAYS = ("failed", "logs", "sums", "counts", "objects", "scores", "moved", "times")
_BY_CLASS = ("lost", "classes")


def _by_size(boxes: Array) -> Array:
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    places = np.searchsorted(_AREAS, areas, side="right")
    return np.bincount(places, minlength=len(SIZES)).astype(np.float64)


def _text(values: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f8").tobytes()).decode()


def _array(text: str) -> Array:
    return np.frombuffer(base64.b64decode(text), "<f8").astype(np.float64)
