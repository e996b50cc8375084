"""Pixels and boxes against OpenCV and the model library themselves, and every kind of bad image."""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

os.environ.setdefault("YOLO_OFFLINE", "1")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())

import torch
from ultralytics.data.augment import LetterBox
from ultralytics.utils.ops import scale_boxes

from worker.arrays import U8
from worker.preprocess import decode, letterbox
from worker.preprocess.decode import ChannelOrder, ImageLimits
from worker.preprocess.image_header import read_header
from yolopool.errors import (
    ImageEmpty,
    ImageNotDecodable,
    ImageShapeMismatch,
    ImageTooLarge,
    InvalidOption,
)
from yolopool.vocabulary import ShapePolicy

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=4_000_000)


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


@pytest.mark.parametrize("encoded", ALL.values(), ids=ALL.keys())
def test_decodes_as_opencv(encoded: bytes) -> None:
    image = decode.decode(encoded, LIMITS)
    assert image.shape == (64, 96, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, by_opencv(encoded))


@pytest.mark.parametrize("encoded", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_keeps_lossless_pixels(encoded: bytes) -> None:
    """Alpha is dropped, 16 bits lose their low byte, the first frame or page counts."""
    np.testing.assert_array_equal(decode.decode(encoded, LIMITS), BGR)


def test_a_deep_tiff_may_differ_by_one_level() -> None:
    """OpenCV reads it through libtiff's own reduction to 8 bits, which rounds elsewhere."""
    image = decode.decode(ALL["tiff 16 bit"], LIMITS)
    assert np.abs(image.astype(int) - BGR).max() <= 1


@pytest.mark.parametrize("encoded", LOSSY.values(), ids=LOSSY.keys())
def test_keeps_lossy_pixels_nearly(encoded: bytes) -> None:
    image = decode.decode(encoded, LIMITS)
    assert np.abs(image.astype(int) - BGR).mean() < 3


@pytest.mark.parametrize("encoded", GREY.values(), ids=GREY.keys())
def test_grey_becomes_three_equal_channels(encoded: bytes) -> None:
    image = decode.decode(encoded, LIMITS)
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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_applies_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 95, "lossless": True} if kind in ("JPEG", "WEBP") else {}
    image = decode.decode(encode(RGB, kind, exif=exif, **options), LIMITS)
    plain = decode.decode(encode(RGB, kind, **options), LIMITS)
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
        encode(RGB, "GIF"),
        encode(RGB, "JPEG2000"),
        cv2.imencode(".tiff", picture().astype(np.float32))[1].tobytes(),
    ],
    ids=["text", "zeros", "wav", "jpeg", "bmp", "tiff", "tiff empty", "gif", "jp2", "tiff float"],
)
def test_refuses_what_is_no_image_it_reads(junk: bytes) -> None:
    with pytest.raises(ImageNotDecodable):
        decode.decode(junk, LIMITS)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg progressive", "png", "png 16 bit", "webp", "webp lossy", "bmp", "tiff"]
)
def test_refuses_images_cut_short(name: str, kept: float) -> None:
    encoded = ALL[name]
    with pytest.raises(ImageNotDecodable):
        decode.decode(encoded[: int(len(encoded) * kept)], LIMITS)


def test_refuses_a_jpeg_without_its_end() -> None:
    with pytest.raises(ImageNotDecodable):
        decode.decode(ALL["jpeg"][:-2], LIMITS)


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
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_refuses_a_bomb_by_its_header(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    with pytest.raises(ImageTooLarge, match="at most 4000000"):
        decode.decode(bomb, LIMITS)


def test_limits_are_inclusive() -> None:
    encoded = ALL["png"]
    decode.decode(encoded, ImageLimits(len(encoded), 64 * 96))
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode.decode(encoded, ImageLimits(len(encoded) - 1, 64 * 96))
    with pytest.raises(ImageTooLarge, match="96x64 pixels"):
        decode.decode(encoded, ImageLimits(len(encoded), 64 * 96 - 1))


@settings(max_examples=60)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "WEBP lossless", "BMP", "TIFF"]),
)
def test_header_is_true(width: int, height: int, kind: str) -> None:
    name, _, lossless = kind.partition(" ")
    encoded = encode(Image.new("RGB", (width, height)), name, lossless=bool(lossless))
    header = read_header(encoded)
    assert (header.width, header.height, header.format.upper()) == (width, height, name)


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(ALL)),
    changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 200),
)
def test_damaged_headers_are_refused_or_read(
    name: str, changes: list[tuple[int, int]], cut: int
) -> None:
    """No damage makes another error than the two it may be."""
    encoded = bytearray(ALL[name])
    for at, value in changes:
        encoded[at % len(encoded)] = value
    try:
        header = read_header(bytes(encoded[: len(encoded) - cut]))
    except ImageNotDecodable:
        return
    assert header.pixels > 0


def test_a_directory_beyond_all_numbers_is_refused() -> None:
    encoded = bytearray(ALL["tiff big"])
    encoded[8:16] = b"\xff" * 8
    with pytest.raises(ImageNotDecodable, match="ends within its TIFF header"):
        read_header(bytes(encoded))


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
        decode.from_raw(bytes(12), 2, 2, ChannelOrder.RGB, ImageLimits(11, 100))


