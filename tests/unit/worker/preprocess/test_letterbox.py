"""Regions of interest, and the limits of a letterbox. tests/contract compares with the library."""

import numpy as np
import pytest

from tests.unit.worker.preprocess.encoded_images import picture
from worker.preprocess import letterbox
from yolopool.errors import ImageTooLarge, InvalidOption
from yolopool.vocabulary import ShapePolicy

# --- Region of interest ----------------------------------------------------------------------


def test_region_takes_every_pixel_it_touches() -> None:
    part = letterbox.region((1.2, 2.0, 3.1, 4.0), (64, 96, 3))
    assert part == letterbox.Region(1, 2, 4, 4)
    assert part.offset == (1, 2)
    assert letterbox.crop(picture(), part).shape == (2, 3, 3)
    assert letterbox.region((0, 0, 96, 64), (64, 96, 3)) == letterbox.Region(0, 0, 96, 64)
    assert letterbox.region((95.5, 63.5, 95.6, 63.6), (64, 96)) == letterbox.Region(95, 63, 96, 64)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 0),
        (5, 5, 5, 9),
        (9, 5, 5, 9),
        (-1, 0, 5, 5),
        (0, 0, 97, 5),
        (0, 0, 5, 65),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
    ],
)
def test_refuses_a_region_outside(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidOption, match="96x64"):
        letterbox.region(box, (64, 96, 3))


def test_a_region_sees_nothing_beyond_it() -> None:
    """Neither resampling nor padding reads pixels of the image around the crop."""
    image = picture(200, 300)
    part = letterbox.Region(33, 21, 180, 120)
    alone = np.ascontiguousarray(letterbox.crop(image, part))
    for size in (64, 96, 160, 640):
        of_view = letterbox.letterbox(letterbox.crop(image, part), size, 32, ShapePolicy.RECT)
        of_copy = letterbox.letterbox(alone, size, 32, ShapePolicy.RECT)
        np.testing.assert_array_equal(of_view.image, of_copy.image)


# --- Letterbox and back ----------------------------------------------------------------------


def test_to_original_adds_the_offset_of_a_region() -> None:
    part = letterbox.letterbox(picture(50, 40), 64, 32, ShapePolicy.RECT)
    boxes = np.array([[-9, -9, 999, 999]], np.float32)
    np.testing.assert_array_equal(
        letterbox.to_original(boxes, part, (10, 20)), np.array([[10, 20, 50, 70]], np.float32)
    )
    np.testing.assert_array_equal(boxes, [[-9, -9, 999, 999]])
    assert letterbox.to_original(np.empty((0, 4), np.float32), part).shape == (0, 4)


@pytest.mark.parametrize("shape", [(1, 65_500), (65_500, 1), (11_000_000, 1)])
def test_a_line_of_pixels_is_not_scaled_to_a_square(shape: tuple[int, int]) -> None:
    line = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(ImageTooLarge, match="region of interest"):
        letterbox.centre_crop(line, 224, 32, max_pixels=100_000_000)


def test_a_small_limit_still_takes_small_squares() -> None:
    square = np.zeros((8, 8, 3), np.uint8)
    assert letterbox.centre_crop(square, 224, 32, max_pixels=64).image.shape == (224, 224, 3)
