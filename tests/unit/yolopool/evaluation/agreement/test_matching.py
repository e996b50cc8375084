"""Which objects of two answers are the same."""

import numpy as np

from yolopool.evaluation.agreement.matching import RENAMED, class_name, class_number, matched


def pairs(overlaps: list[list[float]], classes: list[int], others: list[int]) -> list[list[int]]:
    scores = np.linspace(0.9, 0.5, len(classes))
    found = matched(np.array(overlaps, np.float64), np.array(classes), scores, np.array(others))
    return [[int(row), int(column)] for row, column in found]


def test_the_most_confident_takes_the_one_that_overlaps_it_most() -> None:
    assert pairs([[0.6, 0.9], [0.7, 0.95]], [1, 1], [1, 1]) == [[0, 1], [1, 0]]


def test_another_class_and_too_little_overlap_are_no_match() -> None:
    assert pairs([[0.9, 0.49]], [1], [2, 1]) == []


def test_each_object_is_matched_once() -> None:
    assert pairs([[0.9], [0.9]], [1, 1], [1]) == [[0, 0]]


def test_nothing_on_either_side_is_no_pair() -> None:
    for rows, columns in ((0, 3), (2, 0), (0, 0)):
        ours, theirs = (np.zeros(count, np.int64) for count in (rows, columns))
        found = matched(np.zeros((rows, columns)), ours, np.zeros(rows), theirs)
        assert found.shape == (0, 2)


def test_a_class_is_the_same_by_its_id_and_its_name() -> None:
    known = ("car", "bus")
    assert class_number(1, "bus", known) == 1
    assert class_number(1, "car", known) == RENAMED + 1
    assert class_number(2, "van", known) == RENAMED + 2
    assert class_number(7, "anything", ()) == 7
    assert class_name(1, known) == "bus"
    assert class_name(5, known) == "5"
    assert class_name(RENAMED + 1, known) == "class 1 by another name"
