"""Which objects of two answers about one image are the same object. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
# Objects of one class that overlap by this count as the same object.
MIN_OVERLAP = 0.5
# Of an answer only its most confident objects are compared, as by COCO: pairs grow with the square.
MAX_OBJECTS = 100
# Numbers from here on are of classes under another name.
RENAMED = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one version found on an image: corners in pixels (n, 4), classes as `class_number` has
    them and scores (n,). The class of a whole image is one object as large as the image.
    """

    boxes: Array
    classes: Ints
    scores: Array

    def __len__(self) -> int:
        return len(self.classes)


def class_number(class_id: int, name: str, known: Sequence[str]) -> int:
    """The class id; of a class that the stable version has not under this id and name (`known`:
    its names by class id), a number of its own: callers go by the one or by the other.
    """
    same = not known or (class_id < len(known) and known[class_id] == name)
    return class_id if same else RENAMED + class_id


def class_name(number: int, known: Sequence[str]) -> str:
    """For people."""
    if number >= RENAMED:
        return f"class {number - RENAMED} by another name"
    return known[number] if number < len(known) else str(number)


def matched(
    overlaps: Array, classes: Ints, scores: Array, others: Ints, least: float = MIN_OVERLAP
) -> Ints:
    """Pairs (row, column) of `overlaps`, (k, 2): each row, most confident first, takes the free
    column of its class that overlaps it most, by at least `least`.
    """
    pairs: list[tuple[int, int]] = []
    if not overlaps.size:
        return np.zeros((0, 2), np.int64)
    left = np.where((classes[:, None] == others[None, :]) & (overlaps >= least), overlaps, -1.0)
    for row in np.argsort(-scores, kind="stable").tolist():
        column = int(left[row].argmax())
        if left[row, column] >= 0.0:
            pairs.append((row, column))
            left[:, column] = -1.0
    return np.array(pairs, np.int64).reshape(-1, 2)
