"""Results as flat rows, one an object or a class: what tables and CSV files have."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from yolopool.client.export.exportable import Exportable, ExportableObject

Row = dict[str, Any]
_BOX = ("x_min", "y_min", "x_max", "y_max")
_ROTATED = ("center_x", "center_y", "width", "height", "rotation")
# Of every row with a box; those of a task follow, in the order of the first row that has them.
COLUMNS = ("class_id", "class_name", "confidence", *_BOX)
CLASS_COLUMNS = ("class_id", "class_name", "probability")


def rows(found: Exportable) -> Iterator[Row]:
    """A row for each object, most confident first, or for each class of a classification.

    Places are in pixels. A mask is COCO's `segmentation`; keypoints and corners have columns of
    their own: keypoint_0_x, keypoint_0_y, keypoint_0_visibility, ..., corner_0_x, ...
    """
    classes = found.classification
    if classes is None:
        yield from map(_row, found)
        return
    values = (classes.class_id.tolist(), classes.class_name, classes.probability.tolist())
    for class_id, name, probability in zip(*values, strict=True):
        yield dict(zip(CLASS_COLUMNS, (class_id, name, round(probability, 6)), strict=True))


def _row(item: ExportableObject) -> Row:
    values = (item.class_id, item.class_name, round(item.confidence, 6), *_rounded(item.xyxy))
    row: Row = dict(zip(COLUMNS, values, strict=True))
    if item.tracker_id is not None:
        row["tracker_id"] = item.tracker_id
    if item.xywhr is not None:
        row |= zip(_ROTATED, _rounded(item.xywhr.tolist()), strict=True)
    if item.corners is not None:
        row |= _numbered("corner", item.corners, ("x", "y"))
    if item.keypoints is not None:
        row |= _numbered("keypoint", item.keypoints, ("x", "y", "visibility"))
    if item.mask is not None:
        row["segmentation"] = item.mask.to_coco()
    return row


def _numbered(name: str, points: Any, parts: Sequence[str]) -> Row:
    return {
        f"{name}_{number}_{part}": value
        for number, point in enumerate(np.asarray(points, float).tolist())
        for part, value in zip(parts, _rounded(point), strict=False)
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def columns(found: Exportable) -> Sequence[str]:
    """The columns of a table of these results, also where they are empty."""
    named = COLUMNS if found.classification is None else CLASS_COLUMNS
    return tuple(dict.fromkeys((*named, *(name for row in rows(found) for name in row))))
