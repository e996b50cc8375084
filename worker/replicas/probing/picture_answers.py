"""Whether two answers of a version to one picture are the same. Pure."""

import numpy as np

from worker.arrays import F32
from worker.postprocess.outputs import Candidates, Probabilities

# Rows of an answer that count, and those that are too weak to: they come and go.
ROWS, LEAST = 16, 0.01
# The mean difference that passes of one model on one device may have, as shares of the picture and
# of 1; and a confidence that does not come from nothing.
ALLOWED, ALLOWED_REDUCED, SURE = 0.05, 0.15, 0.25
REDUCED = ("int8", "bf16", "fp16")


def kept(answer: Candidates, height: int, width: int) -> F32:
    """What is kept of an answer to a picture: float32 (n, 6) of box (shares of the picture),
    confidence and class; of a classification (nc, 1).
    """
    if isinstance(answer.task_output, Probabilities):
        return answer.task_output.values.astype(np.float32)[:, None]
    sure = answer.confidence >= LEAST
    boxes = answer.xyxy[sure][:ROWS] / np.array([width, height, width, height], np.float32)
    confidence, class_id = answer.confidence[sure][:ROWS], answer.class_id[sure][:ROWS]
    return np.column_stack((boxes, confidence, class_id)).astype(np.float32)


def difference(before: F32, now: F32, precision: str) -> str:
    """How an answer contradicts an earlier one to the same picture, as the end of a sentence;
    empty: it does not.
    """
    allowed = ALLOWED_REDUCED if precision in REDUCED else ALLOWED
    if before.shape[1:] == (1,):
        apart = float(np.abs(before - now).max()) if before.shape == now.shape else 1.0
        return "" if apart <= allowed else f"probabilities differ by {apart:.2g}"
    if not len(before) or not len(now):
        surest = max((float(rows[:, 4].max()) for rows in (before, now) if len(rows)), default=0.0)
        if surest < SURE:
            return ""
        return (
            "it finds nothing any more" if len(before) else "it finds what it did not find before"
        )
    same_class = before[:, None, 5] == now[None, :, 5]
    apart = np.where(same_class, np.abs(before[:, None, :5] - now[None, :, :5]).max(2), 1.0).min(1)
    mean = float(np.average(apart, weights=before[:, 4]))
    if mean <= allowed:
        return ""
    return f"boxes differ by {mean:.2g} in the mean, allowed is {allowed:g}"
