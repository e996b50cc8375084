"""Merges the results of overlapping tiles. Pure: numpy alone."""

from collections.abc import Sequence

import numpy as np

from worker.arrays import F32, I64, Bools
from worker.postprocess.results import Mask, Results
from worker.postprocess.rotated_boxes import probiou
from worker.preprocess.letterbox import Region

# Only so many boxes, the most confident of all tiles, are compared, since that takes time.
MAX_COMPARED = 10_000
# A box that a border cut is a piece of another box if more than this share of it is inside. Of two
# cut boxes, the smaller one counts.
PIECE = 0.5
# A box within so many pixels of an inner border of its tile counts as cut by it.
_NEAR = 2.0


def merge_tiles(
    tiles: Sequence[tuple[Region, Results]],
    whole: Region,
    iou: float,
    agnostic: bool,
    max_detections: int,
) -> Results:
    """The results of `whole` from those of its tiles, in pixels of the image.

    Boxes of one tile were suppressed there and are not compared again. Whole boxes of different
    tiles are compared by IoU, or by ProbIoU if they are rotated. A box that a border cut is removed
    if it is a piece of another one; of two cut boxes, the smaller one.
    """
    everything = _concatenated([results for _, results in tiles])
    counts = [len(results.confidence) for _, results in tiles]
    tile = np.repeat(np.arange(len(tiles)), counts)
    cut = np.concatenate([_cut(results.xyxy, region, whole) for region, results in tiles])
    surest = np.argsort(-everything.confidence, kind="stable")[:MAX_COMPARED]
    # Whole boxes first, so that a piece never wins over the whole object.
    rest = surest[np.argsort(cut[surest], kind="stable")]
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
    return everything.select(order[:max_detections])


def _concatenated(results: Sequence[Results]) -> Results:
    """The results of all tiles, one after the other."""

    def joined(name: str) -> F32 | None:
        values = [getattr(tile, name) for tile in results]
        return None if values[0] is None else np.concatenate(values)

    return Results(
        np.concatenate([tile.xyxy for tile in results]),
        np.concatenate([tile.confidence for tile in results]),
        np.concatenate([tile.class_id for tile in results]),
        masks=_all_masks(results),
        keypoints=joined("keypoints"),
        rotated=joined("rotated"),
    )


def _all_masks(results: Sequence[Results]) -> tuple[Mask, ...] | None:
    if results[0].masks is None:
        return None
    return tuple(mask for tile in results for mask in tile.masks or ())


def _cut(xyxy: F32, tile: Region, whole: Region) -> Bools:
    """Which boxes touch a border of their tile that is not a border of the whole."""
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
    """Which of `others` show the same object as `first`, or a piece of it."""
    own, boxes = everything.xyxy[first], everything.xyxy[others]
    shared = _shared(own, boxes)
    own_area, areas = _area(own[None]), _area(boxes)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Only a cut box is a piece. A small whole box in a large cut one is another object.
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
