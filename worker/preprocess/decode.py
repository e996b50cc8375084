"""Decodes an image file, or takes raw pixels, into an array. Pure."""

import enum
from dataclasses import dataclass

import cv2
import numpy as np

from worker.arrays import U8
from worker.preprocess import file_formats
from worker.preprocess.image_header import read_header
from worker.preprocess.jpeg import decode_jpeg
from worker.preprocess.tiff import decode_tiff
from yolopool.errors import (
    ImageDamaged,
    ImageEmpty,
    ImageNotDecodable,
    ImageShapeMismatch,
    ImageTooLarge,
)
from yolopool.vocabulary import MAX_RAW_BYTES


class ChannelOrder(enum.StrEnum):
    """Order of the channels of raw pixels."""

    BGR = "bgr"
    RGB = "rgb"
    GRAY = "gray"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image accepted: bytes of a file, bytes of raw pixels, and pixels (width *
    height).
    """

    max_bytes: int
    max_pixels: int
    max_raw_bytes: int = MAX_RAW_BYTES

    def check_bytes(self, size: int) -> None:
        """Raises ImageEmpty or ImageTooLarge."""
        _check_size(size, self.max_bytes, "--max-image-bytes")

    def check_raw_bytes(self, size: int) -> None:
        """Raises ImageEmpty or ImageTooLarge."""
        _check_size(size, self.max_raw_bytes, "--max-raw-bytes")

    def check_pixels(self, height: int, width: int) -> None:
        """Raises ImageTooLarge."""
        if height * width > self.max_pixels:
            raise ImageTooLarge(
                f"the image has {width}x{height} pixels, at most {self.max_pixels} are accepted: "
                "send a smaller one or raise the worker's --max-image-pixels"
            )


def _check_size(size: int, limit: int, flag: str) -> None:
    if size == 0:
        raise ImageEmpty("the image has no bytes: send an encoded image or raw pixels")
    if size > limit:
        raise ImageTooLarge(
            f"the image has {size} bytes, at most {limit} are accepted: send a smaller one or "
            f"raise the worker's {flag}"
        )


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels, uint8 BGR (height, width, 3) or grey (height, width, 1), upright. `damage` says what
    of the file was damaged; empty if nothing was.
    """

    pixels: U8
    damage: str = ""


def decode(
    encoded: bytes, limits: ImageLimits, accept_damaged: bool = False, grey: bool = False
) -> DecodedImage:
    """Decodes an image file to what the model library's `predict` reads, for a model of colours or
    of `grey` images.

    The size is checked against the header before anything is decoded. Raises ImageEmpty,
    ImageTooLarge, ImageNotDecodable: no image, another format, or one that ends too early; and
    ImageDamaged, unless `accept_damaged`: then what can't be read is grey, or what the decoder
    made of it.
    """
    limits.check_bytes(len(encoded))
    header = read_header(encoded)
    limits.check_pixels(header.height, header.width)
    damage, flags = "", cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        match header.format:
            case "JPEG":
                pixels, damage = decode_jpeg(encoded, grey)
            case "PNG":
                pixels = file_formats.png(encoded, flags)
            case "TIFF":
                pixels = decode_tiff(encoded, header.pixels)
            case "GIF" | "AVIF" | "HEIC":
                pixels = file_formats.by_pillow(encoded, header.format, limits.check_pixels)
            case _:
                pixels = file_formats.by_opencv(encoded, flags)
    except ImageNotDecodable as error:
        what = f"the {header.format} image of {header.width}x{header.height} pixels"
        raise ImageNotDecodable(f"{what} can't be decoded: {error}") from error
    # The decoder may read another size than the header that was checked.
    limits.check_pixels(*pixels.shape[:2])
    if damage and not accept_damaged:
        raise ImageDamaged(
            f"the {header.format} image of {header.width}x{header.height} pixels is damaged "
            f"({damage}): send it again, or set accept_damaged to run what can be read of it"
        )
    pixels = np.atleast_3d(pixels)
    return DecodedImage(to_grey(pixels) if grey and pixels.shape[2] > 1 else pixels, damage)


def to_grey(image: U8) -> U8:
    """BGR (height, width, 3) to grey (height, width, 1)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], np.uint8)


def from_raw(
    data: bytes, height: int, width: int, channel_order: ChannelOrder, limits: ImageLimits
) -> U8:
    """Turns uint8 pixels, row-major HWC, into BGR (height, width, 3). BGR is not copied.

    Raises ImageEmpty, ImageTooLarge, or ImageShapeMismatch if the sizes disagree.
    """
    limits.check_raw_bytes(len(data))
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
