"""The demo's generator and its average precision, by hand-made cases."""

import math

import numpy as np
import pytest

from examples.shapes import evaluate, make_data

PICTURES = 6


def test_the_same_seed_draws_the_same_scenes() -> None:
    first, again = (list(make_data.scenes(7, 2)) for _ in range(2))
    for (left, left_shapes), (right, right_shapes) in zip(first, again, strict=True):
        assert left.tobytes() == right.tobytes()
        assert left_shapes == right_shapes


def test_shapes_stay_inside_and_apart() -> None:
    for picture, shapes in make_data.scenes(11, PICTURES):
        assert picture.size == (make_data.SIZE, make_data.SIZE)
        assert 1 <= len(shapes) <= 5
        for index, shape in enumerate(shapes):
            assert min(shape.box()) > 0
            assert max(shape.box()) < make_data.SIZE
            for other in shapes[:index]:
                apart = math.hypot(shape.x - other.x, shape.y - other.y)
                assert apart > shape.radius + other.radius


def test_the_box_of_a_shape_holds_its_pixels() -> None:
    paper = np.zeros((make_data.SIZE, make_data.SIZE, 3), np.uint8)
    for cls in range(len(make_data.NAMES)):
        shape = make_data.Shape(cls, 150.5, 90.25, 40.0, 0.4, (255, 255, 255))
        rows, columns = np.nonzero(np.asarray(make_data.draw(paper, [shape]))[..., 0] > 127)
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(drawn, shape.box())).max() < 1.5


def test_label_lines_are_centre_and_size_in_fractions() -> None:
    circle = make_data.Shape(0, 160.0, 80.0, 32.0, 0.0, (0, 0, 0))
    assert make_data.label_line(circle) == "0 0.500000 0.250000 0.200000 0.200000\n"


def test_iou() -> None:
    left = np.array([[0.0, 0, 2, 2]])
    right = np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert evaluate.iou(left, right)[0] == pytest.approx([1 / 7, 1.0, 0.0])


def test_a_truth_is_found_once() -> None:
    detections = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    truths = np.array([[0.0, 0, 10, 10, 0]])
    assert evaluate.match(detections, truths, 0.5).tolist() == [True, False]
    assert evaluate.match(detections, np.zeros((0, 5)), 0.5).tolist() == [False, False]


def test_average_precision_by_hand() -> None:
    hits, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
    # Recall 0..0.5 (51 of the 101 points) at precision 1, the rest at 2/3.
    assert evaluate.average_precision(hits, scores, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # A truth never found leaves its half of the recalls at 0.
    assert evaluate.average_precision(hits[:1], scores[:1], 2) == pytest.approx(51 / 101)
    assert evaluate.average_precision(hits[:0], scores[:0], 2) == 0.0


def test_mean_precision_counts_a_class_only_where_it_is_shown() -> None:
    truths = {"a": np.array([[0.0, 0, 10, 10, 0]]), "b": np.array([[0.0, 0, 20, 20, 2]])}
    detections = {
        "a": np.array([[0.0, 0, 10, 10, 0.9, 0]]),
        # Right at IoU 0.75 and below (six of the ten thresholds), so 0.6 of class 2.
        "b": np.array([[0.0, 0, 20, 15.5, 0.9, 2]]),
    }
    assert evaluate.mean_precision(detections, truths, 3) == pytest.approx((1.0, 0.8))
