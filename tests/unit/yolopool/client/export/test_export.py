"""Results in the forms of other tools: rows, COCO, YOLO labels. The model library's own labels are
compared in tests/e2e/test_task_parity.
"""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas
import pytest

from yolopool.client.detections import Classification, Detections
from yolopool.client.export import coco, flat_rows
from yolopool.client.export.outline import area, joined
from yolopool.client.masks import Mask

SIZE = (200, 100)
SQUARE = np.array([[10, 20], [30, 20], [30, 40], [10, 40]], np.float32)


def found(**more: Any) -> Detections:
    return Detections(
        xyxy=np.array([[10, 20, 60, 90], [0, 0, 200, 100]], np.float32),
        confidence=np.array([0.9, 0.5], np.float32),
        class_id=np.array([3, 0]),
        class_name=("nut", "bolt"),
        image_size=SIZE,
        **more,
    )


@pytest.fixture
def classified() -> Detections:
    top = Classification(
        np.array([7, 2]),
        ("seven", "two"),
        np.array([0.75, 0.125], np.float32),
        np.zeros(0, np.float32),
    )
    return replace(found()[:0], task="classify", classification=top)


def test_labels_of_boxes_are_centres_and_sides_as_shares() -> None:
    assert found().to_yolo() == "3 0.175 0.55 0.25 0.7\n0 0.5 0.5 1 1\n"
    assert found().to_yolo(with_confidence=True).splitlines()[1] == "0 0.5 0.5 1 1 0.5"
    assert found()[:0].to_yolo() == ""


def test_labels_end_in_the_track() -> None:
    tracked = replace(found(), tracker_id=np.array([4, -1]))
    assert (
        tracked.to_yolo(with_confidence=True) == "3 0.175 0.55 0.25 0.7 0.9 4\n0 0.5 0.5 1 1 0.5\n"
    )
    assert [one.tracker_id for one in tracked] == [4, None]
    assert tracked[1:].tracker_id == [-1]
    assert tracked.to_dict()["detections"][0]["tracker_id"] == 4
    assert tracked.to_coco()[0]["track_id"] == 4
    assert "track_id" not in tracked.to_coco()[1]


def test_labels_of_masks_are_outlines_and_what_is_no_area_is_left_out() -> None:
    masks = (Mask(SIZE, (SQUARE,)), Mask(SIZE, (SQUARE[:2],)))
    assert found(masks=masks).to_yolo() == "3 0.05 0.2 0.15 0.2 0.15 0.4 0.05 0.4\n"
    run_lengths = Mask(SIZE, counts=b"`j0")
    with pytest.raises(ValueError, match="polygon"):
        found(masks=(run_lengths, run_lengths)).to_yolo()


def test_parts_are_joined_without_area_between_them() -> None:
    far = SQUARE + np.array([100, 0], np.float32)
    outline = joined([SQUARE, far, SQUARE[:2]])
    assert area(outline) == pytest.approx(800)
    # Drawn, it covers both and a line between them.
    both = Mask(SIZE, (SQUARE, far)).to_array()
    drawn = Mask(SIZE, (outline,)).to_array()
    assert drawn[both].all()
    assert np.count_nonzero(drawn & ~both) < 110
    assert joined([]).shape == (0, 2)


def test_labels_of_keypoints_and_rotated_boxes() -> None:
    points = np.array([[[20, 50, 0.5], [0, 0, 0]], [[200, 100, 1], [100, 10, 0.25]]], np.float32)
    line = found(keypoints=points).to_yolo().splitlines()[0]
    assert line == "3 0.175 0.55 0.25 0.7 0.1 0.5 0.5 0 0 0"
    assert found(keypoints=points[:, :, :2]).to_yolo().splitlines()[0].endswith(" 0.1 0.5 0 0")
    corners = np.stack((SQUARE, SQUARE))
    rotated = found(corners=corners, xywhr=np.ones((2, 5), np.float32))
    assert rotated.to_yolo().splitlines()[0] == "3 0.05 0.2 0.15 0.2 0.15 0.4 0.05 0.4"


def test_labels_of_a_classification(classified: Detections) -> None:
    assert classified.to_yolo() == "0.75 seven\n0.12 two\n"


def test_coco_boxes() -> None:
    first, second = found().to_coco(image_id=5, first_id=10)
    assert first == {
        "id": 10, "image_id": 5, "category_id": 3, "bbox": [10, 20, 50, 70], "area": 3500,
        "iscrowd": 0, "score": pytest.approx(0.9),
    }  # fmt: skip
    assert second["id"] == 11
    json.dumps([first, second])


def test_coco_of_each_task() -> None:
    polygon = Mask(SIZE, (SQUARE, SQUARE[:2]))
    first = found(masks=(polygon, polygon)).to_coco()[0]
    assert (first["segmentation"], first["area"]) == ([SQUARE.reshape(-1).tolist()], 400)
    points = np.array([[[20, 50, 0.5], [1, 2, 0.1]]] * 2, np.float32)
    first = found(keypoints=points).to_coco()[0]
    assert (first["keypoints"], first["num_keypoints"]) == ([20, 50, 2, 1, 2, 1], 1)
    first = found(corners=np.stack((SQUARE, SQUARE))).to_coco()[0]
    assert (first["segmentation"], first["area"]) == ([SQUARE.reshape(-1).tolist()], 400)


def test_coco_has_no_classification(classified: Detections) -> None:
    with pytest.raises(ValueError, match="no boxes"):
        classified.to_coco()


def test_a_data_set_names_its_classes() -> None:
    made = coco.data_set([{"id": 1}], found().to_coco(), {3: "nut", 0: "bolt"})
    assert made["categories"] == [{"id": 0, "name": "bolt"}, {"id": 3, "name": "nut"}]
    assert [one["category_id"] for one in made["annotations"]] == [3, 0]


def test_rows_have_a_column_for_each_number(classified: Detections) -> None:
    row = next(flat_rows.rows(found()))
    assert row == {
        "class_id": 3, "class_name": "nut", "confidence": pytest.approx(0.9), "x_min": 10,
        "y_min": 20, "x_max": 60, "y_max": 90,
    }  # fmt: skip
    points = np.array([[[20, 50, 0.5]]] * 2, np.float32)
    row = next(flat_rows.rows(found(keypoints=points)))
    assert [row[f"keypoint_0_{part}"] for part in ("x", "y", "visibility")] == [20, 50, 0.5]
    row = next(flat_rows.rows(found(corners=np.stack((SQUARE, SQUARE)), xywhr=np.ones((2, 5)))))
    assert (row["rotation"], row["corner_3_y"]) == (1, 40)
    assert next(flat_rows.rows(classified)) == {
        "class_id": 7, "class_name": "seven", "probability": 0.75,
    }  # fmt: skip


def test_a_data_frame_has_its_columns_also_without_rows(classified: Detections) -> None:
    frame = found().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.class_name.tolist() == ["nut", "bolt"]
    assert frame.x_max.tolist() == [60, 200]
    assert list(found()[:0].to_pandas().columns) == list(flat_rows.COLUMNS)
    assert classified.to_pandas().probability.tolist() == [0.75, 0.125]
