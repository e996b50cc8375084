"""Masks, outlines and run lengths equal the model library's, and cost one object's memory."""

import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.utils import ops

from worker.postprocess import mask_encoding, masks
from yolopool.client.masks import Mask, decompressed

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


def whole(crop: masks.MaskCrop, shape: tuple[int, int]) -> np.ndarray:
    image = np.zeros(shape, np.uint8)
    height, width = crop.pixels.shape
    image[crop.y : crop.y + height, crop.x : crop.x + width] = crop.pixels
    return image


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


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_a_crop_are_those_of_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = np.zeros((90, 120), np.uint8)
    image[20:60, 30:80] = rng.random((40, 50)) < 0.6
    crop = masks.MaskCrop(np.ascontiguousarray(image[20:60, 30:80]), 30, 20)
    theirs, _ = cv2.findContours(image, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    ours = mask_encoding.outlines(crop)
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other.reshape(-1, 2))


def reference(mask: np.ndarray) -> list[int]:
    """Run lengths as COCO counts them, one pixel after the other."""
    lengths, last = [0], 0
    for value in mask.T.reshape(-1).tolist():
        if value != last:
            lengths.append(0)
            last = value
        lengths[-1] += 1
    return lengths


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("place", [(0, 0), (7, 3), (20, 16)])
def test_run_lengths_are_cocos(density: float, place: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    crop = masks.MaskCrop((rng.random((14, 20)) < density).astype(np.uint8), *place)
    image = whole(crop, (30, 40))
    told = mask_encoding.run_lengths(crop, (30, 40))
    assert decompressed(told.counts).tolist() == reference(image)
    mask = Mask((40, 30), counts=told.counts)
    np.testing.assert_array_equal(mask.to_array(), image.astype(bool))


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        ([6, 1, 40, 4, 5, 4, 5, 4, 21], b"61X13mN000`0"),
        ([245, 5, 35, 5, 35, 5, 35, 5, 35, 5, 1190], b"e75S10000000ST1"),
        ([5, 2, 2, 2, 5], b"52203"),
    ],
)
def test_the_string_is_pycocotools(lengths: list[int], text: bytes) -> None:
    """Pairs that others' tests of the format have from it."""
    assert mask_encoding.compressed(np.array(lengths)) == text
    assert decompressed(text).tolist() == lengths


@pytest.mark.parametrize("seed", range(10))
def test_any_run_lengths_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = (rng.integers(1, 10 ** rng.integers(1, 8), rng.integers(1, 40))).astype(np.int64)
    lengths[0] = rng.choice([0, lengths[0]])
    assert decompressed(mask_encoding.compressed(lengths)).tolist() == lengths.tolist()


def test_a_string_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ValueError, match="cut short"):
        decompressed(mask_encoding.compressed(np.array([1000, 5000]))[:-1])
