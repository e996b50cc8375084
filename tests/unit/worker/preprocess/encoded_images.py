"""One picture, in every format, depth and compression that is read."""

import io
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
}
LOSSY = {
    "jpeg": encode(RGB, "JPEG", quality=95),
    "jpeg progressive": encode(RGB, "JPEG", quality=95, progressive=True),
    "jpeg with a thumbnail": encode(RGB, "JPEG", quality=95, comment=b"\xff\xd9\xff\xc0\xff"),
    "jpeg cmyk": encode(RGB.convert("CMYK"), "JPEG", quality=95),
    "jpeg of two pictures": encode(RGB, "MPO", quality=95, save_all=True, append_images=[OTHER]),
    "webp lossy": encode(RGB, "WEBP", quality=95),
    "tiff jpeg": encode(RGB, "TIFF", compression="jpeg"),
}
GREY = {
    "jpeg grey": encode(RGB.convert("L"), "JPEG", quality=95),
    "png grey": encode(RGB.convert("L"), "PNG"),
    "png grey alpha": encode(RGB.convert("LA"), "PNG"),
    "png 16 bit grey": cv2.imencode(".png", DEEP[..., 0])[1].tobytes(),
    "png 1 bit": encode(RGB.convert("1"), "PNG"),
    "bmp 1 bit": encode(RGB.convert("1"), "BMP"),
    "bmp grey": encode(RGB.convert("L"), "BMP"),
    "tiff grey": encode(RGB.convert("L"), "TIFF"),
    "tiff fax": encode(RGB.convert("1"), "TIFF", compression="group4"),
}
REST = {
    "tiff 16 bit": cv2.imencode(".tiff", DEEP)[1].tobytes(),
    "png palette": encode(RGB.convert("P"), "PNG"),
    "bmp palette": encode(RGB.convert("P"), "BMP"),
    "tiff palette": encode(RGB.convert("P"), "TIFF"),
    "tiff cmyk": encode(RGB.convert("CMYK"), "TIFF"),
    "tiff rgba": encode(RGBA, "TIFF"),
}
ALL = {**LOSSLESS, **LOSSY, **GREY, **REST}
