"""Results as YOLO labels: the lines that the model library's `save_txt` writes for each task."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from yolopool.client.export.exportable import Exportable, ExportableObject
from yolopool.client.export.outline import joined

F64 = npt.NDArray[np.float64]


def lines(found: Exportable, with_confidence: bool) -> Iterator[str]:
    """A line for each object: its class id, then places as shares of the image's sides, then its
    confidence if asked for, and its track if it has one. For a classification, a probability and a
    name. As in the library, an object whose mask has no area is left out.

    Raises ValueError for a mask of run lengths, which has no outline.
    """
    classes = found.classification
    if classes is not None:
        for probability, name in zip(classes.probability, classes.class_name, strict=True):
            yield f"{probability:.2f} {name}"
        return
    size = np.array(found.image_size, float)
    for item in found:
        places = _places(item, size)
        if not len(places):
            continue
        values: list[float] = [item.class_id, *places]
        if with_confidence:
            values.append(item.confidence)
        if item.tracker_id is not None:
            values.append(item.tracker_id)
        yield " ".join(f"{value:g}" for value in values)


def _places(item: ExportableObject, size: F64) -> list[float]:
    if item.mask is not None:
        if item.mask.counts:
            raise ValueError('labels need the outlines of masks: ask for masks="polygon"')
        return _flat(joined(item.mask.polygons) / size)
    if item.corners is not None:
        return _flat(item.corners / size)
    box = np.array(item.xyxy, float).reshape(2, 2)
    places = _flat(np.stack((box.mean(axis=0), box[1] - box[0])) / size)
    if item.keypoints is not None:
        points = item.keypoints.astype(float)
        points[:, :2] /= size
        places += _flat(points)
    return places


def _flat(values: F64) -> list[float]:
    flat: list[float] = values.reshape(-1).tolist()
    return flat
