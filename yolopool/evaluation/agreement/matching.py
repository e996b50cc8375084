"""Which objects of two answers about one image are the same object. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
# Objects of one class that overlap by this count as the same object.
MIN_OVERLAP = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one version found on an image: corners in pixels (n, 4), class ids and scores (n,).

    The class of a whole image is one object of that class as large as the image.
    """

    boxes: Array
    classes: Ints
    scores: Array

    def __len__(self) -> int:
        return len(self.classes)


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
