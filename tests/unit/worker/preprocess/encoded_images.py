"""One picture, in every format, depth and compression that is read."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from worker.arrays import U8


def picture(height: int = 64, width: int = 96) -> U8:
    """Smooth RGB noise, so that lossy formats keep it."""
    small = np.random.default_rng(7).integers(0, 255, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_opencv(encoded: bytes) -> U8:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def _grey_png(bits: int) -> bytes:
    """A grey PNG of so many bits, which pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    levels = np.right_shift(picture()[..., 0], np.uint8(8 - bits))
    height, width = levels.shape
    flat = np.unpackbits(levels[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in flat)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


RGB = Image.fromarray(picture())
BGR = picture()[..., ::-1]
RGBA = Image.fromarray(np.dstack([picture(), np.full((64, 96), 7, np.uint8)]))
DEEP = BGR.astype(np.uint16) * 256 + 77
OTHER = Image.fromarray(255 - picture())

LOSSLESS = {
    "png": encode(RGB, "PNG"),
    "png rgba": encode(RGBA, "PNG"),
    "png 16 bit": cv2.imencode(".png", DEEP)[1].tobytes(),
    "png animated": encode(RGB, "PNG", save_all=True, append_images=[OTHER]),
    "webp": encode(RGB, "WEBP", lossless=True),
    "webp rgba": encode(RGBA, "WEBP", lossless=True, exact=True),
    "webp animated": encode(RGB, "WEBP", save_all=True, append_images=[OTHER], lossless=True),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff two pages": encode(RGB, "TIFF", save_all=True, append_images=[OTHER]),
    "tiff lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
    "tiff deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "tiff packbits": encode(RGB, "TIFF", compression="packbits"),
    "tiff big": encode(RGB, "TIFF", big_tiff=True),
    "tiff 16 bit": cv2.imencode(".tiff", DEEP)[1].tobytes(),
    "bmp rgba": encode(RGBA, "BMP"),
}
LOSSY = {
    "jpeg": encode(RGB, "JPEG", quality=95),
    "jpeg progressive": encode(RGB, "JPEG", quality=95, progressive=True),
    "jpeg with a thumbnail": encode(RGB, "JPEG", quality=95, comment=b"\xff\xd9\xff\xc0\xff"),
    "jpeg cmyk": encode(RGB.convert("CMYK"), "JPEG", quality=95),
    "jpeg of two pictures": encode(RGB, "MPO", quality=95, save_all=True, append_images=[OTHER]),
    "webp lossy": encode(RGB, "WEBP", quality=95),
    "tiff jpeg": encode(RGB, "TIFF", compression="jpeg"),
    "jpeg 4:4:4": encode(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg 4:2:2": encode(RGB, "JPEG", quality=95, subsampling=1),
    "jpeg with restarts": encode(RGB, "JPEG", quality=95, restart_marker_blocks=2),
    "avif": encode(RGB, "AVIF", quality=95),
    "avif rgba": encode(RGBA, "AVIF", quality=95),
    "avif animated": encode(RGB, "AVIF", quality=95, save_all=True, append_images=[OTHER]),
}
GREY = {
    "jpeg grey": encode(RGB.convert("L"), "JPEG", quality=95),
    "png grey": encode(RGB.convert("L"), "PNG"),
    "png grey alpha": encode(RGB.convert("LA"), "PNG"),
    "png 2 bit grey": _grey_png(2),
    "png 16 bit grey": cv2.imencode(".png", DEEP[..., 0])[1].tobytes(),
    "png 1 bit": encode(RGB.convert("1"), "PNG"),
    "bmp 1 bit": encode(RGB.convert("1"), "BMP"),
    "bmp grey": encode(RGB.convert("L"), "BMP"),
    "tiff grey": encode(RGB.convert("L"), "TIFF"),
    "tiff fax": encode(RGB.convert("1"), "TIFF", compression="group4"),
    "tiff 16 bit grey": cv2.imencode(".tiff", DEEP[..., 0])[1].tobytes(),
    "webp grey": encode(RGB.convert("L"), "WEBP", lossless=True),
    "gif grey": encode(RGB.convert("L"), "GIF"),
}
REST = {
    "png 16 bit rgba": cv2.imencode(".png", np.dstack([DEEP, DEEP[..., 0]]))[1].tobytes(),
    "png palette": encode(RGB.convert("P"), "PNG"),
    "png palette rgba": encode(RGBA.quantize(64), "PNG"),
    "bmp palette": encode(RGB.convert("P"), "BMP"),
    "tiff palette": encode(RGB.convert("P"), "TIFF"),
    "tiff cmyk": encode(RGB.convert("CMYK"), "TIFF"),
    "tiff rgba": encode(RGBA, "TIFF"),
    "heic": (Path(__file__).parent / "picture.heic").read_bytes(),
    "gif": encode(RGB.quantize(64), "GIF"),
    "gif transparent": encode(RGBA.quantize(64), "GIF"),
    "gif animated": encode(RGB.quantize(64), "GIF", save_all=True, append_images=[OTHER]),
}
ALL = {**LOSSLESS, **LOSSY, **GREY, **REST}
