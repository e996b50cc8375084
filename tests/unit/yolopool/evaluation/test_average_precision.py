"""Average precision, by hand-made cases and by what holds of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopool.evaluation import average_precision
from yolopool.evaluation.average_precision import Matches, match, total

INTS = np.int64


def test_iou() -> None:
    left = np.array([[0.0, 0, 2, 2]])
    right = np.array([[1.0, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert average_precision.iou(left, right)[0] == pytest.approx([1 / 7, 1.0, 0.0])


def matched(
    overlaps: list[list[float]], scores: list[float], found: list[int], real: list[int]
) -> Matches:
    shape = (len(scores), len(real))
    return match(
        np.array(overlaps, float).reshape(shape), np.array(scores), np.array(found), np.array(real)
    )


def test_a_truth_is_found_once_and_by_the_most_confident() -> None:
    hits = matched([[0.9], [1.0]], [0.3, 0.8], [0, 0], [0]).hits
    assert hits[1].all()
    assert not hits[0].any()


def test_a_detection_takes_the_truth_that_it_overlaps_most_of_those_left() -> None:
    hits = matched([[0.6, 0.9], [0.0, 0.8]], [0.9, 0.8], [0, 0], [0, 0]).hits
    assert hits[0].sum() == 9  # 0.5 to 0.9 with the second truth
    assert not hits[1].any()  # which is taken; the first is not overlapped
    # Where the first detection is not good enough, the second may have the truth.
    hits = matched([[0.72], [0.97]], [0.9, 0.8], [0, 0], [0]).hits
    assert hits[0].tolist() == [True] * 5 + [False] * 5
    assert hits[1].tolist() == [False] * 5 + [True] * 5


def test_another_class_finds_nothing_and_no_truths_are_no_error() -> None:
    assert not matched([[1.0]], [0.9], [1], [0]).hits.any()
    assert not matched([], [0.9], [0], []).hits.any()
    assert matched([], [], [], [0]).hits.shape == (0, 10)


def of(hits: list[bool], scores: list[float], truths: int) -> average_precision.Precision:
    ten = np.repeat(np.array(hits, bool)[:, None], 10, axis=1)
    classes = np.zeros(len(hits), INTS)
    return total([Matches(ten, np.array(scores, float), classes, np.zeros(truths, INTS))])


def test_average_precision_by_hand() -> None:
    # Precision 1 up to recall 0.5, 2/3 up to 1, a straight line between the last sample of the
    # one and the first of the other, and 0 at the last point.
    area = 0.5 + 0.49 * 2 / 3 + 0.01 * (1 + 2 / 3) / 2 - 0.01
    found = of([True, False, True], [0.9, 0.8, 0.7], 2)
    assert found.map50 == pytest.approx(area + 0.01, abs=0.01)
    assert found.map50_95 == found.map50
    # A truth never found leaves its half of the recalls at 0.
    assert of([True], [0.9], 2).map50 == pytest.approx(0.5, abs=0.01)
    assert of([], [], 2).map50 == 0.0
    assert of([True], [0.9], 0).classes == ()
    assert total([]).map50_95 == 0.0


def test_a_class_counts_only_where_it_is_shown() -> None:
    truths = {"a": np.array([[0.0, 0, 10, 10, 0]]), "b": np.array([[0.0, 0, 20, 20, 2]])}
    detections = {
        "a": np.array([[0.0, 0, 10, 10, 0.9, 0]]),
        # Right at IoU 0.75 and below (six of the ten thresholds), so 0.6 of class 2.
        "b": np.array([[0.0, 0, 20, 15.5, 0.9, 2]]),
    }
    map50, map50_95 = average_precision.mean_precision(detections, truths)
    assert map50 == pytest.approx(0.995)
    assert map50_95 == pytest.approx(0.995 * 0.8)


def test_precision_and_recall_are_of_the_best_confidence() -> None:
    # Four sure hits and one false one that is not: the best place is between them.
    found = of([True, True, True, True, False], [0.9, 0.9, 0.9, 0.8, 0.1], 5)
    assert 0.1 < found.confidence < 0.9
    assert (found.precision, found.recall) == pytest.approx((1.0, 0.8), abs=0.02)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.0)), max_size=30), st.integers(0, 20))
def test_precision_is_a_share_and_a_lost_hit_never_helps(
    rows: list[tuple[bool, float]], missed: int
) -> None:
    hits, scores = [hit for hit, _ in rows], [score for _, score in rows]
    truths = sum(hits) + missed
    found = of(hits, scores, truths)
    assert 0.0 <= found.map50 <= 1.0
    if any(hits):
        less = hits.copy()
        less[hits.index(True)] = False
        assert of(less, scores, truths).map50 <= found.map50 + 1e-12
