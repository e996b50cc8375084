"""Which class is taken for which: the confusion matrix as the library's `val` counts it. Pure."""

import numpy as np

from yolopool.evaluation.average_precision import Array, Ints

# Objects less sure than this count as not found, and boxes that overlap by less as apart.
MIN_CONFIDENCE, MIN_OVERLAP = 0.25, 0.45


def confusion(overlaps: Array, scores: Array, found: Ints, truths: Ints, classes: int) -> Ints:
    """(classes + 1, classes + 1) counts of one image, by the class that was found and the true one;
    the last row is what was missed, the last column what is nothing.

    Each object, the most confident first, takes the truth that it overlaps most of those that none
    before it took, whatever the classes. `overlaps`: (n, m).
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    free = overlaps.copy()
    missed = np.ones(len(truths), np.bool_)
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] <= MIN_CONFIDENCE:
            break
        column = int(free[row].argmax()) if len(truths) else -1
        if column >= 0 and free[row, column] > MIN_OVERLAP:
            counts[found[row], truths[column]] += 1
            free[:, column] = 0.0
            missed[column] = False
        else:
            counts[found[row], classes] += 1
    counts[classes] += np.bincount(truths[missed], minlength=classes + 1)
    return counts
