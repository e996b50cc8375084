"""How good a model is on labelled images: what it found beside what is there, added up. Pure."""

from dataclasses import dataclass

import numpy as np

from yolopool.evaluation import average_precision, rotated_overlap
from yolopool.evaluation.average_precision import Array, Ints, Matches, Precision
from yolopool.evaluation.confusion import confusion
from yolopool.evaluation.truths import OBB, Truths

# As the library's `val`: precision needs the whole curve, down to the least confident objects.
CONFIDENCE, IOU, MAX_DETECTIONS = 0.001, 0.7, 300
# Whose objects have boxes.
TASKS = ("detect", "segment", "pose", OBB)


@dataclass(frozen=True, slots=True)
class Found:
    """What a model found on an image of `size` (width, height). boxes: (n, 4) corners in pixels, or
    (n, 5) centre, size and radians of rotated ones.
    """

    boxes: Array
    scores: Array
    classes: Ints
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`confusion`: (classes + 1, classes + 1), see `confusion`."""

    precision: Precision
    confusion: Ints
    images: int


class Tally:
    """`add` each image, then ask for the `evaluation`. `classes`: how many the model has."""

    def __init__(self, task: str, classes: int) -> None:
        self._is_rotated = task == OBB
        self._classes = classes
        self._matches: list[Matches] = []
        self._confusion = np.zeros((classes + 1, classes + 1), np.int64)

    def add(self, found: Found, truths: Truths) -> None:
        if self._is_rotated:
            overlaps = rotated_overlap.overlap(found.boxes, truths.rotated(found.size))
        else:
            overlaps = average_precision.iou(found.boxes, truths.boxes(found.size))
        scores, classes, real = found.scores, found.classes, truths.classes
        self._matches.append(average_precision.match(overlaps, scores, classes, real))
        self._confusion += confusion(overlaps, scores, classes, real, self._classes)

    def evaluation(self) -> Evaluation:
        precision = average_precision.total(self._matches)
        return Evaluation(precision, self._confusion, len(self._matches))
