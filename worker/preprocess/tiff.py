"""Decodes TIFF as the model library does. Pure.

OpenCV reads most TIFF files by a function of libtiff that leaves out what it can't read, so that
the parts of a file, its strips or tiles, are checked first.
"""

import io
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from worker.arrays import U8
from worker.preprocess.file_formats import by_opencv
from yolopool.errors import ImageNotDecodable

# Tags: where strips, and tiles, begin, and how many bytes they have.
_PARTS = ((273, 279), (324, 325))
_COMPRESSION, _JPEG_TABLES = 259, 347
_JPEG, _DEFLATE, _UNCOMPRESSED = 7, (8, 32946), 1
# More than a pixel of any kind has: a part that unpacks to more is not looked at to its end.
_MOST_BYTES_PER_PIXEL = 32
_CHUNK_BYTES = 1024**2


def decode_tiff(encoded: bytes, most_pixels: int) -> U8:
    """The first page as uint8 BGR (height, width, 3), of 16 bits the high byte.

    `most_pixels` is what the header says of the picture or a tile. Raises ImageNotDecodable, also
    for a part that is damaged.
    """
    _check(encoded, most_pixels)
    image = by_opencv(encoded, cv2.IMREAD_UNCHANGED)
    if image.ndim == 2 or image.dtype not in (np.uint8, np.uint16):
        image = by_opencv(encoded)
    image = image[..., :3]
    return np.ascontiguousarray(image >> 8 if image.dtype == np.uint16 else image, np.uint8)


def _check(encoded: bytes, most_pixels: int) -> None:
    try:
        with Image.open(io.BytesIO(encoded), formats=("TIFF",)) as picture:
            _check_parts(encoded, picture, most_pixels)
    except (UnidentifiedImageError, KeyError, SyntaxError, NotImplementedError, ImportError):
        return  # of a kind that pillow does not read
    except Exception as error:  # pillow's errors of damaged files are of all kinds
        raise ImageNotDecodable(f"a part of it is damaged ({error}): send it again") from error


def _check_parts(encoded: bytes, picture: Any, most_pixels: int) -> None:
    """Raises OSError, ValueError or zlib.error for one that is damaged or missing."""
    tags = picture.tag_v2
    compression, tables = tags.get(_COMPRESSION, _UNCOMPRESSED), tags.get(_JPEG_TABLES)
    parts = _parts(encoded, tags)
    if compression in _DEFLATE:
        _inflate(parts, most_pixels * _MOST_BYTES_PER_PIXEL)
    elif compression == _JPEG and tables:
        _decode_jpegs(parts, tables, most_pixels)
    elif compression != _UNCOMPRESSED:
        picture.load()


def _parts(encoded: bytes, tags: Any) -> list[memoryview]:
    data, parts = memoryview(encoded), []
    for offsets, sizes in _PARTS:
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False):
            if offset + size > len(data):
                raise ValueError("it ends within its picture")
            parts.append(data[offset : offset + size])
    # Parts that lie over each other could keep this check busy for hours.
    return parts if sum(map(len, parts)) <= len(data) else []


def _inflate(parts: Sequence[memoryview], most_bytes: int) -> None:
    """Unpacks parts for their checksums, which libtiff does not look at; to so many bytes."""
    for part in parts:
        stream, rest = zlib.decompressobj(), bytes(part)
        while rest and not stream.eof and most_bytes > 0:
            most_bytes -= len(stream.decompress(rest, _CHUNK_BYTES))
            rest = stream.unconsumed_tail
        if not stream.eof and most_bytes > 0:
            raise ValueError("a strip or tile ends too early")


def _decode_jpegs(parts: Sequence[memoryview], tables: bytes, most_pixels: int) -> None:
    """Decodes parts for what libjpeg says of damage; of four times as many pixels at most, which is
    what tiles can take that lie over the border.
    """
    left = 4 * most_pixels
    for part in parts:
        encoded = tables[:-2] + part[2:]  # the tables end with a marker, and the part begins so
        height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
        left -= height * width
        if left < 0:
            raise ValueError("its parts are larger than the picture")
        simplejpeg.decode_jpeg(encoded, "GRAY")
