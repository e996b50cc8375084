"""One answer made of those of overlapping tiles. Pure: numpy alone."""

from collections.abc import Sequence

import numpy as np

from worker.arrays import F32, I64, Bools
from worker.postprocess.results import Mask, Results
from worker.postprocess.rotated_boxes import probiou
from worker.preprocess.letterbox import Region

# Of the most confident boxes of all tiles: what is compared takes time.
MAX_COMPARED = 10_000
# Share of a cut box that lies in another, from which it is a piece of it; of two cut ones the
# smaller's.
PIECE = 0.5
# A box this near to an inner border of its tile, in pixels, is taken for cut by it.
_NEAR = 2.0


def merge_tiles(
    parts: Sequence[tuple[Region, Results]],
    whole: Region,
    iou: float,
    agnostic: bool,
    max_detections: int,
) -> Results:
    """One answer of what was found in tiles of `whole`, in pixels of the image.

    Boxes of one tile were suppressed there and are not compared again. Whole boxes of different
    tiles are compared by IoU, or ProbIoU if they are rotated; one that a border cut is a piece of
    another where it lies in it by more than PIECE; of two pieces the smaller in the larger.
    """
    everything = _together([found for _, found in parts])
    counts = [len(found.confidence) for _, found in parts]
    tile = np.repeat(np.arange(len(parts)), counts)
    cut = np.concatenate([_cut(found.xyxy, one, whole) for one, found in parts])
    most = np.argsort(-everything.confidence, kind="stable")[:MAX_COMPARED]
    # Whole ones first, so that a piece never stands for what was seen whole.
    rest = most[np.argsort(cut[most], kind="stable")]
    kept: list[int] = []
    while len(rest):
        first, rest = rest[0], rest[1:]
        kept.append(int(first))
        rival = tile[rest] != tile[first]
        if not agnostic:
            rival &= everything.class_id[rest] == everything.class_id[first]
        rivals = np.flatnonzero(rival)
        gone = rivals[_same(everything, cut, first, rest[rivals], iou)]
        rest = np.delete(rest, gone)
    order = np.array(kept, np.int64)
    order = order[np.argsort(-everything.confidence[order], kind="stable")]
    return everything.chosen(order[:max_detections])


def _together(found: Sequence[Results]) -> Results:
    """All that was found, tile after tile."""

    def joined(name: str) -> F32 | None:
        values = [getattr(one, name) for one in found]
        return None if values[0] is None else np.concatenate(values)

    return Results(
        np.concatenate([one.xyxy for one in found]),
        np.concatenate([one.confidence for one in found]),
        np.concatenate([one.class_id for one in found]),
        masks=_all_masks(found),
        keypoints=joined("keypoints"),
        rotated=joined("rotated"),
    )


def _all_masks(found: Sequence[Results]) -> tuple[Mask, ...] | None:
    if found[0].masks is None:
        return None
    return tuple(mask for one in found for mask in one.masks or ())


def _cut(xyxy: F32, tile: Region, whole: Region) -> Bools:
    """Which boxes touch a border of their tile that is none of the whole."""
    hits = np.zeros(len(xyxy), bool)
    if tile.x_min > whole.x_min:
        hits |= xyxy[:, 0] <= tile.x_min + _NEAR
    if tile.y_min > whole.y_min:
        hits |= xyxy[:, 1] <= tile.y_min + _NEAR
    if tile.x_max < whole.x_max:
        hits |= xyxy[:, 2] >= tile.x_max - _NEAR
    if tile.y_max < whole.y_max:
        hits |= xyxy[:, 3] >= tile.y_max - _NEAR
    return hits


def _same(everything: Results, cut: Bools, first: int, others: I64, iou: float) -> Bools:
    """Which of `others` are the object of `first`, or a piece of it."""
    own, boxes = everything.xyxy[first], everything.xyxy[others]
    shared = _shared(own, boxes)
    own_area, areas = _area(own[None]), _area(boxes)
    with np.errstate(invalid="ignore", divide="ignore"):
        # What is cut is the piece; a small whole box in a large cut one is an object of its own.
        piece = (
            areas
            if not cut[first]
            else np.where(cut[others], np.minimum(own_area, areas), own_area)
        )
        inside = shared / piece > PIECE
        if everything.rotated is None:
            equal = shared / (own_area + areas - shared) > iou
        else:
            both = everything.rotated
            equal = probiou(both[first : first + 1], both[others])[0] > iou
    return np.where(cut[first] | cut[others], inside, equal)


def _shared(own: F32, boxes: F32) -> F32:
    width = np.minimum(own[2], boxes[:, 2]) - np.maximum(own[0], boxes[:, 0])
    height = np.minimum(own[3], boxes[:, 3]) - np.maximum(own[1], boxes[:, 1])
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0), np.float32)


def _area(boxes: F32) -> F32:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)
