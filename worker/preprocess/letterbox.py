"""Scales and pads an image into the model's input, and maps boxes back to original pixels.

Pure: numpy, OpenCV and PIL. Every step gives the same pixels and the same float32 numbers as the
model library's own `predict` on one image, which tests assert.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from worker.arrays import F32, U8
from yolopool.errors import ImageTooLarge, InvalidOption
from yolopool.vocabulary import ShapePolicy

# The longest side of a model's input in pixels, or its (height, width).
ImageSize = int | tuple[int, int]
PADDING = 114  # the grey of the border in ultralytics.data.augment.LetterBox


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in whole pixels; x_max and y_max are exclusive."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @property
    def offset(self) -> tuple[int, int]:
        """(x, y) of its top left corner in the whole image."""
        return self.x_min, self.y_min

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.y_max - self.y_min, self.x_max - self.x_min


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """What a model sees, uint8 HWC of BGR or grey, and the (height, width) it was made from.

    Gain and padding are not kept. `to_original` derives them from the two shapes, as the model
    library does; for thin images they differ from those the image was made with.
    """

    image: U8
    original_shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a letterboxed image comes from: `offset` is the (x, y) of its region in the whole
    image, and `image_shape` the (height, width) of the whole image.
    """

    letterboxed: Letterboxed
    offset: tuple[int, int]
    image_shape: tuple[int, int]


def region(box: tuple[float, float, float, float], image_shape: tuple[int, ...]) -> Region:
    """The whole pixels that a box (x_min, y_min, x_max, y_max) touches in an image (height, width).

    Raises InvalidOption for a box that is empty or not within the image.
    """
    height, width = image_shape[:2]
    x_min, y_min, x_max, y_max = box
    # Written so that NaN fails too.
    if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
        raise InvalidOption(
            f"region_of_interest ({x_min:g}, {y_min:g})..({x_max:g}, {y_max:g}) is empty or not "
            f"within the image of {width}x{height} pixels: give 0 <= min < max <= size"
        )
    return Region(math.floor(x_min), math.floor(y_min), math.ceil(x_max), math.ceil(y_max))


def crop(image: U8, part: Region) -> U8:
    """A view of a region of an image."""
    return image[part.y_min : part.y_max, part.x_min : part.x_max]


