"""Decodes an image file, or takes raw pixels, into an array. Pure."""

import enum
from dataclasses import dataclass

import cv2
import numpy as np

from worker.arrays import U8
from worker.preprocess.image_header import read_header
from yolopool.errors import (
    ImageEmpty,
    ImageNotDecodable,
    ImageShapeMismatch,
    ImageTooLarge,
)


class ChannelOrder(enum.StrEnum):
    """Order of the channels of raw pixels."""

    BGR = "bgr"
    RGB = "rgb"
    GRAY = "gray"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image accepted: bytes, encoded or raw, and pixels (width * height)."""

    max_bytes: int
    max_pixels: int

    def check_bytes(self, size: int) -> None:
        """Raises ImageEmpty or ImageTooLarge."""
        if size == 0:
            raise ImageEmpty("the image has no bytes: send an encoded image or raw pixels")
        if size > self.max_bytes:
            raise ImageTooLarge(
                f"the image has {size} bytes, at most {self.max_bytes} are accepted: "
                "send a smaller one or raise the worker's limit"
            )

    def check_pixels(self, height: int, width: int) -> None:
        """Raises ImageTooLarge."""
        if height * width > self.max_pixels:
            raise ImageTooLarge(
                f"the image has {width}x{height} pixels, at most {self.max_pixels} are accepted: "
                "send a smaller one or raise the worker's limit"
            )


def decode(encoded: bytes, limits: ImageLimits, grey: bool = False) -> U8:
    """Decodes to uint8 BGR (height, width, 3), upright: what cv2.IMREAD_COLOR gives; `grey`: to
    (height, width, 1), what cv2.IMREAD_GRAYSCALE gives.

    The size is checked against the header before anything is decoded. Raises ImageEmpty,
    ImageTooLarge, or ImageNotDecodable: no image, another format, or a truncated one.
    """
    limits.check_bytes(len(encoded))
    header = read_header(encoded)
    limits.check_pixels(header.height, header.width)
    try:
        kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), kind)
    except cv2.error:
        image = None
    if image is None:
        raise ImageNotDecodable(
            f"the {header.format} image of {header.width}x{header.height} pixels can't be "
            "decoded: it is truncated, damaged, or of a kind that OpenCV does not read"
        )
    # The decoder may read another size than the header that was checked.
    limits.check_pixels(*image.shape[:2])
    return np.asarray(image[..., None] if grey else image, np.uint8)


def to_grey(image: U8) -> U8:
    """BGR (height, width, 3) to grey (height, width, 1)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], np.uint8)


def from_raw(
    data: bytes, height: int, width: int, channel_order: ChannelOrder, limits: ImageLimits
) -> U8:
    """Turns uint8 pixels, row-major HWC, into BGR (height, width, 3). BGR is not copied.

    Raises ImageEmpty, ImageTooLarge, or ImageShapeMismatch if the sizes disagree.
    """
    limits.check_bytes(len(data))
    limits.check_pixels(height, width)
    channels = 1 if channel_order is ChannelOrder.GRAY else 3
    if height * width * channels != len(data):
        raise ImageShapeMismatch(
            f"{height} x {width} pixels of {channel_order} are {height * width * channels} "
            f"bytes, but {len(data)} came: send height * width * channels bytes, rows first"
        )
    pixels = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    if channel_order is ChannelOrder.BGR:
        return pixels
    code = cv2.COLOR_RGB2BGR if channel_order is ChannelOrder.RGB else cv2.COLOR_GRAY2BGR
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
