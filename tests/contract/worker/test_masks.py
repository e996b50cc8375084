"""Masks equal the model library's, and cost the memory of one object."""

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.utils import ops

from tests.unit.worker.postprocess.crops import whole
from worker.postprocess import mask_encoding, masks
from yolopool.errors import InferenceFailed

F32 = np.ndarray
SHAPES = [
    # letterboxed, original
    ((320, 320), (320, 320)),
    ((224, 320), (200, 333)),
    ((320, 192), (501, 260)),
    ((384, 640), (1080, 1920)),
    ((640, 640), (37, 1000)),
]


def parts(seed: int, shape: tuple[int, int], count: int) -> tuple[F32, F32, F32]:
    """Coefficients, prototypes and boxes of which some leave the image or have no pixel."""
    rng = np.random.default_rng(seed)
    height, width = shape[0] // 4, shape[1] // 4
    coarse = rng.normal(size=(32, height // 4 + 2, width // 4 + 2)).astype(np.float32)
    prototypes = np.stack([cv2.resize(one, (width, height)) for one in coarse])
    centre = rng.uniform(-10, max(shape), (count, 2))
    size = rng.uniform(0.2, 150, (count, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)
    return rng.normal(size=(count, 32)).astype(np.float32), prototypes, boxes


def library(
    function: Any, prototypes: F32, coefficients: F32, boxes: F32, *args: Any, **more: Any
) -> np.ndarray:
    tensors = (torch.from_numpy(one) for one in (prototypes, coefficients, boxes))
    return np.asarray(function(*tensors, *args, **more).numpy())


@pytest.mark.parametrize(("shape", "original"), SHAPES)
def test_masks_at_the_input_equal_the_librarys(
    shape: tuple[int, int], original: tuple[int, int]
) -> None:
    coefficients, prototypes, boxes = parts(1, shape, 12)
    theirs = library(ops.process_mask, prototypes, coefficients, boxes, shape, upsample=True)
    ours = [whole(one, shape) for one in masks.at_input(coefficients, prototypes, boxes, shape)]
    assert theirs.any()
    np.testing.assert_array_equal(np.stack(ours), theirs)


@pytest.mark.parametrize(("shape", "original"), SHAPES)
def test_masks_at_the_original_equal_the_librarys(
    shape: tuple[int, int], original: tuple[int, int]
) -> None:
    coefficients, prototypes, boxes = parts(2, shape, 12)
    boxes = np.asarray(ops.scale_boxes(shape, boxes, original))
    theirs = library(ops.process_mask_native, prototypes, coefficients, boxes, original)
    crops = masks.at_original(coefficients, prototypes, boxes, original)
    assert theirs.any()
    np.testing.assert_array_equal(np.stack([whole(one, original) for one in crops]), theirs)


def test_a_mask_taller_than_a_band_is_one_mask() -> None:
    coefficients, prototypes, _ = parts(3, (1280, 1280), 1)
    boxes = np.array([[0, 0, 1280, 1280]], np.float32)
    (crop,) = masks.at_input(coefficients, prototypes, boxes, (1280, 1280))
    shape = (1280, 1280)
    theirs = library(ops.process_mask, prototypes, coefficients, boxes, shape, upsample=True)
    np.testing.assert_array_equal(crop.pixels, theirs[0])


def test_boxes_without_pixels_give_empty_masks() -> None:
    coefficients, prototypes, _ = parts(4, (64, 64), 4)
    nan, away = np.nan, [-9, -9, -1, -1]
    boxes = np.array([[5, 5, 5, 9], [nan, 0, 9, 9], away, [70, 0, 99, 9]], np.float32)
    crops = list(masks.at_input(coefficients, prototypes, boxes, (64, 64)))
    assert all(one.is_empty for one in crops)
    assert mask_encoding.outlines(crops[0]) == ()
    assert mask_encoding.run_lengths(crops[0], (64, 64)).counts == mask_encoding.compressed(
        np.array([64 * 64])
    )


def test_many_objects_take_no_more_memory_than_one() -> None:
    coefficients, prototypes, _ = parts(5, (320, 320), 30)
    boxes = np.tile(np.array([[0, 0, 320, 320]], np.float32), (30, 1))

    def peak(count: int) -> int:
        tracemalloc.start()
        for crop in masks.at_input(coefficients[:count], prototypes, boxes[:count], (320, 320)):
            mask_encoding.run_lengths(crop, (320, 320))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(30) < 2 * peak(2)


@pytest.mark.parametrize("make", [masks.at_input, masks.at_original])
def test_prototypes_that_are_not_finite_make_no_mask(make: Any) -> None:
    coefficients, prototypes, boxes = parts(1, (320, 320), 5)
    boxes[0] = (100, 100, 200, 200)
    prototypes[3, 30, 30] = np.nan
    with pytest.raises(InferenceFailed, match="not finite"):
        list(make(coefficients, prototypes, boxes, (320, 320)))