def sides_of(image_size: ImageSize, stride: int) -> tuple[int, int]:
    """The largest (height, width) of a letterboxed image, in pixels: whole strides, rounded up."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return math.ceil(height / stride) * stride, math.ceil(width / stride) * stride


def letterbox(
    image: U8, image_size: ImageSize, stride: int, policy: ShapePolicy, into: U8 | None = None
) -> Letterboxed:
    """Scales an image (HWC, BGR or grey) to fit image_size, up or down, and pads it to the policy's
    shape: all of image_size, or the smallest rectangle of whole strides.

    `stride` is the model's, at least 32. `into` is flat memory of at least sides_of() pixels: the
    result is its beginning, and nothing is allocated. Formula:
    ultralytics.data.augment.LetterBox(auto=policy is RECT, scaleup, center), one image.
    """
    high, wide = sides_of(image_size, stride)
    height, width, channels = image.shape
    ratio = min(high / height, wide / width)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_x, pad_y = wide - new_width, high - new_height
    if policy is ShapePolicy.RECT:
        pad_x, pad_y = pad_x % stride, pad_y % stride
    # An odd pixel of padding goes to the right and the bottom.
    left, top = round(pad_x / 2 - 0.1), round(pad_y / 2 - 0.1)
    shape = (new_height + pad_y, new_width + pad_x, channels)
    if into is None:
        into = np.empty(math.prod(shape), np.uint8)
    padded = into[: math.prod(shape)].reshape(shape)
    inner = padded[top : top + new_height, left : left + new_width]
    padded[:top] = padded[top + new_height :] = PADDING
    padded[top : top + new_height, :left] = PADDING
    padded[top : top + new_height, left + new_width :] = PADDING
    if (new_width, new_height) == (width, height):
        np.copyto(inner, image)
    else:
        if channels == 1:  # OpenCV gives such an image without its last dimension
            image, inner = image[..., 0], inner[..., 0]
        # With `dst`, OpenCV raises an error if it can't write in place. It never copies.
        cv2.resize(image, (new_width, new_height), dst=inner, interpolation=cv2.INTER_LINEAR)
    return Letterboxed(padded, (height, width))


def centre_crop(
    image: U8,
    image_size: ImageSize,
    stride: int,
    into: U8 | None = None,
    max_pixels: int | None = None,
) -> Letterboxed:
    """Scales an image (HWC, BGR) until its shorter side fills the square, and cuts out the middle:
    the input of a model that classifies. It has no padding. The parameters are `letterbox`'s.

    Formula: classify_transforms of ultralytics.data.augment, which is Resize and CenterCrop of
    torchvision on PIL images: antialiased bilinear, the longer side cut to whole pixels. Raises
    ImageTooLarge if a thin image would be scaled to more than `max_pixels` and the square's.
    """
    size = max(sides_of(image_size, stride))
    height, width = image.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if shorter != size:
        other = int(size * longer / shorter)
        # A one-pixel line within the limit grows by the square of the scale.
        if max_pixels is not None and size * other > max(max_pixels, size * size):
            raise ImageTooLarge(
                f"the image of {width}x{height} pixels is too thin to classify: scaled until its "
                f"shorter side has {size}, it has {size * other} pixels, at most {max_pixels} are "
                "taken; send its middle, by a region of interest"
            )
        scaled = (size, other) if width <= height else (other, size)
        # The filter treats all channels alike, so that BGR may pass for RGB.
        picture = Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR)
        image = np.asarray(picture, np.uint8)
    top = round((image.shape[0] - size) / 2)
    left = round((image.shape[1] - size) / 2)
    if into is None:
        into = np.empty(size * size * 3, np.uint8)
    cut = into[: size * size * 3].reshape(size, size, 3)
    np.copyto(cut, image[top : top + size, left : left + size])
    return Letterboxed(cut, (height, width))


def to_original(xyxy: F32, letterboxed: Letterboxed, offset: tuple[int, int] = (0, 0)) -> F32:
    """Maps boxes float32 (n, 4) from letterboxed to original pixels, clipped; a new array.

    `offset` is the (x, y) of the region that was letterboxed. Formula:
    ultralytics.utils.ops.scale_boxes and clip_boxes, in the same order of float32 operations.
    """
    corners = points_to_original(xyxy.reshape(-1, 2, 2), letterboxed, offset)
    return corners.reshape(-1, 4)


def points_to_original(
    points: F32, letterboxed: Letterboxed, offset: tuple[int, int] = (0, 0)
) -> F32:
    """Maps points float32 (..., 2) of x and y likewise: ultralytics.utils.ops.scale_coords."""
    height, width = letterboxed.original_shape
    padding, gain = _padding_and_gain(letterboxed)
    moved = (points - padding) / gain
    # In place, for x and y at once: np.clip costs a Python call for each.
    np.maximum(moved, 0, out=moved)
    np.minimum(moved, np.array((width, height), np.float32), out=moved)
    moved += np.array(offset, np.float32)
    return np.asarray(moved, np.float32)


def rotated_to_original(
    boxes: F32, letterboxed: Letterboxed, offset: tuple[int, int] = (0, 0)
) -> F32:
    """Maps rotated boxes float32 (n, 5) of centre x, y, width, height, angle, without clipping:
    scale_boxes(xywh=True). The angle stays: both sides scale alike, but for rounding.
    """
    padding, gain = _padding_and_gain(letterboxed)
    moved = boxes.copy()
    moved[:, :2] = (boxes[:, :2] - padding) / gain + np.array(offset, np.float32)
    moved[:, 2:4] = boxes[:, 2:4] / gain
    return moved


def _padding_and_gain(letterboxed: Letterboxed) -> tuple[F32, F32]:
    """To map to original pixels: the x and y to subtract, and then those to divide by."""
    height, width = letterboxed.original_shape
    new_height, new_width = letterboxed.image.shape[:2]
    gain = min(new_height / height, new_width / width)
    scaled_height, scaled_width = max(round(height * gain), 1), max(round(width * gain), 1)
    pad_x = round((new_width - scaled_width) / 2 - 0.1)
    pad_y = round((new_height - scaled_height) / 2 - 0.1)
    return (
        np.array((pad_x, pad_y), np.float32),
        np.array((scaled_width / width, scaled_height / height), np.float32),
    )
