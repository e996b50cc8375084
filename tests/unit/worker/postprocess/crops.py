"""Mask crops as whole images."""

import numpy as np

from worker.arrays import U8
from worker.postprocess.masks import MaskCrop


def whole(crop: MaskCrop, shape: tuple[int, int]) -> U8:
    image = np.zeros(shape, np.uint8)
    height, width = crop.pixels.shape
    image[crop.y : crop.y + height, crop.x : crop.x + width] = crop.pixels
    return image
