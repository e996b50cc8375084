"""The answer of a Detect as CSV: one row an object, or of a classification one a class. Pure."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from yolopool.v1 import detection_pb2

_BOX = ("x_min", "y_min", "x_max", "y_max")
_ROTATED = ("center_x", "center_y", "width", "height", "rotation")
_OBJECT = ("class_id", "class_name", "confidence", *_BOX)
# By task. A mask: "x y x y ..." for each part, with ";" between parts; or of run lengths the
# height, the width and COCO's string. Keypoints: "x y" or "x y visibility", with ";" between them.
COLUMNS = {
    "detect": _OBJECT,
    "segment": (*_OBJECT, "mask"),
    "pose": (*_OBJECT, "keypoints"),
    "obb": (*_OBJECT, *_ROTATED),
    "classify": ("class_id", "class_name", "probability"),
}


def csv_of(answer: detection_pb2.DetectResponse) -> bytes:
    """With a header row, in UTF-8, lines ended as RFC 4180 has it."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    task = answer.task if answer.task in COLUMNS else "detect"
    writer.writerow(COLUMNS[task])
    writer.writerows(_rows(answer, task))
    return stream.getvalue().encode()


def _rows(answer: detection_pb2.DetectResponse, task: str) -> Iterable[Sequence[Any]]:
    if task == "classify":
        for guess in answer.classification.top:
            yield guess.class_id, guess.class_name, _short(guess.probability)
        return
    for found in answer.detections:
        row = [found.class_id, found.class_name, _short(found.confidence)]
        row += [_short(getattr(found.box, side)) for side in _BOX]
        if task == "segment":
            row.append(_mask(found.mask))
        elif task == "pose":
            row.append(";".join(_point(point) for point in found.keypoints))
        elif task == "obb":
            row += [_short(getattr(found.rotated_box, name)) for name in _ROTATED]
        yield row


def _mask(mask: detection_pb2.Mask) -> str:
    if mask.WhichOneof("format") == "rle":
        return f"{mask.rle.height} {mask.rle.width} {mask.rle.counts.decode('ascii')}"
    parts = (" ".join(map(_short, part.points)) for part in mask.polygons.parts)
    return ";".join(parts)


def _point(point: detection_pb2.Keypoint) -> str:
    numbers = [point.x, point.y]
    if point.HasField("visibility"):
        numbers.append(point.visibility)
    return " ".join(map(_short, numbers))


def _short(value: float) -> str:
    """As few digits as give the same float32 again."""
    return np.format_float_positional(np.float32(value), trim="-")
