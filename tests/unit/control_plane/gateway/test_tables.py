import csv
import io

import pytest

from control_plane.gateway.rest.tables import COLUMNS, csv_of
from yolopool.v1 import detection_pb2, types_pb2

BOX = types_pb2.Box(x_min=1, y_min=2.5, x_max=3, y_max=0.1)


def rows(task: str, **more: object) -> list[dict[str, str]]:
    one = detection_pb2.Detection(class_name="a,b", confidence=0.9, box=BOX, **more)  # type: ignore[arg-type]
    answer = detection_pb2.DetectResponse(task=task, detections=[one])
    return list(csv.DictReader(io.StringIO(csv_of(answer).decode(), newline="")))


def test_a_row_has_the_columns_of_its_task() -> None:
    plain = rows("detect")[0]
    assert plain == {
        "class_id": "0", "class_name": "a,b", "confidence": "0.9",
        "x_min": "1", "y_min": "2.5", "x_max": "3", "y_max": "0.1",
    }  # fmt: skip
    points = [
        detection_pb2.Keypoint(x=1, y=2),
        detection_pb2.Keypoint(x=3, y=4, visibility=0.5),
    ]
    assert rows("pose", keypoints=points)[0] == {**plain, "keypoints": "1 2;3 4 0.5"}
    rotated = detection_pb2.RotatedBox(center_x=1, center_y=2, width=3, height=4, rotation=0.5)
    assert rows("obb", rotated_box=rotated)[0] == {
        **plain, "center_x": "1", "center_y": "2", "width": "3", "height": "4", "rotation": "0.5",
    }  # fmt: skip


def test_masks_of_both_formats() -> None:
    polygons = detection_pb2.Polygons(
        parts=[detection_pb2.Polygon(points=[1, 2]), detection_pb2.Polygon(points=[0.1])]
    )
    mask = detection_pb2.Mask(polygons=polygons)
    assert rows("segment", mask=mask)[0]["mask"] == "1 2;0.1"
    mask = detection_pb2.Mask(rle=detection_pb2.RunLengths(height=2, width=3, counts=b"04"))
    assert rows("segment", mask=mask)[0]["mask"] == "2 3 04"
    assert rows("segment")[0]["mask"] == ""


def test_a_classification_has_a_row_for_each_class() -> None:
    top = [detection_pb2.ClassProbability(class_id=2, class_name="x", probability=0.5)]
    answer = detection_pb2.DetectResponse(
        task="classify", classification=detection_pb2.Classification(top=top)
    )
    assert csv_of(answer) == b"class_id,class_name,probability\r\n2,x,0.5\r\n"


@pytest.mark.parametrize("task", ["", "detect", "segment", "pose", "obb", "classify"])
def test_nothing_is_a_header(task: str) -> None:
    header = ",".join(COLUMNS[task or "detect"])
    assert csv_of(detection_pb2.DetectResponse(task=task)).decode() == f"{header}\r\n"
