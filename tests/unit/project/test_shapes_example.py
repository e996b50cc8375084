"""The demo's generator of labelled pictures."""

import math

import numpy as np

from examples.shapes import make_data

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
