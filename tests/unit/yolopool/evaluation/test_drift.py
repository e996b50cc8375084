"""Drift between two builds, by hand-made boxes."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from yolopool.client.detections import Classification, Detections
from yolopool.client.model_records import Drift, ModelVersion
from yolopool.errors import InvalidOption
from yolopool.evaluation import build_comparison, drift
from yolopool.evaluation.drift import Bound

BOX = (10.0, 10.0, 50.0, 50.0)


def found(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        tuple(str(row[2]) for row in rows),
    )


CAR = found((BOX, 0.9, 0))


def test_equal_boxes_do_not_drift() -> None:
    assert drift.compare(CAR, CAR) == Drift(1, 1, 1)
    assert drift.compare(found(), found()) == Drift(1)
    assert drift.total([]) == Drift()


def test_the_largest_difference_counts() -> None:
    moved = drift.compare(CAR, found(((10.0, 12.0, 50.0, 47.0), 0.85, 0)))
    assert (moved.matched, moved.largest_px) == (1, 3.0)
    assert moved.largest_confidence == pytest.approx(0.05)
    both = drift.total([moved, Drift(1, 2, 1, 1, 1.0, 0.2)])
    assert both == Drift(2, 3, 2, 1, 3.0, 0.2)


def test_another_class_or_place_is_no_match() -> None:
    other = found((BOX, 0.9, 1), ((60.0, 60.0, 90.0, 90.0), 0.9, 0))
    assert drift.compare(CAR, other) == Drift(1, 1, 0, 2)


def test_an_object_is_found_again_once() -> None:
    two = found((BOX, 0.9, 0), ((11.0, 10.0, 50.0, 50.0), 0.8, 0))
    assert drift.compare(two, CAR) == Drift(1, 2, 1, 0)


def test_keypoints_count_as_sides_do() -> None:
    points = np.zeros((1, 2, 3), np.float32)
    left, right = replace(CAR, keypoints=points), replace(CAR, keypoints=points + 4.0)
    assert drift.compare(left, right).largest_px == 4.0


def test_of_classes_the_likeliest_is_compared() -> None:
    def of(class_id: int, probability: float) -> Detections:
        top = Classification(
            np.array([class_id]),
            ("a",),
            np.array([probability], np.float32),
            np.zeros(0, np.float32),
        )
        return replace(found(), task="classify", classification=top)

    same = drift.compare(of(1, 0.75), of(1, 0.5))
    assert (same.objects, same.matched, same.largest_confidence) == (1, 1, 0.25)
    assert drift.compare(of(1, 0.75), of(2, 0.5)) == Drift(1, 1, 0, 1)


@pytest.mark.parametrize(
    ("moved", "word"),
    [
        (Drift(1, 100, 100, 0, 4.9, 0.5), ""),
        (Drift(1, 100, 99, 1, 0.0, 0.0), ""),
        (Drift(1, 100, 98, 0, 0.0, 0.0), "missed"),
        (Drift(1, 100, 100, 2, 0.0, 0.0), "extra"),
        (Drift(1, 100, 100, 0, 5.1, 0.0), "moved"),
        (Drift(0), "found nothing"),
        (Drift(1, 100, 100, exact_map50_95=0.5, map50_95=0.48), "mAP50-95"),
        (Drift(1, 100, 100, exact_map50_95=0.5, map50_95=0.495), ""),
    ],
)
def test_a_bound_says_what_is_beyond(moved: Drift, word: str) -> None:
    said = Bound().exceeded_by(moved)
    assert (word in said) if word else not said


def test_a_rotated_box_is_the_same_from_any_of_its_corners() -> None:
    corners = np.array([[[0, 0], [9, 0], [9, 4], [0, 4]]], np.float32)
    left = replace(CAR, corners=corners)
    assert drift.compare(left, replace(CAR, corners=np.roll(corners, 1, axis=1))).largest_px == 0
    assert drift.compare(left, replace(CAR, corners=corners + 3)).largest_px == 3


def test_a_mask_that_fell_apart_is_not_found_again() -> None:
    def masked(rows: slice) -> Detections:
        filled = np.zeros((60, 60), np.bool_)
        filled[rows, 10:50] = True
        return replace(CAR, task="segment", masks=(_mask(filled),))

    whole, part = masked(slice(10, 50)), masked(slice(10, 20))
    assert drift.compare(whole, whole).matched == 1
    assert drift.compare(whole, part).matched == 0


@dataclass(frozen=True)
class _Pixels:
    """As yolopool.client.masks.Mask, of pixels that are at hand."""

    pixels: np.ndarray

    def to_array(self) -> np.ndarray:
        return self.pixels


def _mask(pixels: np.ndarray) -> Any:
    return _Pixels(pixels)


def test_labels_are_checked_before_anything_runs(tmp_path: Path) -> None:
    image, label = tmp_path / "a.png", tmp_path / "a.txt"
    image.write_bytes(b"not looked at")
    label.write_text("1 0.5 0.5 0.2 0.4\n\n")
    version = cast(
        "ModelVersion", SimpleNamespace(name="a@1", task="detect", class_names=("a", "b"))
    )
    (truths,) = build_comparison.read_labels(tmp_path, [image], version)
    assert truths.classes.tolist() == [1]
    assert truths.boxes((10, 10)).tolist() == [[4, 3, 6, 7]]
    for wrong in ("2 0.5 0.5 0.2 0.4", "0 0.5 0.5 0.2", "0 0.5 0.5 nan 0.1", "cat 1 1 1 1", ""):
        label.write_text(wrong)
        with pytest.raises(InvalidOption):
            build_comparison.read_labels(tmp_path, [image], version)
