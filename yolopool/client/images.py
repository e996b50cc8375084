"""Puts what a caller gives as an image into the request.

Files are sent as they are: the server decodes JPEG, PNG, WebP, BMP and TIFF.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from yolopool.errors import ImageEmpty, ImageShapeMismatch, InvalidOption
from yolopool.v1 import detection_pb2, types_pb2

ImageLike = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
Order = Literal["bgr", "rgb"]
_ORDERS = {"bgr": types_pb2.CHANNEL_ORDER_BGR, "rgb": types_pb2.CHANNEL_ORDER_RGB}


def put(
    image: ImageLike, channel_order: Order | None, request: detection_pb2.DetectRequest
) -> Image.Image | bytes:
    """Sets the request's image and returns the same image for drawing.

    image: a path, the bytes of an image file, a PIL image, or an array: uint8, (height, width,
    3) with its channel order given, or (height, width) for grey. Raises ImageEmpty,
    ImageShapeMismatch, InvalidOption, and OSError for a file that cannot be read.
    """
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    if isinstance(image, bytes | bytearray | memoryview):
        if not len(image):
            raise ImageEmpty("the image has no bytes: give the bytes of an image file")
        request.encoded = bytes(image)
        return request.encoded
    if isinstance(image, Image.Image):
        return _put_picture(image, request)
    if isinstance(image, np.ndarray):
        return _put_array(image, channel_order, request)
    raise InvalidOption(
        f"{type(image).__name__} is not an image: give a path, bytes, a PIL image or a numpy array"
    )


def _put_picture(picture: Image.Image, request: detection_pb2.DetectRequest) -> Image.Image:
    pixels = np.asarray(picture.convert("RGB"))
    _put_array(pixels, "rgb", request)
    # A PIL image is sent as it is: applying its EXIF orientation is up to the caller.
    return Image.fromarray(pixels)


def _put_array(
    pixels: npt.NDArray[Any], order: Order | None, request: detection_pb2.DetectRequest
) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise ImageShapeMismatch(f"pixels are {pixels.dtype}: give uint8, 0..255")
    if pixels.size == 0:
        raise ImageEmpty(f"the array of shape {pixels.shape} has no pixels")
    raw = request.raw
    if pixels.ndim == 2:
        raw.channel_order = types_pb2.CHANNEL_ORDER_GRAY
        picture = Image.fromarray(pixels).convert("RGB")
    elif pixels.ndim == 3 and pixels.shape[2] == 3:
        if order not in _ORDERS:
            raise InvalidOption(
                'an array needs its channel order: channel_order="bgr" (OpenCV) or "rgb" (PIL)'
            )
        raw.channel_order = _ORDERS[order]
        picture = Image.fromarray(pixels if order == "rgb" else pixels[:, :, ::-1])
    else:
        raise ImageShapeMismatch(
            f"shape {pixels.shape}: give (height, width, 3) or (height, width)"
        )
    raw.height, raw.width = pixels.shape[:2]
    raw.data = pixels.tobytes()
    return picture
