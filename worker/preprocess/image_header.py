"""Reads the size of an encoded image from its header, so that refusing it costs no memory.

Pure. JPEG, PNG, WebP, BMP and TIFF, by their public specifications.
"""

import struct
from dataclasses import dataclass

from yolopool.errors import ImageNotDecodable

FORMATS = "JPEG, PNG, WebP, BMP or TIFF"
# ITU-T T.81 table B.1: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM, RST0..RST7, SOI.
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)
_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The name of the format, and the stored size in pixels, before orientation.

    If the tiles of a TIFF are larger than its image, this is the size of a tile, since the decoder
    allocates whole tiles.
    """

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_header(encoded: bytes) -> ImageHeader:
    """Reads format and size. Raises ImageNotDecodable for another format or a truncated header."""
    for magics, name, size_of in _READERS:
        if not encoded.startswith(magics):
            continue
        try:
            width, height = size_of(encoded)
        except (struct.error, IndexError, OverflowError) as error:
            raise ImageNotDecodable(
                f"the image ends within its {name} header: send the whole file"
            ) from error
        if width < 1 or height < 1:
            raise ImageNotDecodable(
                f"the {name} header says {width}x{height} pixels: check the file"
            )
        return ImageHeader(name, width, height)
    raise ImageNotDecodable(f"the bytes are not an image in a known format: send {FORMATS}")


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise IndexError
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker = data[at]
        at += 1
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        if marker and marker not in _JPEG_BARE:
            at += struct.unpack_from(">H", data, at)[0]


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if data[8:12] != b"WEBP":
        raise ImageNotDecodable(f"this RIFF file is not a WebP image: send {FORMATS}")
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        if len(data) < 30:
            raise IndexError
        return width, height
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # OS/2 core header
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # a negative height means that rows start at the top


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    entry_bytes, value_at = (20, 12) if big else (12, 8)
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    first = at + (8 if big else 2)
    # A tag may occur twice. The larger value counts, whichever one the decoder takes.
    width = height = 0
    for entry in range(first, min(first + count * entry_bytes, len(data)), entry_bytes):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind not in _TIFF_INTEGERS or tag not in _TIFF_WIDTHS + _TIFF_HEIGHTS:
            continue
        value = struct.unpack_from(order + _TIFF_INTEGERS[kind], data, entry + value_at)[0]
        if tag in _TIFF_WIDTHS:
            width = max(width, value)
        else:
            height = max(height, value)
    return width, height


_READERS = (
    ((b"\xff\xd8\xff",), "JPEG", _jpeg),
    ((b"\x89PNG\r\n\x1a\n",), "PNG", _png),
    ((b"RIFF",), "WebP", _webp),
    ((b"BM",), "BMP", _bmp),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF", _tiff),
)
