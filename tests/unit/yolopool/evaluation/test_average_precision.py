"""Average precision, by hand-made cases."""

import numpy as np
import pytest

from yolopool.evaluation import average_precision


def test_iou() -> None:
    left = np.array([[0.0, 0, 2, 2]])
    right = np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert average_precision.iou(left, right)[0] == pytest.approx([1 / 7, 1.0, 0.0])


def test_a_truth_is_found_once() -> None:
    detections = np.array([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    truths = np.array([[0.0, 0, 10, 10, 0]])
    assert average_precision.match(detections, truths, 0.5).tolist() == [True, False]
    assert average_precision.match(detections, np.zeros((0, 5)), 0.5).tolist() == [False, False]


def test_average_precision_by_hand() -> None:
    hits, scores = np.array([True, False, True]), np.array([0.9, 0.8, 0.7])
    # Recall 0..0.5 (51 of the 101 points) at precision 1, the rest at 2/3.
    assert average_precision.average_precision(hits, scores, 2) == pytest.approx(
        (51 + 50 * 2 / 3) / 101
    )
    # A truth never found leaves its half of the recalls at 0.
    assert average_precision.average_precision(hits[:1], scores[:1], 2) == pytest.approx(51 / 101)
    assert average_precision.average_precision(hits[:0], scores[:0], 2) == 0.0


def test_mean_precision_counts_a_class_only_where_it_is_shown() -> None:
    truths = {"a": np.array([[0.0, 0, 10, 10, 0]]), "b": np.array([[0.0, 0, 20, 20, 2]])}
    detections = {
        "a": np.array([[0.0, 0, 10, 10, 0.9, 0]]),
        # Right at IoU 0.75 and below (six of the ten thresholds), so 0.6 of class 2.
        "b": np.array([[0.0, 0, 20, 15.5, 0.9, 2]]),
    }
    assert average_precision.mean_precision(detections, truths, 3) == pytest.approx((1.0, 0.8))
