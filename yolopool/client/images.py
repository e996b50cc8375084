"""Puts what a caller gives as an image into the request, so that each way gives the same picture.

Files are sent as they are, and the server decodes them; so is the file of a PIL image that was not
read yet, if it is a JPEG. Other PIL images and arrays are sent as 8-bit pixels: upright, without
alpha, of deeper levels the high bits.
"""

import io
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from yolopool.errors import (
    ImageEmpty,
    ImageNotDecodable,
    ImageShapeMismatch,
    ImageTooLarge,
    InvalidOption,
)
from yolopool.v1 import detection_pb2, types_pb2
from yolopool.vocabulary import MAX_MESSAGE_BYTES, MAX_RAW_BYTES

ImageLike = str | Path | bytes | Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Order = Literal["bgr", "rgb"]
U8 = npt.NDArray[np.uint8]
HasImage = detection_pb2.DetectRequest | detection_pb2.StreamFrame
_ORDERS = {"bgr": types_pb2.CHANNEL_ORDER_BGR, "rgb": types_pb2.CHANNEL_ORDER_RGB}
_GREY_MODES = ("1", "L", "LA")
_ORIENTATION = 0x0112
# Text that is given where a path belongs.
_NO_PATHS = {
    ("http://", "https://", "rtsp://", "ftp://"): "a URL: fetch the image, and give its bytes",
    ("data:",): "a data URI: give base64.b64decode() of what is behind its comma",
    ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD"): "base64 text: give base64.b64decode() of it",
}
# Left in a message for everything but the image.
_ROOM_BYTES = 1024**2


def put(
    image: ImageLike,
    channel_order: Order | None,
    bit_depth: int | None,
    request: HasImage,
) -> Image.Image | bytes:
    """Sets the request's image and returns the same image for drawing.

    image: a path, the bytes of an image file, a PIL image, or an array: uint8 or uint16, (height,
    width) or (height, width, 1) for grey, (height, width, 3) or (height, width, 4) with its channel
    order given; alpha is dropped. `bit_depth` says how many bits of each level are used, if not
    all. Raises ImageEmpty, ImageShapeMismatch, ImageTooLarge, InvalidOption, ImageNotDecodable for
    a PIL image whose file is closed or damaged, and OSError for a file that cannot be read.
    """
    if isinstance(image, Image.Image):
        if bit_depth is None and (encoded := _unread_file(image)):
            return _put_file("the image", encoded, request)
        return _put_pixels(_pixels_of(image, bit_depth), "rgb", request)
    if isinstance(image, np.ndarray):
        return _put_pixels(_to_8_bits(image, bit_depth), channel_order, request)
    if bit_depth is not None:
        raise InvalidOption(
            "bit_depth is for arrays and PIL images: open the file by PIL.Image.open, or by "
            "cv2.imread with IMREAD_UNCHANGED, and give what it returns"
        )
    if isinstance(image, str | Path):
        image = _path_of(image).read_bytes()
    if isinstance(image, bytes | bytearray | memoryview):
        return _put_file("the image", bytes(image), request)
    raise InvalidOption(
        f"{type(image).__name__} is not an image: give a path, bytes, a PIL image or a numpy array"
    )


def to_rgb(picture: Image.Image) -> Image.Image:
    """A picture in RGB for drawing, upright, of 16-bit levels the high byte."""
    if picture.mode.startswith("I;16"):
        upright = np.asarray(_upright(picture))
        return Image.fromarray((upright >> 8).astype(np.uint8)).convert("RGB")
    return _upright(picture).convert("RGB")


def _unread_file(picture: Image.Image) -> bytes:
    """The file of a JPEG that was opened and not read yet; empty for all others. It has the same
    pixels in a tenth of the bytes, and tells damage, of which pillow says nothing.
    """
    file: Any = picture  # of PIL.ImageFile, if it has a format
    if picture.format != "JPEG" or not file.tile or file.fp is None or file.fp.closed:
        return b""
    in_file = Image.Exif()
    try:
        in_file.load(picture.info.get("exif", b""))
        is_turned = picture.getexif().get(_ORIENTATION, 1) != in_file.get(_ORIENTATION, 1)
    except (SyntaxError, ValueError, struct.error):
        is_turned = True
    # `draft` has it read at another size; CMYK is another picture to pillow.
    if is_turned or file.decoderconfig or picture.mode not in ("L", "RGB"):
        return b""
    place = file.fp.tell()
    file.fp.seek(0)
    encoded: bytes = file.fp.read()
    file.fp.seek(place)
    return encoded


def _upright(picture: Image.Image) -> Image.Image:
    try:
        picture.getexif()
    except (SyntaxError, ValueError, struct.error):
        return picture  # damaged EXIF turns nothing, as in a file
    return ImageOps.exif_transpose(picture)


def _path_of(image: str | Path) -> Path:
    for beginnings, what in _NO_PATHS.items():
        # A path may begin so too, if there is a file.
        if isinstance(image, str) and image.startswith(beginnings):
            if len(image) < 256 and Path(image).is_file():
                break
            raise InvalidOption(f"{image[:40]!r} is no path, but {what}")
    return Path(image)


