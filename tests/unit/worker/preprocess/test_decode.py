"""Pixels against OpenCV itself, and every kind of bad image."""

import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.matrix import examples
from tests.unit.worker.preprocess.encoded_images import (
    ALL,
    BGR,
    GREY,
    LOSSLESS,
    LOSSY,
    RGB,
    by_opencv,
    encode,
    picture,
)
from worker.arrays import U8
from worker.preprocess import decode
from worker.preprocess.decode import ChannelOrder, ImageLimits
from yolopool.errors import (
    ImageEmpty,
    ImageNotDecodable,
    ImageShapeMismatch,
    ImageTooLarge,
    InvalidArgument,
)

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=4_000_000)
# By this call OpenCV does not read the first ones, and rounds the last one elsewhere.
UNLIKE_OPENCV = ("avif", "heic", "gif", "tiff 16 bit")
AS_OPENCV = {name: data for name, data in ALL.items() if not name.startswith(UNLIKE_OPENCV)}


def pixels(encoded: bytes) -> U8:
    """Of a picture that is not damaged."""
    image = decode.decode(encoded, LIMITS)
    assert not image.damage
    return image.pixels


@pytest.mark.parametrize("encoded", AS_OPENCV.values(), ids=AS_OPENCV.keys())
def test_decodes_as_opencv(encoded: bytes) -> None:
    image = pixels(encoded)
    assert image.shape == (64, 96, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, by_opencv(encoded))


