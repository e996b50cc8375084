"""How far a candidate's answer about an image is from the stable version's: one sample of each
measure, in [0, 1], and the tolerance of each. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from yolopool.evaluation.agreement.matching import Array, Found, Ints, matched
from yolopool.evaluation.average_precision import iou

# Confidences at which the share of boxes above is compared.
LEVELS = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a good candidate may be from the stable version, on average over images.

    A version that was trained anew differs a little: an operator sets what is still good.
    errors: failed requests more than the stable version's, as a share of all. slower: how much
    longer than the stable version's the time on a worker may be, without waiting (0.25: by a
    quarter), in half of the requests. unmatched: objects of either that the other has not.
    looser: 1 - overlap of matched boxes. shift_px and shift_share: how far half of the matched
    boxes may lie to one side; the larger one counts, pixels or a share of the box's longer side.
    count: objects more or fewer. relabelled: objects that are there under another class. lost: of
    each class, objects that are not found under it. confidence: more or less, of matched objects.
    scores: the Kolmogorov-Smirnov distance of the confidences.
    """

    errors: float = 0.01
    slower: float = 0.25
    unmatched: float = 0.2
    looser: float = 0.2
    shift_px: float = 1.0
    shift_share: float = 0.01
    count: float = 0.15
    relabelled: float = 0.05
    lost: float = 0.5
    confidence: float = 0.1
    scores: float = 0.15

    def fault(self) -> str:
        """What is wrong with it, in words; empty: nothing."""
        for field in fields(self):
            value, open_ended = getattr(self, field.name), field.name in ("slower", "shift_px")
            if not (value >= 0.0 if open_ended else 0.0 < value < 1.0):
                allowed = "0 or more" if open_ended else "between 0 and 1"
                return f"{field.name} is {value:g}: give {allowed}"
        return ""


@dataclass(frozen=True, slots=True)
class Direction:
    """One way in which a measure may be beyond its tolerance: the mean of its samples is above
    `bound`. `signed`: samples are (1 + difference) / 2.
    """

    measure: str
    words: str
    bound: float
    signed: bool = False


# Of every measure but `lost`, which has a direction for each class.
MEASURES = (
    "errors",
    "time",
    "matched",
    "overlap",
    "shift",
    "count",
    "class",
    "confidence",
    "scores",
)
LOST = "lost"
SIDES = ("left", "right", "up", "down")


@lru_cache(maxsize=64)
def directions(allowed: Tolerance) -> tuple[Direction, ...]:
    """Every direction but those of `lost`, in the order of a sample."""
    count, confidence, scores = (
        (1.0 + bound) / 2 for bound in (allowed.count, allowed.confidence, allowed.scores)
    )
    return (
        Direction("errors", "more errors", (1.0 + allowed.errors) / 2, signed=True),
        Direction("time", "slower", 0.5),
        Direction("matched", "unmatched", allowed.unmatched),
        Direction("overlap", "looser", allowed.looser),
        *(Direction("shift", f"shifted {side}", 0.5) for side in SIDES),
        Direction("count", "more objects", count, signed=True),
        Direction("count", "fewer objects", count, signed=True),
        Direction("class", "other class", allowed.relabelled),
        Direction("confidence", "more confident", confidence, signed=True),
        Direction("confidence", "less confident", confidence, signed=True),
        *(
            Direction("scores", f"{words} above {level:g}", scores, signed=True)
            for words in ("more", "fewer")
            for level in LEVELS
        ),
    )


# Where the samples of an image are among the directions; errors and time come from requests.
FIRST_OF_IMAGE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Disagreement:
    """Of one image. `samples`: in the order of `directions`, from FIRST_OF_IMAGE on; NaN: the
    image says nothing. `lost`: by class of the stable version, the share of its objects that the
    candidate has not under it. `pairs`: rows of both, (k, 2). `overlaps`: of the pairs. `moved`:
    pixels right and down, (k, 2). `relabelled`: pairs of rows that overlap and differ in class.
    """

    samples: Array
    lost: Mapping[int, float]
    pairs: Ints
    overlaps: Array
    moved: Array
    relabelled: Ints

    @property
    def size(self) -> float:
        """How much they disagree, to rank images: 0 (not at all) to about 3."""
        unmatched, looser = np.nan_to_num(self.samples[:2])
        return float(unmatched + looser + min(1.0, len(self.relabelled)))


def disagreement(stable: Found, candidate: Found, allowed: Tolerance) -> Disagreement:
    """Compares two answers about one image."""
    overlaps = iou(stable.boxes, candidate.boxes)
    pairs = matched(overlaps, stable.classes, stable.scores, candidate.classes)
    relabelled = _relabelled(overlaps, pairs, stable)
    ours, theirs = stable.boxes[pairs[:, 0]], candidate.boxes[pairs[:, 1]]
    moved = ((theirs[:, :2] + theirs[:, 2:]) - (ours[:, :2] + ours[:, 2:])) / 2
    met = overlaps[pairs[:, 0], pairs[:, 1]]
    both = len(stable) + len(candidate)
    located = len(pairs) + len(relabelled)
    # Images on which neither finds anything say nothing: many of them would hide the others.
    count = (len(candidate) - len(stable)) / max(len(candidate), len(stable)) if both else np.nan
    surer = candidate.scores[pairs[:, 1]] - stable.scores[pairs[:, 0]]
    sure = (1.0 + _mean(surer)) / 2
    above = _above(candidate) - _above(stable)
    samples = np.array(
        [
            1.0 - 2.0 * len(pairs) / both if both else np.nan,
            _mean(1.0 - met),
            *_beyond(moved, ours, allowed),
            (1.0 + count) / 2,
            (1.0 - count) / 2,
            len(relabelled) / located if located else np.nan,
            sure,
            1.0 - sure,
            *(1.0 + above) / 2,
            *(1.0 - above) / 2,
        ]
    )
    return Disagreement(samples, _lost(stable, pairs), pairs, met, moved, relabelled)


def _relabelled(overlaps: Array, pairs: Ints, stable: Found) -> Ints:
    """Objects without a match of their class that overlap one of another class without one."""
    free = overlaps.copy()
    free[pairs[:, 0], :] = -1.0
    free[:, pairs[:, 1]] = -1.0
    same = np.zeros(overlaps.shape[1], np.int64)
    return matched(free, np.zeros(len(stable), np.int64), stable.scores, same)


def _beyond(moved: Array, boxes: Array, allowed: Tolerance) -> Array:
    """The share of boxes that lie too far to the left, right, up, down: (4,). That more than half
    do has a chance only where all are shifted, however much single boxes vary.
    """
    if not len(moved):
        return np.full(4, np.nan)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    limit = np.maximum(allowed.shift_px, allowed.shift_share * longer)[:, None]
    right, down = (moved > limit).mean(axis=0)
    left, up = (moved < -limit).mean(axis=0)
    return np.array([left, right, up, down])


def _lost(stable: Found, pairs: Ints) -> dict[int, float]:
    kept = np.zeros(len(stable), np.bool_)
    kept[pairs[:, 0]] = True
    classes = np.unique(stable.classes).tolist()
    return {cls: float(1.0 - kept[stable.classes == cls].mean()) for cls in classes}


def _above(found: Found) -> Array:
    """The share of boxes above each of LEVELS; NaN of an image without boxes."""
    if not len(found):
        return np.full(len(LEVELS), np.nan)
    return np.asarray((found.scores[:, None] > LEVELS).mean(axis=0), np.float64)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