def _put_file(what: str, encoded: bytes, request: HasImage) -> bytes:
    if not encoded:
        raise ImageEmpty("the image has no bytes: give the bytes of an image file")
    if len(encoded) > MAX_MESSAGE_BYTES - _ROOM_BYTES:
        raise ImageTooLarge(
            f"{what} has {len(encoded)} bytes, and a message carries {MAX_MESSAGE_BYTES}: save "
            "it smaller, as JPEG, or send a part of it"
        )
    request.encoded = encoded
    return encoded


def _pixels_of(picture: Image.Image, bit_depth: int | None) -> U8:
    """(height, width) of a grey picture, else RGB (height, width, 3)."""
    if not picture.width or not picture.height:
        raise ImageEmpty(f"the PIL image of {picture.width}x{picture.height} has no pixels")
    try:
        picture.load()
    except Exception as error:  # pillow's errors of damaged files are of all kinds
        raise ImageNotDecodable(
            f"the PIL image can't be read ({str(error) or 'its file is closed'}): give it before "
            "its file is closed, or give the path"
        ) from error
    picture = _upright(picture)
    if picture.mode.startswith("I;16"):
        return _to_8_bits(np.asarray(picture), bit_depth)
    if picture.mode in ("I", "F"):
        return _of_open_scale(picture, bit_depth)
    if bit_depth not in (None, 8):
        raise InvalidOption(
            f"bit_depth is {bit_depth}, and a PIL image of mode {picture.mode} has 8 bits: leave "
            "it out"
        )
    try:
        # Premultiplied colours are divided by their alpha first.
        picture = picture.convert({"RGBa": "RGBA", "La": "LA"}.get(picture.mode, picture.mode))
        if "transparency" in picture.info and picture.mode == "P":
            picture = picture.convert("RGBA")  # pillow warns of the direct way
        return np.asarray(picture.convert("L" if picture.mode in _GREY_MODES else "RGB"))
    except ValueError as error:
        raise InvalidOption(
            f"a PIL image of mode {picture.mode} can't be converted ({error}): convert it to RGB"
        ) from error


def _of_open_scale(picture: Image.Image, bit_depth: int | None) -> U8:
    """The levels of modes that do not say which of them is white."""
    if picture.mode == "F" or bit_depth is None:
        also = ", or give bit_depth=16 (or as many bits as are used)" * (picture.mode == "I")
        raise InvalidOption(
            f"a PIL image of mode {picture.mode} does not say which level is white: scale it to "
            f"0..255 and give it as mode L{also}"
        )
    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > 0xFFFF:
        raise ImageShapeMismatch(
            f"the levels are {levels.min()}..{levels.max()}, and 16 bits are 0..65535: scale them"
        )
    return _to_8_bits(levels.astype(np.uint16), bit_depth)


def _to_8_bits(levels: npt.NDArray[Any], bit_depth: int | None) -> U8:
    """The highest 8 of the bits that are used."""
    if levels.dtype.kind != "u" or levels.itemsize > 2:
        raise ImageShapeMismatch(
            f"pixels are {levels.dtype}: give uint8, 0..255, or uint16; of floats 0..1: "
            "(pixels * 255).astype(numpy.uint8)"
        )
    all_bits = 8 * levels.itemsize
    bits = all_bits if bit_depth is None else bit_depth
    if not 8 <= bits <= all_bits:
        raise InvalidOption(f"bit_depth is {bits}: give 8 to {all_bits} for {levels.dtype}")
    if bits < all_bits and levels.size and int(levels.max()) >> bits:
        raise ImageShapeMismatch(
            f"a pixel is {levels.max()}, and the largest of {bits} bits is {2**bits - 1}: give "
            "the bit_depth that is used"
        )
    return levels if all_bits == 8 else (levels >> (bits - 8)).astype(np.uint8)


def _put_pixels(pixels: U8, order: Order | None, request: HasImage) -> Image.Image:
    if pixels.size == 0:
        raise ImageEmpty(f"the array of shape {pixels.shape} has no pixels")
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):
        pixels = pixels[:, :, 0]  # of two channels the second is alpha
    if pixels.ndim == 2:
        raw_order = types_pb2.CHANNEL_ORDER_GRAY
        picture = Image.fromarray(pixels)
    elif pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        if order not in _ORDERS:
            raise InvalidOption(
                'an array needs its channel order: channel_order="bgr" (OpenCV) or "rgb" (PIL)'
            )
        pixels, raw_order = pixels[:, :, :3], _ORDERS[order]
        picture = Image.fromarray(pixels if order == "rgb" else pixels[:, :, ::-1])
    else:
        raise ImageShapeMismatch(
            f"shape {pixels.shape}: give (height, width) or (height, width, 1) of grey, (height, "
            "width, 3) or (height, width, 4) of colours; one image, and channels last"
        )
    if pixels.nbytes > MAX_RAW_BYTES:
        _put_file("the image as PNG", _png(picture), request)
        return picture
    raw = request.raw
    raw.channel_order = raw_order
    raw.height, raw.width = pixels.shape[:2]
    raw.data = pixels.tobytes()
    return picture


def _png(picture: Image.Image) -> bytes:
    """The same pixels in fewer bytes; the fastest compression."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
