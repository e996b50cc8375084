"""Labels of images: YOLO's by place and line, with class names or without, and COCO's."""

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopool.errors import InvalidOption
from yolopool.evaluation import labelled_images
from yolopool.evaluation.labelled_images import LabelledImage, labelled

NAMES = ("bolt", "nut")


def read(
    files: Mapping[str, str | bytes], *images: str, task: str = "detect"
) -> tuple[LabelledImage, ...]:
    contents = {name: t.encode() if isinstance(t, str) else t for name, t in files.items()}
    reads = {name: partial(contents.__getitem__, name) for name in contents}
    return labelled(images or ("a.jpg",), reads, task, NAMES)


def boxes(image: LabelledImage, size: tuple[int, int] = (100, 200)) -> list[list[float]]:
    rows: list[list[float]] = image.truths.boxes(size).round(6).tolist()
    return rows


def test_a_line_is_a_box_in_shares_of_the_image() -> None:
    (image,) = read({"a.txt": "1 0.5 0.5 0.2 0.4\n\n0 .1 .1 .2 .2\n"})
    assert boxes(image) == [[40, 60, 60, 140], [0, 0, 20, 40]]
    assert image.truths.classes.tolist() == [1, 0]


def test_the_same_line_twice_is_one_object() -> None:
    (image,) = read({"a.txt": "1 0.5 0.5 0.2 0.4\n1 0.50 0.5 0.2 0.40\n"})
    assert len(image.truths) == 1


def test_an_outline_is_the_box_round_it_and_keypoints_are_passed_over() -> None:
    (image,) = read({"a.txt": "0 0.1 0.1 0.5 0.2 0.3 0.6"}, task="segment")
    assert boxes(image) == [[10, 20, 50, 120]]
    (image,) = read({"a.txt": "0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 0"}, task="pose")
    assert boxes(image) == [[40, 80, 60, 120]]


def test_four_corners_are_a_rotated_box() -> None:
    (image,) = read({"a.txt": "0 .5 .4 .6 .5 .5 .6 .4 .5"}, task="obb")
    x, y, width, height, radians = image.truths.rotated((100, 100))[0]
    assert (x, y, width, height) == pytest.approx((50, 50, 200**0.5, 200**0.5))
    assert abs(np.degrees(radians)) % 90 == pytest.approx(45)


@pytest.mark.parametrize(
    "place",
    ["x/images/a.txt", "x/labels/a.txt", "labels/x/images/a.txt", "elsewhere/a.txt"],
)
def test_labels_are_beside_the_image_or_where_the_library_looks(place: str) -> None:
    (image,) = read({place: "0 .5 .5 .2 .2"}, "x/images/a.jpg")
    assert len(image.truths) == 1


def test_of_two_files_of_one_name_neither_is_guessed() -> None:
    files = {"one/a.txt": "0 .5 .5 .2 .2", "two/a.txt": "1 .5 .5 .2 .2"}
    with pytest.raises(InvalidOption, match="no labels"):
        read(files, "three/a.jpg")


def test_an_image_without_a_file_has_nothing_on_it_if_others_have() -> None:
    found = read({"a.txt": "0 .5 .5 .2 .2"}, "a.jpg", "b.jpg")
    assert [len(image.truths) for image in found] == [1, 0]
    with pytest.raises(InvalidOption, match="no labels"):
        read({"c.txt": "0 .5 .5 .2 .2"}, "a.jpg", "b.jpg")


