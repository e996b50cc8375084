"""Matching of detected boxes with labelled ones, as the COCO and Pascal VOC protocols do. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# x_min, y_min, x_max, y_max in pixels, origin top left.
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A box that is there."""

    class_name: str
    box: Corners


@dataclass(frozen=True, slots=True)
class Detected:
    """A box that was found."""

    class_name: str
    box: Corners
    confidence: float


@dataclass(frozen=True, slots=True)
class Score:
    """How well boxes were found; scores of images add up."""

    labelled: int
    found: int
    false_positives: int

    @property
    def recall(self) -> float:
        """Found of those that are there; 1 where nothing is."""
        return self.found / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        """Right of those that were reported; 1 where nothing was."""
        reported = self.found + self.false_positives
        return self.found / reported if reported else 1.0


def overlap(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes, 0..1; 0 if both are empty."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def match(labels: Sequence[Labelled], detections: Sequence[Detected], least: float = 0.5) -> Score:
    """Score of one image: detections, most confident first, each take the free label of their
    class with the largest overlap of at least `least`; what gets none is a false positive, a
    second box on the same object too.
    """
    free = set(range(len(labels)))
    for detection in sorted(detections, key=lambda one: -one.confidence):
        fits = [
            (overlap(labels[index].box, detection.box), -index)
            for index in free
            if labels[index].class_name == detection.class_name
        ]
        if fits and max(fits)[0] >= least:
            free.remove(-max(fits)[1])
    found = len(labels) - len(free)
    return Score(len(labels), found, len(detections) - found)


def total(scores: Iterable[Score]) -> Score:
    """Sum over images."""
    every = tuple(scores)
    return Score(
        sum(one.labelled for one in every),
        sum(one.found for one in every),
        sum(one.false_positives for one in every),
    )


def _area(box: Corners) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