@pytest.mark.parametrize("encoded", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_keeps_lossless_pixels(encoded: bytes) -> None:
    """Alpha is dropped, 16 bits lose their low byte, the first frame or page counts."""
    np.testing.assert_array_equal(pixels(encoded), BGR)


@pytest.mark.parametrize("encoded", LOSSY.values(), ids=LOSSY.keys())
def test_keeps_lossy_pixels_nearly(encoded: bytes) -> None:
    image = pixels(encoded)
    assert np.abs(image.astype(int) - BGR).mean() < 3


@pytest.mark.parametrize("encoded", GREY.values(), ids=GREY.keys())
def test_grey_becomes_three_equal_channels(encoded: bytes) -> None:
    image = pixels(encoded)
    np.testing.assert_array_equal(image[..., 0], image[..., 1])
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


# EXIF 2.3, tag 0x0112: how the stored pixels are turned to stand upright.
UPRIGHT: dict[int, Callable[[U8], U8]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_applies_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95, "lossless": True} if kind in ("JPEG", "WEBP") else {}
    image = pixels(encode(RGB, kind, exif=exif, **options))
    plain = pixels(encode(RGB, kind, **options))
    np.testing.assert_array_equal(image, UPRIGHT[orientation](plain))


# --- What is refused -------------------------------------------------------------------------


def test_refuses_no_bytes() -> None:
    with pytest.raises(ImageEmpty):
        decode.decode(b"", LIMITS)


@pytest.mark.parametrize(
    "junk",
    [
        b"hello, this is text and no image",
        b"\0" * 100,
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\xff\xd8\xff",
        b"BM",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\0\0",
        b"GIF89a",
        b"\0\0\0\x18ftypavif\0\0\0\0",
        encode(RGB, "JPEG2000"),
        cv2.imencode(".tiff", picture().astype(np.float32))[1].tobytes(),
    ],
    ids=[
        "text",
        "zeros",
        "wav",
        "jpeg",
        "bmp",
        "tiff",
        "tiff empty",
        "gif",
        "avif",
        "jp2",
        "tiff float",
    ],
)
def test_refuses_what_is_no_image_it_reads(junk: bytes) -> None:
    with pytest.raises(ImageNotDecodable):
        decode.decode(junk, LIMITS)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    "name",
    [
        "jpeg", "jpeg progressive", "png", "png 16 bit", "webp", "webp lossy", "bmp", "tiff",
        "tiff lzw", "tiff deflate", "tiff packbits", "tiff jpeg", "avif", "heic", "gif",
    ],
)  # fmt: skip
def test_refuses_images_cut_short(name: str, kept: float) -> None:
    encoded = ALL[name]
    with pytest.raises(ImageNotDecodable):
        decode.decode(encoded[: int(len(encoded) * kept)], LIMITS)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header alone is large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def patched(encoded: bytes, at: int, form: str, *values: int) -> bytes:
    changed = bytearray(encoded)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def tiff_with_tiles(side: int) -> bytes:
    """A TIFF of 16x16 pixels that says its one tile has side x side."""
    entries = [(256, 16), (257, 16), (322, side), (323, side)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + b"\0" * 4


def jpeg_of_size(width: int, height: int) -> bytes:
    encoded = ALL["jpeg"]
    return patched(encoded, encoded.index(b"\xff\xc0") + 5, ">HH", height, width)


BOMBS = {
    "png": png_of_size(60_000, 60_000),
    "jpeg": jpeg_of_size(60_000, 60_000),
    "bmp": patched(ALL["bmp"], 18, "<ii", 60_000, -60_000),
    "webp lossless": patched(ALL["webp"], 21, "<I", 0x3FFF << 14 | 0x3FFF),
    "webp lossy": patched(ALL["webp lossy"], 26, "<HH", 16_383, 16_383),
    "webp animated": patched(ALL["webp animated"], 24, "<HBHB", 0xFFFF, 0, 0xFFFF, 0),
    "tiff tiles": tiff_with_tiles(60_000),
    "gif": patched(ALL["gif"], 6, "<HH", 60_000, 60_000),
    "avif": patched(ALL["avif"], ALL["avif"].index(b"ispe") + 8, ">II", 60_000, 60_000),
    "heic": patched(ALL["heic"], ALL["heic"].index(b"ispe") + 8, ">II", 60_000, 60_000),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_refuses_a_bomb_by_its_header(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    monkeypatch.setattr(Image, "open", never)
    with pytest.raises(ImageTooLarge, match="at most 4000000"):
        decode.decode(bomb, LIMITS)


def test_limits_are_inclusive() -> None:
    encoded = ALL["png"]
    decode.decode(encoded, ImageLimits(len(encoded), 64 * 96))
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode.decode(encoded, ImageLimits(len(encoded) - 1, 64 * 96))
    with pytest.raises(ImageTooLarge, match="96x64 pixels"):
        decode.decode(encoded, ImageLimits(len(encoded), 64 * 96 - 1))


@examples(1000)
@given(st.sampled_from(sorted(ALL)), st.randoms(use_true_random=False), st.booleans())
def test_no_damage_makes_another_error(name: str, random: Random, accept: bool) -> None:
    encoded = bytearray(ALL[name])
    for _ in range(random.choice((1, 2, 5, 20))):
        at = random.randrange(min(len(encoded), random.choice((64, 400, len(encoded)))))
        match random.randrange(4):
            case 0:
                encoded[at] = random.randrange(256)
            case 1:
                encoded[at] ^= 1 << random.randrange(8)
            case 2:
                encoded[at:at] = encoded[at : at + 20]
            case _:
                del encoded[at : at + min(random.choice((1, 50)), len(encoded) - 1)]
    try:
        image = decode.decode(bytes(encoded), LIMITS, accept)
    except InvalidArgument:
        return
    assert accept or not image.damage
    assert image.pixels.dtype == np.uint8


# --- Raw pixels ------------------------------------------------------------------------------


def test_raw_pixels() -> None:
    rgb = picture()
    np.testing.assert_array_equal(
        decode.from_raw(rgb.tobytes(), 64, 96, ChannelOrder.RGB, LIMITS), BGR
    )
    np.testing.assert_array_equal(
        decode.from_raw(rgb.tobytes(), 64, 96, ChannelOrder.BGR, LIMITS), rgb
    )
    grey = rgb[..., 0]
    np.testing.assert_array_equal(
        decode.from_raw(grey.tobytes(), 64, 96, ChannelOrder.GRAY, LIMITS),
        np.dstack([grey, grey, grey]),
    )


@pytest.mark.parametrize("order", ChannelOrder)
@pytest.mark.parametrize(("height", "width"), [(64, 95), (0, 96), (0, 0), (3, 2000)])
def test_raw_pixels_of_another_size(height: int, width: int, order: ChannelOrder) -> None:
    with pytest.raises(ImageShapeMismatch):
        decode.from_raw(picture().tobytes(), height, width, order, LIMITS)


def test_raw_pixels_have_limits() -> None:
    with pytest.raises(ImageEmpty):
        decode.from_raw(b"", 0, 0, ChannelOrder.BGR, LIMITS)
    with pytest.raises(ImageTooLarge):
        decode.from_raw(b"1", 2**31, 2**31, ChannelOrder.GRAY, LIMITS)
    with pytest.raises(ImageTooLarge):
        decode.from_raw(bytes(12), 2, 2, ChannelOrder.RGB, ImageLimits(100, 100, 11))
