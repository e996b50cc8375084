"""Letterboxes, and boxes on the way back, equal the model library's."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import scale_boxes

from tests.matrix import examples
from worker.arrays import U8
from worker.preprocess import letterbox
from yolopool.vocabulary import ShapePolicy

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
