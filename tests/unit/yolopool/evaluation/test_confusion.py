"""Which class is taken for which, by hand-made cases."""

import numpy as np

from yolopool.evaluation.confusion import confusion


def counts(
    overlaps: list[list[float]], scores: list[float], found: list[int], truths: list[int]
) -> list[list[int]]:
    shape = (len(scores), len(truths))
    found_counts: list[list[int]] = confusion(
        np.array(overlaps, float).reshape(shape),
        np.array(scores, float),
        np.array(found, np.int64),
        np.array(truths, np.int64),
        2,
    ).tolist()
    return found_counts


def test_a_hit_a_confusion_a_miss_and_a_phantom() -> None:
    assert counts([[0.9]], [0.9], [0], [0]) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert counts([[0.9]], [0.9], [1], [0]) == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert counts([], [], [], [1]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counts([], [0.9], [1], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_what_is_not_sure_or_overlaps_too_little_is_not_found() -> None:
    assert counts([[0.9]], [0.25], [0], [0]) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert counts([[0.45]], [0.9], [0], [0]) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_a_truth_is_taken_once_by_the_most_confident() -> None:
    assert counts([[0.9], [0.95]], [0.5, 0.9], [0, 1], [0]) == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