# --- Region of interest ----------------------------------------------------------------------


def test_region_takes_every_pixel_it_touches() -> None:
    part = letterbox.region((1.2, 2.0, 3.1, 4.0), (64, 96, 3))
    assert part == letterbox.Region(1, 2, 4, 4)
    assert part.offset == (1, 2)
    assert letterbox.crop(picture(), part).shape == (2, 3, 3)
    assert letterbox.region((0, 0, 96, 64), (64, 96, 3)) == letterbox.Region(0, 0, 96, 64)
    assert letterbox.region((95.5, 63.5, 95.6, 63.6), (64, 96)) == letterbox.Region(95, 63, 96, 64)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 0, 0),
        (5, 5, 5, 9),
        (9, 5, 5, 9),
        (-1, 0, 5, 5),
        (0, 0, 97, 5),
        (0, 0, 5, 65),
        (float("nan"), 0, 5, 5),
        (0, 0, float("inf"), 5),
    ],
)
def test_refuses_a_region_outside(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InvalidOption, match="96x64"):
        letterbox.region(box, (64, 96, 3))


def test_a_region_sees_nothing_beyond_it() -> None:
    """Neither resampling nor padding reads pixels of the image around the crop."""
    image = picture(200, 300)
    part = letterbox.Region(33, 21, 180, 120)
    alone = np.ascontiguousarray(letterbox.crop(image, part))
    for size in (64, 96, 160, 640):
        of_view = letterbox.letterbox(letterbox.crop(image, part), size, 32, ShapePolicy.RECT)
        of_copy = letterbox.letterbox(alone, size, 32, ShapePolicy.RECT)
        np.testing.assert_array_equal(of_view.image, of_copy.image)


# --- Letterbox and back ----------------------------------------------------------------------

SIDES = st.one_of(st.integers(1, 40), st.integers(1, 1500))


def library_letterbox(image: U8, size: int, stride: int, policy: ShapePolicy) -> Any:
    return LetterBox((size, size), auto=policy is ShapePolicy.RECT, stride=stride)(image=image)


@settings(max_examples=200)
@given(
    height=SIDES,
    width=SIDES,
    size=st.sampled_from([32, 64, 320, 416, 640]),
    stride=st.sampled_from([32, 64]),
    policy=st.sampled_from(ShapePolicy),
    seed=st.integers(0, 99),
)
def test_letterbox_and_back_equal_the_library(
    height: int, width: int, size: int, stride: int, policy: ShapePolicy, seed: int
) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    rounded = -(-size // stride) * stride  # as ultralytics' check_imgsz
    expected = library_letterbox(image, rounded, stride, policy)
    made = letterbox.letterbox(image, size, stride, policy)
    np.testing.assert_array_equal(made.image, expected)
    assert made.original_shape == (height, width)
    if policy is ShapePolicy.SQUARE:
        assert made.image.shape == (rounded, rounded, 3)

    boxes = random.uniform(-20, rounded + 20, (50, 4)).astype(np.float32)
    back = letterbox.to_original(boxes, made)
    assert back.dtype == np.float32
    tensor = torch.from_numpy(boxes.copy())
    by_torch = scale_boxes(expected.shape[:2], tensor, (height, width))
    np.testing.assert_array_equal(back, np.asarray(by_torch))
    by_numpy = scale_boxes(expected.shape[:2], boxes.copy(), (height, width))
    np.testing.assert_array_equal(back, by_numpy)


@pytest.mark.parametrize("policy", ShapePolicy)
def test_letterbox_of_every_narrow_size(policy: ShapePolicy) -> None:
    """Rounding is where letterboxes differ: all sizes from 1 to 99 against two sides."""
    for side in range(1, 100):
        for shape in ((side, 77), (640, side), (side, 1333)):
            image = np.full((*shape, 3), side, np.uint8)
            made = letterbox.letterbox(image, 96, 32, policy)
            np.testing.assert_array_equal(made.image, library_letterbox(image, 96, 32, policy))


def test_to_original_adds_the_offset_of_a_region() -> None:
    part = letterbox.letterbox(picture(50, 40), 64, 32, ShapePolicy.RECT)
    boxes = np.array([[-9, -9, 999, 999]], np.float32)
    np.testing.assert_array_equal(
        letterbox.to_original(boxes, part, (10, 20)), np.array([[10, 20, 50, 70]], np.float32)
    )
    np.testing.assert_array_equal(boxes, [[-9, -9, 999, 999]])
    assert letterbox.to_original(np.empty((0, 4), np.float32), part).shape == (0, 4)


@pytest.mark.parametrize("shape", [(1, 65_500), (65_500, 1), (11_000_000, 1)])
def test_a_line_of_pixels_is_not_scaled_to_a_square(shape: tuple[int, int]) -> None:
    line = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(ImageTooLarge, match="region of interest"):
        letterbox.centre_crop(line, 224, 32, max_pixels=100_000_000)


def test_a_small_limit_still_takes_small_squares() -> None:
    square = np.zeros((8, 8, 3), np.uint8)
    assert letterbox.centre_crop(square, 224, 32, max_pixels=64).image.shape == (224, 224, 3)
