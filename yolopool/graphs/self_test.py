"""The answer to one picture that is kept with a pack, and whether a later one is the same. Pure."""

from collections.abc import Sequence

import numpy as np

from yolopool.graphs.answers import F32, Form, Rows

# So many rows of an answer are kept: half of them the most confident, the others from all over it.
ROWS = 32
# Numbers of a row: its index, its box, its confidence.
NUMBERS = 6
# The mean difference that runtimes and processors may have, as shares of the picture and of 1.
_EXACT, _REDUCED = 0.02, 0.15


def kept(form: Form, rows: Rows) -> list[float]:
    """Some rows of an answer, NUMBERS each."""
    count = len(rows.confidence)
    most = np.argsort(-rows.confidence, kind="stable")[: ROWS // 2]
    spread = np.linspace(0, max(0, count - 1), min(count, ROWS // 2)).round().astype(np.int64)
    chosen = np.unique(most if form.is_final else np.concatenate((most, spread)))
    return [float(value) for value in _table(rows)[chosen].ravel()]


def difference(form: Form, before: Sequence[float], now: Rows, precision: str) -> str:
    """How an answer to the same picture contradicts what was kept, as the end of a sentence; empty:
    it does not. `precision` is the pack's.
    """
    left = np.array(before, np.float32).reshape(-1, NUMBERS)
    right = _table(now)
    if not form.is_final and len(left) and left[:, 0].max() >= len(right):
        return f"it has {len(right)} rows, the answer at the import had more"
    if not len(left) or not len(right):
        return "" if len(left) == len(right) else "one of the answers has no boxes"
    if form.is_final:  # rows of nearly one confidence may have changed places
        apart = np.abs(left[:, None, 1:] - right[None, :, 1:]).max(2).min(1)
    else:
        apart = np.abs(left - right[left[:, 0].astype(np.int64)])[:, 1:].max(1)
    mean, allowed = float(apart.mean()), _REDUCED if precision in ("int8", "bf16") else _EXACT
    if mean <= allowed:
        return ""
    return f"rows differ by {mean:.2g} in the mean from those at the import, allowed is {allowed:g}"


def _table(rows: Rows) -> F32:
    """(n, NUMBERS); a row of a classification has no box."""
    count = len(rows.confidence)
    boxes = rows.boxes if len(rows.boxes) else np.zeros((count, 4), np.float32)
    index = np.arange(count, dtype=np.float32)
    return np.column_stack((index, boxes, rows.confidence)).astype(np.float32)
