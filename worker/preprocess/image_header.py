"""Reads the size of an encoded image from its header, so that refusing it costs no memory.

Pure. JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF and HEIC, by their public specifications.
"""

import itertools
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.preprocess.foreign_bytes import describe
from yolopool.errors import ImageNotDecodable

# ITU-T T.81 table B.1: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Not what is no marker (FF 00), and not those without a length: TEM, RST0..RST7, SOI.
_JPEG_MARKER = re.compile(rb"\xff[^\xff\x00\x01\xd0-\xd8]", re.DOTALL)
_JPEG_END = 0xD9
# The most segments, boxes or tags that are looked at: no file has so many, and each takes time.
MAX_PARTS = 10_000
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)
_TIFF_KIND = 254
_TIFF_OFFSETS = (273, 324)
_TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}
# Bytes of one value, by its type.
_TIFF_BYTES = {
    **dict.fromkeys((1, 2, 6, 7), 1), **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4), **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}  # fmt: skip
# As many tiles of 32 x 32 pixels have 100 megapixels.
_MAX_TIFF_PARTS = 100_000


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
    name = format_of(encoded)
    if name is None:
        raise ImageNotDecodable(describe(encoded))
    try:
        width, height = _SIZES[name](encoded)
    except (struct.error, IndexError, OverflowError) as error:
        raise ImageNotDecodable(
            f"the image ends within its {name} header: send the whole file"
        ) from error
    if width < 1 or height < 1:
        raise ImageNotDecodable(f"the {name} header says {width}x{height} pixels: check the file")
    return ImageHeader(name, width, height)


def format_of(encoded: bytes) -> str | None:
    """The name of the format, by the first bytes; None if it is not read here."""
    for magics, name in _MAGICS:
        if encoded.startswith(magics):
            return name
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WebP"
    if encoded[4:8] == b"ftyp":
        end = min(int.from_bytes(encoded[:4]), 256)
        brands = {encoded[at : at + 4] for at in (8, *range(16, end, 4))}
        return next((name for name, known in _BRANDS if brands & known), None)
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of a JPEG that has a length, and where that is; and the marker of its end, if
    there is one.

    Raises struct.error if the data ends within a segment, and ImageNotDecodable for too many.
    """
    at = 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return
        marker, at = data[found.end() - 1], found.end()
        yield marker, at
        if marker == _JPEG_END:
            return
        at += struct.unpack_from(">H", data, at)[0]
    raise ImageNotDecodable(f"the JPEG has more than {MAX_PARTS} segments: save it again")


def jpeg_frame(data: bytes) -> int:
    """Where the first frame header of a JPEG has its length. Raises as `jpeg_segments`, and
    IndexError if there is none.
    """
    for marker, at in jpeg_segments(data):
        if marker in JPEG_FRAMES:
            return at
    raise IndexError


def _jpeg(data: bytes) -> tuple[int, int]:
    height, width = struct.unpack_from(">HH", data, jpeg_frame(data) + 3)
    return width, height


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
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


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int | None, int, int]]:
    """Of each entry in the first directory of a TIFF: tag, value if it is a whole number, how many
    values it has, and their bytes. Raises struct.error if the data ends before the directory.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    entry_bytes, value_at, counts = (20, 12, "Q") if big else (12, 8, "I")
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    first = at + (8 if big else 2)
    last = min(first + min(count, MAX_PARTS) * entry_bytes, len(data))
    for entry in range(first, last, entry_bytes):
        tag, kind, values = struct.unpack_from(order + "HH" + counts, data, entry)
        value = None
        if kind in _TIFF_INTEGERS:
            value = struct.unpack_from(order + _TIFF_INTEGERS[kind], data, entry + value_at)[0]
        yield tag, value, values, values * _TIFF_BYTES.get(kind, 0)


def _tiff(data: bytes) -> tuple[int, int]:
    # A tag may occur twice. The larger value counts, whichever one the decoder takes.
    width = height = tag_bytes = 0
    for tag, value, values, value_bytes in _tiff_entries(data):
        tag_bytes += value_bytes
        if tag in _TIFF_OFFSETS and values > _MAX_TIFF_PARTS:
            raise ImageNotDecodable(
                f"the TIFF has {values} strips or tiles, and at most {_MAX_TIFF_PARTS} are read: "
                "save it with larger ones"
            )
        if tag in _TIFF_WIDTHS:
            width = max(width, value or 0)
        elif tag in _TIFF_HEIGHTS:
            height = max(height, value or 0)
        elif tag == _TIFF_KIND and value and value & 1:
            raise ImageNotDecodable(
                "the first picture of this TIFF is a preview, as in raw photos of cameras: develop "
                "the photo, and send it as JPEG or PNG"
            )
    # Values that lie over each other, each of which a decoder copies, could take all memory.
    if tag_bytes > len(data):
        raise ImageNotDecodable(
            f"the tags of the TIFF take {tag_bytes} bytes, and the file has {len(data)}: save it "
            "again"
        )
    return width, height


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _boxes(data: bytes) -> tuple[int, int]:
    """The largest size that the file gives for one of its images, thumbnails and tiles included."""
    width = height = 0
    for found in itertools.islice(re.finditer(b"ispe", data), MAX_PARTS):
        one = struct.unpack_from(">II", data, found.end() + 4)
        width, height = max((width, height), one, key=lambda size: size[0] * size[1])
    if not width:
        raise IndexError
    return width, height


_MAGICS = (
    ((b"\xff\xd8\xff",), "JPEG"),
    ((b"\x89PNG\r\n\x1a\n",), "PNG"),
    ((b"BM",), "BMP"),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
    ((b"GIF87a", b"GIF89a"), "GIF"),
)
# ISO/IEC 23008-12: the brands of a file say who can read it.
_BRANDS = (
    ("AVIF", frozenset({b"avif", b"avis"})),
    ("HEIC", frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1"})),
)
_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "BMP": _bmp,
    "TIFF": _tiff,
    "GIF": _gif,
    "AVIF": _boxes,
    "HEIC": _boxes,
}