@pytest.mark.parametrize("names", ["[nut, bolt]", "{0: nut, 1: bolt}", "\n  0: nut\n  1: bolt"])
def test_a_data_yaml_says_which_class_is_which(names: str) -> None:
    files = {"data.yaml": f"path: ../x\nnc: 2\nnames: {names}\n", "a.txt": "0 .5 .5 .2 .2"}
    (image,) = read(files)
    assert image.truths.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.txt": "2 .5 .5 .2 .2"}, "has class 2: the model has 0 to 1"),
        ({"a.txt": "-1 .5 .5 .2 .2"}, "a.txt:1"),
        ({"a.txt": "0 .5 .5 .2 .2\n0.5 .5 .5 .2 .2"}, "a.txt:2"),
        ({"a.txt": "0 .5 .5 .2"}, "a.txt:1"),
        ({"a.txt": "0 .5 .5 nan .2"}, "a.txt:1"),
        ({"a.txt": "0 .5 .5 0 .2"}, "a.txt:1"),
        ({"a.txt": "0 .5 .5 1.2 .2"}, "a.txt:1"),
        ({"a.txt": "cat 1 1 1 1"}, "a.txt:1"),
        ({"a.txt": "inf .5 .5 .2 .2"}, "a.txt:1"),
        ({"a.txt": "nan .5 .5 .2 .2"}, "a.txt:1"),
        ({"a.txt": "1e300 .5 .5 .2 .2"}, "the model has 0 to 1"),
        ({"a.txt": b"\xff\xfe"}, "UTF-8"),
        ({"a.txt": "0 .5 .5 .2 .2", "d.yaml": "names: [screw]"}, "does not name"),
        ({"a.txt": "0 .5 .5 .2 .2", "d.yaml": "names: ["}, "no YAML"),
        ({"a.txt": "0 .5 .5 .2 .2", "d.yaml": "names: {0: [x]}"}, "names must be"),
        ({"a.json": "{"}, "no COCO json"),
        ({"a.json": "[]"}, "no COCO json"),
        ({"a.json": "[" * 100_000}, "no COCO json"),
        ({"a.json": "{}", "b.json": "{}"}, "2 json files"),
    ],
)
def test_what_is_no_label_is_refused_with_its_place(files: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        read(files)
    assert says in caught.value.message


def coco(**more: object) -> str:
    content = {
        "images": [{"id": 7, "file_name": "dir/a.jpg", "width": 100, "height": 200}],
        "categories": [{"id": 3, "name": "nut"}, {"id": 9, "name": "screw"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [40, 60, 20, 80]},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 0, 50]},
        ],
    }
    return json.dumps({**content, **more})


def test_a_coco_json_names_its_images_and_its_classes() -> None:
    found = read({"anything.json": coco()}, "a.jpg", "unknown.jpg")
    assert [image.name for image in found] == ["a.jpg"]
    assert boxes(found[0]) == [[40, 60, 60, 140]]
    assert found[0].truths.classes.tolist() == [1]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"annotations": [{"image_id": 7, "category_id": 9, "bbox": [1, 1, 2, 2]}]}, "'screw'"),
        ({"annotations": [{"image_id": 8, "category_id": 3, "bbox": [1, 1, 2, 2]}]}, "KeyError"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [1, 1]}]}, "ValueError"),
        ({"images": [{"id": 7, "file_name": "a", "width": 0, "height": 1}]}, "no width or height"),
        ({"annotations": []}, "no labels"),
        ({"categories": [{"id": float("inf"), "name": "nut"}]}, "OverflowError"),
        ({"images": [{"id": 7, "file_name": "a", "width": 10**400, "height": 1}]}, "OverflowError"),
    ],
)
def test_a_coco_json_that_does_not_fit_says_why(more: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        read({"a.json": coco(**more)})
    assert says in caught.value.message


def test_so_many_objects_are_looked_at_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs time and memory with every detection of its image, in the control plane."""
    monkeypatch.setattr(labelled_images, "MAX_OBJECTS", 3)
    monkeypatch.setattr(labelled_images, "MAX_ALL_OBJECTS", 4)
    lines = [f"0 .5 .5 .2 .{number}" for number in (1, 2, 3, 4)]
    files = {"a.txt": "\n".join(lines[:3]), "b.txt": lines[0]}
    assert len(read(files, "a.jpg", "b.jpg")) == 2
    for more in ({"a.txt": "\n".join(lines)}, {"b.txt": "\n".join(lines[:2])}):
        with pytest.raises(InvalidOption, match="at most 3 an image and 4 in all"):
            read({**files, **more}, "a.jpg", "b.jpg")


@given(st.text(max_size=200), st.sampled_from(["detect", "pose", "obb", "segment"]))
def test_any_text_is_labels_or_refused(text: str, task: str) -> None:
    try:
        found = read({"a.txt": text}, task=task)
    except InvalidOption:
        return
    for image in found:
        inside = image.truths.boxes((1, 1))
        assert ((inside >= -0.02) & (inside <= 1.02)).all()


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_json_and_yaml_is_read_or_refused(content: bytes) -> None:
    for name in ("a.json", "data.yaml"):
        try:
            read({name: content, "a.txt": "0 .5 .5 .2 .2"})
        except InvalidOption:
            continue
