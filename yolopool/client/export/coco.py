"""Results as COCO has them: annotations of one image, and a data set of many."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from yolopool.client.drawing import VISIBLE
from yolopool.client.export.exportable import Exportable, ExportableObject
from yolopool.client.export.outline import area
from yolopool.client.masks import Mask

_SEEN, _HIDDEN = 2, 1


def annotations(found: Exportable, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """An annotation for each object, numbered from `first_id`; `category_id` is its class id.

    Raises ValueError for a classification, which COCO has no form for.
    """
    if found.classification is not None:
        raise ValueError("a classification has no boxes, and COCO needs them: use csv or jsonl")
    for number, item in enumerate(found, first_id):
        x_min, y_min, x_max, y_max = item.xyxy
        box = [round(value, 3) for value in (x_min, y_min, x_max - x_min, y_max - y_min)]
        plain: dict[str, Any] = {
            "id": number,
            "image_id": image_id,
            "category_id": item.class_id,
            "bbox": box,
            "area": round(box[2] * box[3], 3),
            "iscrowd": 0,
            "score": round(item.confidence, 6),
        }
        yield plain | _of_task(item)


def _of_task(item: ExportableObject) -> dict[str, Any]:
    """What a task adds to a box, and the object's own track."""
    more: dict[str, Any] = {}
    if item.mask is not None:
        more |= {"segmentation": item.mask.to_coco(), "area": round(_area(item.mask), 3)}
    if item.corners is not None:
        corners = [round(float(value), 3) for value in item.corners.reshape(-1)]
        more |= {"segmentation": [corners], "area": round(area(item.corners), 3)}
    if item.keypoints is not None:
        points = item.keypoints.tolist()
        seen = [_SEEN if len(point) < 3 or point[2] >= VISIBLE else _HIDDEN for point in points]
        rows = zip(points, seen, strict=True)
        flat = [value for (x, y, *_), how in rows for value in (round(x, 3), round(y, 3), how)]
        more |= {"keypoints": flat, "num_keypoints": seen.count(_SEEN)}
    if item.tracker_id is not None:
        more["track_id"] = item.tracker_id
    return more


def _area(mask: Mask) -> float:
    """The area of a mask in square pixels."""
    if mask.counts:
        return float(mask.to_array().sum())
    return sum(area(part) for part in mask.polygons if len(part) > 2)


def data_set(
    images: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    class_names: Mapping[int, str],
) -> dict[str, Any]:
    """A data set of images and annotations that pycocotools reads; classes by their ids."""
    return {
        "images": list(images),
        "annotations": list(rows),
        "categories": [
            {"id": number, "name": class_names[number]} for number in sorted(class_names)
        ],
    }
