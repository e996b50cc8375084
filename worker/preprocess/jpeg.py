"""Decodes JPEG by libjpeg-turbo, which tells where a file is damaged. Pure.

OpenCV decodes with the same library and gives the same pixels, but lets it write its warnings to
stderr and goes on with grey where the data ended.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from worker.arrays import U8
from worker.preprocess.image_header import JPEG_FRAMES, jpeg_frame, jpeg_segments
from yolopool.errors import ImageNotDecodable

_APP0, _APP1, _APP14, _SOS, _EOI = 0xE0, 0xE1, 0xEE, 0xDA, 0xD9
_COEFFICIENTS = 64
# More than encoders write. Each takes the time of the whole picture, however few bytes it has.
_MAX_SCANS = 100
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ORIENTATION, _TIFF_VERSION = 274, 42
# ITU-R BT.601, of 2 ** 14.
_GREY_WEIGHTS = np.array((4899, 9617, 1868), np.int32)
# In what simplejpeg says of samplings that it does not know.
_SAMPLING = "subsampling"
# EXIF 2.3, tag 0x0112: how the stored pixels are turned to stand upright.
_UPRIGHT: dict[int, Callable[[U8], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode_jpeg(encoded: bytes, grey: bool = False) -> tuple[U8, str]:
    """The pixels, uint8 BGR (height, width, 3) or `grey` (height, width, 1), upright; and what is
    damaged, empty if nothing is.

    Raises ImageNotDecodable if there is no picture at all.
    """
    _check_scans(encoded)
    components = jpeg_frame(encoded) + 7
    is_cmyk = encoded[components : components + 1] == b"\x04"
    colours = "CMYK" if is_cmyk else "GRAY" if grey else "BGR"
    try:
        pixels, damage = simplejpeg.decode_jpeg(encoded, colours, strict=True), ""
    except ValueError as error:
        pixels, damage = _tolerant(encoded, colours, str(error))
    if is_cmyk:
        pixels = _of_cmyk(pixels, grey)
    turn = _UPRIGHT.get(orientation(encoded))
    upright = np.asarray(pixels if turn is None else turn(pixels), np.uint8)
    return upright.reshape(*upright.shape[:2], -1), damage


def _check_scans(encoded: bytes) -> None:
    """Raises ImageNotDecodable for too many. A file whose first scan has it all has no other."""
    frame, scans = jpeg_frame(encoded), 0
    components = b"" if encoded[frame - 1] in _PROGRESSIVE else encoded[frame + 7 : frame + 8]
    try:
        for marker, at in jpeg_segments(encoded):
            if marker == _SOS:
                scans += 1
                if scans == 1 and encoded[at + 2 : at + 3] == components:
                    return
    except struct.error:
        pass  # it ends within a segment, which the decoder tells
    if scans > _MAX_SCANS:
        raise ImageNotDecodable(f"it has more than {_MAX_SCANS} scans: save it again")


def orientation(encoded: bytes) -> int:
    """1 to 8 by the first EXIF segment, as OpenCV reads it; 1 if there is none."""
    try:
        for marker, at in jpeg_segments(encoded):
            if marker == _SOS:
                break
            if marker == _APP1 and encoded[at + 2 : at + 8] == b"Exif\0\0":
                size = struct.unpack_from(">H", encoded, at)[0]
                return _exif_orientation(encoded[at + 8 : at + size])
    except (struct.error, IndexError):
        pass
    return 1


def _exif_orientation(exif: bytes) -> int:
    """As OpenCV: all but II is big-endian, and the tag's type is not asked. Raises struct.error."""
    order = "<" if exif[:2] == b"II" else ">"
    version, directory = struct.unpack_from(order + "HI", exif, 2)
    if version != _TIFF_VERSION:
        return 1
    (count,) = struct.unpack_from(order + "H", exif, directory)
    for number in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHIH", exif, directory + 2 + 12 * number)
        if tag == _ORIENTATION:
            return int(value)
    return 1


