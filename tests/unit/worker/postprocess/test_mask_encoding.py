"""Outlines are OpenCV's, and run lengths are COCO's."""

import cv2
import numpy as np
import pytest

from tests.unit.worker.postprocess.crops import whole
from worker.postprocess import mask_encoding, masks
from yolopool.client.masks import Mask, decompressed


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
