"""Decodes PNG, and the formats that OpenCV or pillow read, as the model library does. Pure."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from PIL import AvifImagePlugin, Image, ImageOps, UnidentifiedImageError

from worker.arrays import U8
from yolopool.errors import ImageNotDecodable, ImageTooLarge

# Sizes have limits of their own here, and images are decoded in parallel, each on one thread.
Image.MAX_IMAGE_PIXELS = None
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# Pillow warns of damage to tags that say nothing of the picture. Nothing is written to stderr.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
_PNG_SIGNATURE_BYTES = 8
_PNG_METADATA = frozenset(
    b"cHRM gAMA iCCP sRGB cICP mDCV cLLI sBIT tEXt zTXt iTXt hIST pHYs sPLT tIME oFFs sCAL".split()
)
_MAX_PNG_CHUNKS = 100_000
# The chunks that OpenCV needs, and those that it does not. Of these libpng may write to stderr.
_PNG_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"tRNS", b"bKGD", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"}
)


def by_opencv(encoded: bytes, flags: int = cv2.IMREAD_COLOR) -> U8:
    """Raises ImageNotDecodable."""
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ImageNotDecodable("it is truncated, damaged, or of a kind that OpenCV does not read")
    return np.asarray(image)


def png(encoded: bytes, flags: int = cv2.IMREAD_COLOR) -> U8:
    """Raises ImageNotDecodable, also for a damaged chunk: OpenCV reads on behind it."""
    return by_opencv(_checked_png(encoded), flags)


def _checked_png(encoded: bytes) -> bytes:
    """The file without the chunks that its picture does not need, each of the others unharmed."""
    data, at, kind = memoryview(encoded), _PNG_SIGNATURE_BYTES, b""
    kept = [data[:at]]
    while kind != b"IEND":
        if len(kept) > _MAX_PNG_CHUNKS:
            raise ImageNotDecodable(f"it has more than {_MAX_PNG_CHUNKS} chunks: save it again")
        try:
            size, kind = struct.unpack_from(">I4s", data, at)
            end = at + size + 12
            (checksum,) = struct.unpack_from(">I", data, end - 4)
        except struct.error as error:
            raise ImageNotDecodable("it ends before its last chunk: send the whole file") from error
        name = kind.decode("latin-1")
        # The checksum is of the kind too, so that no part of the picture passes for metadata.
        if kind not in _PNG_METADATA and zlib.crc32(data[at + 4 : end - 4]) != checksum:
            raise ImageNotDecodable(f"its chunk {name} at byte {at} is damaged: send it again")
        if name[:1].isupper() and kind not in _PNG_CHUNKS:
            raise ImageNotDecodable(f"it has a chunk of the kind {name}: save it again as PNG")
        kept.append(data[at:end] if kind in _PNG_CHUNKS else data[:0])
        at = end
    size = sum(map(len, kept))
    return encoded if size == len(encoded) else b"".join(kept)


def by_pillow(encoded: bytes, name: str, check_pixels: Callable[[int, int], None]) -> U8:
    """GIF, AVIF or HEIC: the first frame, upright, without alpha.

    Raises ImageNotDecodable, and what `check_pixels` raises for (height, width).
    """
    if name == "HEIC":
        _register_heic()
    try:
        with Image.open(io.BytesIO(encoded), formats=(_PILLOW_NAMES[name],)) as picture:
            check_pixels(picture.height, picture.width)
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except (UnidentifiedImageError, KeyError, ImportError) as error:
        why = f"this worker's pillow can't read {name}, or the file is damaged"
        raise ImageNotDecodable(f"{why}: save it as JPEG or PNG") from error
    except ImageTooLarge:
        raise
    except Exception as error:  # pillow's errors of damaged files are of all kinds
        raise ImageNotDecodable(f"it is truncated or damaged ({error})") from error
    return np.asarray(cv2.cvtColor(np.asarray(upright), cv2.COLOR_RGB2BGR), np.uint8)


_PILLOW_NAMES = {"GIF": "GIF", "AVIF": "AVIF", "HEIC": "HEIF"}


def _register_heic() -> None:
    try:
        from pi_heif import options, register_heif_opener
    except ImportError as error:
        raise ImageNotDecodable(
            "this worker does not read HEIC: save the image as JPEG, or install pi-heif there"
        ) from error
    options.DECODE_THREADS = 1
    register_heif_opener(thumbnails=False)
