"""The folders of an evaluation: which images are read, and with which labels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from yolopool.client.detections import Detections
from yolopool.client.model_records import ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation.pool_evaluation import found_of, read_folder

LABEL = "0 .5 .5 .2 .2"


def version(task: str = "detect") -> ModelVersion:
    return cast("ModelVersion", SimpleNamespace(name="a@1", task=task, class_names=("bolt", "nut")))


def put(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def found(images: Path, labels: Path) -> dict[str, int]:
    return {one.name: len(one.truths) for one in read_folder(images, labels, version())}


def test_labels_of_a_folder_beside_and_of_the_librarys_layout(tmp_path: Path) -> None:
    put(tmp_path, images__val__a_dot_jpg="", images__val__b_dot_PNG="")
    root = put(tmp_path, labels__val__a_dot_txt=LABEL)
    expected = {"val/a.jpg": 1, "val/b.PNG": 0}
    assert found(root / "images", root / "labels") == expected
    assert found(root, root) == {f"images/{name}": count for name, count in expected.items()}
    put(tmp_path, data_dot_yaml="names: [nut, bolt]\n")
    (one, _) = read_folder(root / "images", root / "data.yaml", version())
    assert one.truths.classes.tolist() == [1]


def test_one_json_is_read_and_no_other(tmp_path: Path) -> None:
    root = put(tmp_path, images__a_dot_jpg="", other_dot_json="{}")
    coco = (
        '{"images": [{"id": 1, "file_name": "a.jpg", "width": 10, "height": 10}],'
        '"categories": [{"id": 1, "name": "bolt"}],'
        '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}]}'
    )
    put(tmp_path, coco_dot_json=coco)
    assert found(root / "images", root / "coco.json") == {"a.jpg": 1}


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    put(tmp_path, labels__a_dot_txt=LABEL)
    for images, says in ((tmp_path / "none", "no folder"), (tmp_path / "labels", "no images")):
        with pytest.raises(InvalidOption, match=says):
            read_folder(images, tmp_path, version())
    with pytest.raises(InvalidOption, match="classify"):
        read_folder(tmp_path, tmp_path, version("classify"))


def test_of_rotated_boxes_the_rotated_ones_are_taken() -> None:
    rows: dict[str, Any] = {
        "xyxy": np.zeros((1, 4), np.float32),
        "confidence": np.array([0.5], np.float32),
        "class_id": np.array([1]),
        "class_name": ("nut",),
        "image_size": (10, 20),
    }
    assert found_of(Detections(**rows)).boxes.shape == (1, 4)
    turned = np.array([[5, 5, 2, 1, 0.5]], np.float32)
    one = found_of(Detections(**rows, task="obb", xywhr=turned))
    assert one.boxes.tolist() == turned.astype(np.float64).tolist()
    assert one.size == (10, 20)