def _tolerant(encoded: bytes, colours: str, damage: str) -> tuple[U8, str]:
    """Decodes a file of which the decoder said `damage`: what it says once, it says of the first
    fault alone, so that harmless ones are mended to hear of others.
    """
    mended = _mended(encoded)
    for whole in dict.fromkeys((mended, _unpadded(mended))):
        if whole != encoded:
            try:
                return simplejpeg.decode_jpeg(whole, colours, strict=True), ""
            except ValueError as error:
                damage = str(error) if whole is mended else damage
    try:
        if _SAMPLING in damage and colours != "CMYK":
            return _by_pillow(encoded, colours == "GRAY"), ""
        return simplejpeg.decode_jpeg(mended, colours, strict=False), damage
    except Exception as error:  # pillow's errors of damaged files are of all kinds
        raise ImageNotDecodable(f"{error}: send the whole file") from error


def _by_pillow(encoded: bytes, grey: bool) -> U8:
    """For the rare samplings of colours that libjpeg reads and its simpler interface does not. Only
    an early end is told.
    """
    with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as picture:
        if grey:
            picture.draft("L", None)  # libjpeg's own grey
        pixels = np.atleast_3d(np.asarray(picture.convert("L" if grey else "RGB")))
    return np.ascontiguousarray(pixels[..., ::-1])


def _mended(encoded: bytes) -> bytes:
    """The file with the end marker that it lacks, if its picture is whole, and without faults of
    its header that say nothing of the picture: an unknown JFIF version or Adobe transform, and the
    scan parameters of a file that is not progressive.
    """
    mended, seen = bytearray(encoded), set()
    try:
        components = encoded[jpeg_frame(encoded) + 7]
        for marker, at in jpeg_segments(encoded):
            seen.add(marker)
            if marker == _APP0 and encoded[at + 2 : at + 7] == b"JFIF\0":
                mended[at + 7] = 1
            elif marker == _APP14 and encoded[at + 2 : at + 7] == b"Adobe":
                if encoded[at + 13] > 2:
                    mended[at + 13] = 2 if components == 4 else 1
            elif marker == _SOS and not seen & _PROGRESSIVE:
                last = at + 3 + 2 * encoded[at + 2]
                mended[last : last + 3] = bytes((0, _COEFFICIENTS - 1, 0))
        if _EOI not in seen and _is_complete(bytes(mended)):
            mended += bytes((0xFF, _EOI))
    except (struct.error, IndexError, ValueError):
        return encoded
    return bytes(mended)


def _unpadded(encoded: bytes) -> bytes:
    """Without the zeros before the end marker, with which cameras fill their buffers. A picture of
    which zeros are the damage ends too early without them.
    """
    end = encoded.rfind(bytes((0xFF, _EOI)))
    return encoded[: max(0, end)].rstrip(b"\0") + bytes((0xFF, _EOI)) if end >= 0 else encoded


def _is_complete(encoded: bytes) -> bool:
    """Whether the scans bring all coefficients of all components to their last bit. A progressive
    file has several, and others may have one for each component.
    """
    components, missing_bits = b"", dict[tuple[int, int], int]()
    for marker, at in jpeg_segments(encoded):
        if marker in JPEG_FRAMES:
            components = encoded[at + 8 : at + 8 + 3 * encoded[at + 7] : 3]
        elif marker == _SOS:
            end = at + 3 + 2 * encoded[at + 2]
            first, last, bits = encoded[end : end + 3]
            for component in encoded[at + 3 : end : 2]:
                for coefficient in range(first, last + 1):
                    missing_bits[component, coefficient] = bits & 15
    return all(
        missing_bits.get((component, coefficient)) == 0
        for component in components
        for coefficient in range(_COEFFICIENTS)
    )


def _of_cmyk(cmyk: U8, grey: bool) -> U8:
    """By OpenCV's formulas, without a colour profile."""
    black = cmyk[..., 3:].astype(np.int32)
    rgb = black - ((255 - cmyk[..., :3].astype(np.int32)) * black >> 8)
    if grey:
        return np.asarray((rgb @ _GREY_WEIGHTS + (1 << 13) >> 14)[..., None], np.uint8)
    return np.ascontiguousarray(rgb[..., ::-1], np.uint8)
