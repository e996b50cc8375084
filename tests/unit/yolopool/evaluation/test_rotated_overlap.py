"""Overlap of rotated boxes, by what must hold of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopool.evaluation.rotated_overlap import of_corners, overlap

SIDES, PLACES = st.floats(4, 200), st.floats(0, 500)
BOXES = st.tuples(PLACES, PLACES, SIDES, SIDES, st.floats(-3, 3))


@given(BOXES)
def test_a_box_is_all_of_itself_however_it_is_told(box: tuple[float, ...]) -> None:
    x, y, width, height, radians = box
    ways = [
        box,
        (x, y, height, width, radians + math.pi / 2),
        (x, y, width, height, radians + math.pi),
    ]
    found = overlap(np.array([box]), np.array(ways))
    assert found[0] == pytest.approx([1.0] * 3, abs=2e-3)


@given(BOXES, BOXES)
def test_it_is_a_share_and_the_same_both_ways(
    one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    there, back = (
        overlap(np.array([one]), np.array([other])),
        overlap(np.array([other]), np.array([one])),
    )
    assert there == pytest.approx(back, abs=1e-6)
    assert -1e-6 <= there[0, 0] <= 1.0


def test_a_box_that_moves_away_overlaps_less_and_none_are_none() -> None:
    boxes = np.array([(0.0, 0, 20, 10, 0.3), (3, 0, 20, 10, 0.3), (30, 0, 20, 10, 0.3)])
    found = overlap(boxes[:1], boxes)[0]
    assert found[0] > found[1] > found[2]
    assert found[2] < 0.05
    assert overlap(np.zeros((0, 5)), boxes).shape == (0, 3)


@given(BOXES)
def test_corners_are_the_box_that_has_them(box: tuple[float, ...]) -> None:
    x, y, width, height, radians = box
    along = np.array([math.cos(radians), math.sin(radians)]) * width / 2
    across = np.array([-math.sin(radians), math.cos(radians)]) * height / 2
    centre = np.array([x, y])
    corners = np.array([[-along - across, along - across, along + across, across - along]]) + centre
    assert overlap(of_corners(corners), np.array([box]))[0, 0] == pytest.approx(1.0, abs=2e-3)
