"""What the answers to pictures say of a graph. Pure; `probe` runs the passes."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolopool.graphs.answers import Rows

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
# Rows of an answer that are compared, the most confident first.
_COMPARED = 300
_SURE = 0.05
# Two boxes that overlap by this are one object found twice.
_DOUBLE = 0.97
# The least change of a row's log odds or box that is not rounding, and that shows a place.
ANSWERS, _SEEN = 1e-5, 0.05
# How far a place may be off, as a share of the picture.
_AT = 0.12
# How far most boxes may lie beyond the picture, and how much of it they may leave out.
_BEYOND, _SHORT = 0.3, 0.4
_LEAST = 1e-7


def same(one: Rows, other: Rows, tolerance: float, final: bool) -> bool:
    """Whether two answers to one picture are equal but for rounding. Final rows may have changed
    places."""
    if final:
        return _within(one, other, tolerance) and _within(other, one, tolerance)
    return len(one.boxes) == len(other.boxes) and all(
        _near(a, b, tolerance)
        for a, b in (
            (one.boxes, other.boxes),
            (one.confidence, other.confidence),
            (one.values, other.values),
            (one.whole, other.whole),
        )
    )


def response(scenes: Sequence[Rows], final: bool) -> float:
    """How much the answers to the scenes differ: the most that a row's log odds or box change.
    0 of answers that are all the same.
    """
    if final:
        return max(float(_novelty(scenes, number).max(initial=0)) for number in range(len(scenes)))
    return max(float(change.max(initial=0)) for change in _changes(scenes))


def places(scenes: Sequence[Rows], final: bool) -> F64 | None:
    """Where the answer to each scene differs from those to the others: (scenes, 2) of x, y as
    shares of the picture. None if one answer does not differ.
    """
    found = []
    for number, one in enumerate(scenes):
        change = _novelty(scenes, number) if final else _changes(scenes)[number]
        most = np.argsort(-change, kind="stable")[: max(3, len(change) // 100)]
        most = most[change[most] > _SEEN]
        if not len(most):
            return None
        found.append(np.median(one.boxes[most, :2], axis=0))
    return np.array(found, np.float64)


def are_at(found: F64, true: F64) -> bool:
    """Whether places are as good as the true ones."""
    return bool(np.abs(found - true).max() <= _AT)


def misplaced(found: F64, true: F64, size: tuple[int, int]) -> str:
    """How the places of the scenes' changes contradict pictures of `size` (height, width), as the
    end of a sentence; empty: they do not.

    A network may see an object anywhere, if it sees much of the picture at once. So it is not
    enough that a place is another: all must be the true ones mirrored, turned, or in another frame.
    """
    if are_at(found, true):
        return ""
    height, width = size
    for turned, words in _turns(true):
        if are_at(found, turned):
            return f"boxes lie where objects would be if the picture were {words}"
    side = max(height, width)
    sides = np.array([width, height])
    frames = {
        "stretched to a square": true * side / sides,
        "in the middle of a square": true + (side - sides) / 2 / sides,
    }
    if height != width:
        for words, seen in frames.items():
            if are_at(found, seen):
                return f"boxes lie where objects would be if the picture were {words}"
    factor = float((found * true).sum() / (true**2).sum())
    if abs(np.log(max(factor, _LEAST))) > 0.25 and are_at(found / factor, true):
        return f"boxes lie at {factor:.2g} times the places of the objects"
    return ""


def _turns(true: F64) -> list[tuple[F64, str]]:
    x, y = true.T
    turned = {
        "mirrored": (1 - x, y),
        "upside down": (1 - x, 1 - y),
        "flipped": (x, 1 - y),
        "turned, x and y swapped": (y, x),
        "turned to the left": (y, 1 - x),
        "turned to the right": (1 - y, x),
        "turned and flipped": (1 - y, 1 - x),
    }
    return [(np.column_stack(axes), words) for words, axes in turned.items()]


def strewn(rows: Rows, final: bool) -> str:
    """How the centres of boxes contradict the size of the picture, as the end of a sentence; empty:
    they do not. Cells of a grid are all over it; final boxes are at least within.
    """
    if not len(rows.boxes):
        return ""
    low, high = np.quantile(rows.boxes[:, :2], (0.05, 0.95), axis=0)
    beyond = (low < -_BEYOND).any() or (high > 1 + _BEYOND).any()
    # Pixels that are shares are all in the corner.
    short = (high < 0.02).all() if final else (low > _SHORT).any() or (high < 1 - _SHORT).any()
    if not (beyond or short):
        return ""
    (left, top), (right, bottom) = low, high
    return (
        f"boxes lie at {left:.2g} to {right:.2g} of the width and {top:.2g} to {bottom:.2g} of the "
        "height, not in pixels of the picture"
    )


def doubles(rows: Rows) -> int:
    """How many final boxes of some confidence lie on a more confident one of the same class."""
    sure = np.flatnonzero(rows.confidence > _SURE)[:_COMPARED]
    sure = sure[np.argsort(-rows.confidence[sure], kind="stable")]
    low = rows.boxes[sure, :2] - rows.boxes[sure, 2:] / 2
    high = low + rows.boxes[sure, 2:]
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    inter = shared.clip(0).prod(2)
    areas = (high - low).prod(1)
    overlap = inter / np.maximum(areas[:, None] + areas[None] - inter, 1e-12)
    alike = rows.values[sure, :1] == rows.values[sure, :1].T
    return int(np.triu((overlap > _DOUBLE) & alike, 1).any(0).sum())


def are_corners(rows: Rows) -> bool:
    """Whether what should be sizes of boxes are their other corners: they grow with the place."""
    place, side = rows.boxes[:, :2].T.astype(np.float64), rows.boxes[:, 2:].T.astype(np.float64)
    if place.shape[1] < 9 or not (side >= place).mean() > 0.95:
        return False
    shifted_place, shifted_side = (x - x.mean(1, keepdims=True) for x in (place, side))
    norms = np.sqrt((shifted_place**2).sum(1) * (shifted_side**2).sum(1))
    return bool(((shifted_place * shifted_side).sum(1) > 0.9 * norms).all())


def are_sizes(rows: Rows) -> bool:
    """Whether what should be corners of final boxes are centres and sizes: most end before they
    begin on both axes, and lie in the picture if they are read so.
    """
    own = rows.boxes[rows.confidence > _SURE]
    if not len(own):
        return False
    centre, side = own[:, :2] - own[:, 2:] / 2, own[:, :2] + own[:, 2:] / 2
    inside = (centre - side / 2 > -0.05).all(1) & (centre + side / 2 < 1.05).all(1)
    return float((own[:, 2:] < 0).all(1).mean()) > 0.8 and float(inside.mean()) > 0.9


def _near(one: F32, other: F32, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    # By column: a row has pixels beside scores.
    scale = np.maximum(1, np.abs(one).max(axis=0, initial=0))
    return bool((np.abs(one - other) <= tolerance * scale).all())


def _within(one: Rows, other: Rows, tolerance: float) -> bool:
    """Whether the rows of one are among those of the other, but for the least confident: which of
    those are left out may be decided by rounding.
    """
    distances = _distances(one, other)
    return bool((distances[: math.ceil(0.8 * len(distances))] <= tolerance).all())


def _distances(one: Rows, other: Rows) -> F32:
    """How far each of the most confident rows is from the most similar row of the other answer."""
    mine, theirs = (np.column_stack((r.boxes, r.confidence, r.values)) for r in (one, other))
    nearest = np.full(min(len(mine), _COMPARED), np.inf, np.float32)
    for number, row in enumerate(mine[:_COMPARED]):
        if len(theirs):
            nearest[number] = np.abs(theirs - row).max(1).min()
    return nearest


def _changes(scenes: Sequence[Rows]) -> list[F32]:
    """How far each row of each answer is from what most of the pictures give there."""
    odds = np.stack([_log_odds(rows.confidence) for rows in scenes])
    boxes = np.stack([rows.boxes for rows in scenes])
    changed = np.abs(odds - np.median(odds, axis=0))
    if boxes.shape[1]:
        changed += np.abs(boxes - np.median(boxes, axis=0)).max(2)
    return list(changed.astype(np.float32))


def _novelty(scenes: Sequence[Rows], number: int) -> F32:
    """The confidence of each final row that no other answer has; 0 of rows that one has."""
    one = scenes[number]
    new = np.ones(len(one.boxes), np.bool_)
    new[_COMPARED:] = False
    for other in (*scenes[:number], *scenes[number + 1 :]):
        new[:_COMPARED] &= _distances(one, other) > 0.02
    return np.where(new, one.confidence, 0).astype(np.float32)


def _log_odds(confidence: F32) -> F32:
    share = np.clip(confidence, _LEAST, 1 - _LEAST).astype(np.float64)
    odds: F32 = np.log(share / (1 - share)).astype(np.float32)
    return odds
