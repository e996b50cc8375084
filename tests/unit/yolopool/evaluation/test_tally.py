"""What was found beside what is there, added up over images."""

import numpy as np
import pytest

from yolopool.evaluation.tally import Found, Tally
from yolopool.evaluation.truths import NOTHING, read_lines


def found(*rows: tuple[float, ...], size: tuple[int, int] = (100, 100)) -> Found:
    table = np.array(rows, np.float64) if rows else np.zeros((0, 6))
    return Found(table[:, :-2], table[:, -2], table[:, -1].astype(np.int64), size)


def test_a_perfect_model_and_one_that_finds_nothing() -> None:
    truths = read_lines("0 .5 .5 .2 .2\n1 .2 .2 .2 .2", "a", "detect", 2)
    good, blind = Tally("detect", 2), Tally("detect", 2)
    good.add(found((40, 40, 60, 60, 0.9, 0), (10, 10, 30, 30, 0.8, 1)), truths)
    good.add(found(), NOTHING)
    blind.add(found(), truths)
    evaluation = good.evaluation()
    assert evaluation.images == 2
    assert evaluation.precision.map50_95 == pytest.approx(0.995)
    assert evaluation.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert blind.evaluation().precision.map50 == 0.0
    assert blind.evaluation().confusion.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


def test_what_is_found_where_nothing_is_costs_precision() -> None:
    truths = read_lines("0 .5 .5 .2 .2", "a", "detect", 1)
    tally = Tally("detect", 1)
    tally.add(found((0, 0, 9, 9, 0.95, 0)), NOTHING)
    tally.add(found((40, 40, 60, 60, 0.9, 0)), truths)
    assert tally.evaluation().precision.map50 == pytest.approx(0.5, abs=0.01)


def test_rotated_boxes_are_compared_as_such() -> None:
    truths = read_lines("0 .5 .4 .6 .5 .5 .6 .4 .5", "a", "obb", 1)
    tally, upright = Tally("obb", 1), Tally("obb", 1)
    side = 200**0.5
    tally.add(found((50, 50, side, side, np.pi / 4, 0.9, 0)), truths)
    upright.add(found((50, 50, side * 3, side / 3, 0.0, 0.9, 0)), truths)
    assert tally.evaluation().precision.map50_95 == pytest.approx(0.995)
    assert upright.evaluation().precision.map50_95 < 0.5
