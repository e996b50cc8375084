"""Letterboxes and boxes against the model library itself, and regions of interest."""

import os
import tempfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())

import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import scale_boxes

from tests.matrix import examples
from tests.unit.worker.preprocess.encoded_images import picture
from worker.arrays import U8
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

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 1500))


def library_letterbox(
    image: U8, size: letterbox.ImageSize, stride: int, policy: ShapePolicy
) -> Any:
    shape = letterbox.sides_of(size, 1)
    return LetterBox(shape, auto=policy is ShapePolicy.RECT, stride=stride)(image=image)


@examples(200)
@given(
    height=SIDES,
    width=SIDES,
    size=st.sampled_from([32, 64, 320, 416, 640]),
    stride=st.sampled_from([32, 64]),
    policy=st.sampled_from(ShapePolicy),
    seed=st.integers(0, 99),
)
def test_letterbox_and_back_equal_the_library(
    height: int, width: int, size: int, stride: int, policy: ShapePolicy, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    rounded = -(-size // stride) * stride  # as ultralytics' check_imgsz
    expected = library_letterbox(image, rounded, stride, policy)
    made = letterbox.letterbox(image, size, stride, policy)
    np.testing.assert_array_equal(made.image, expected)
    assert made.original_shape == (height, width)
    if policy is ShapePolicy.SQUARE:
        assert made.image.shape == (rounded, rounded, 3)

    boxes = random.uniform(-20, rounded + 20, (50, 4)).astype(np.float32)
    back = letterbox.to_original(boxes, made)
    assert back.dtype == np.float32
    tensor = torch.from_numpy(boxes.copy())
    by_torch = scale_boxes(expected.shape[:2], tensor, (height, width))
    np.testing.assert_array_equal(back, np.asarray(by_torch))
    by_numpy = scale_boxes(expected.shape[:2], boxes.copy(), (height, width))
    np.testing.assert_array_equal(back, by_numpy)


@pytest.mark.parametrize("policy", ShapePolicy)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(200, 333), (501, 260), (384, 640), (17, 900), (1, 1)])
@pytest.mark.parametrize("size", [(384, 640), (640, 384), (32, 640), 320])
def test_rectangles_and_grey_equal_the_library(
    size: letterbox.ImageSize, shape: tuple[int, int], channels: int, policy: ShapePolicy
) -> None:
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (*shape, channels), np.uint8)
    expected = library_letterbox(image, size, 32, policy)
    expected = expected.reshape(*expected.shape[:2], channels)
    made = letterbox.letterbox(image, size, 32, policy)
    np.testing.assert_array_equal(made.image, expected)
    if policy is ShapePolicy.SQUARE:
        assert made.image.shape[:2] == letterbox.sides_of(size, 32)
    boxes = random.uniform(-20, 700, (50, 4)).astype(np.float32)
    back = letterbox.to_original(boxes, made)
    np.testing.assert_array_equal(back, scale_boxes(expected.shape[:2], boxes.copy(), shape))


@pytest.mark.parametrize("policy", ShapePolicy)
def test_letterbox_of_every_narrow_size(policy: ShapePolicy) -> None:
    """Rounding is where letterboxes differ: all sizes from 1 to 99 against two sides."""
    for side in range(1, 100):
        for shape in ((side, 77), (640, side), (side, 1333)):
            image = np.full((*shape, 3), side, np.uint8)
            made = letterbox.letterbox(image, 96, 32, policy)
            np.testing.assert_array_equal(made.image, library_letterbox(image, 96, 32, policy))


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
