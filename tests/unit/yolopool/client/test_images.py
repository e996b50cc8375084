"""The same picture is sent whichever way it is given, and what can't be one is refused first."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from yolopool.client import images
from yolopool.client.requests import DetectOptions, detect
from yolopool.errors import ImageEmpty, ImageShapeMismatch, ImageTooLarge, InvalidOption
from yolopool.v1 import detection_pb2, types_pb2

U8 = npt.NDArray[np.uint8]
RGB = np.random.default_rng(5).integers(0, 256, (6, 9, 3), np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])


def sent(image: Any, **options: Any) -> U8:
    """The raw pixels of the message: grey (height, width), or RGB (height, width, 3)."""
    given: DetectOptions = options  # type: ignore[assignment] # of any kind
    request, source = detect(image, "m", given)
    assert isinstance(source, Image.Image)
    raw = request.raw
    pixels = np.frombuffer(raw.data, np.uint8)
    if raw.channel_order == types_pb2.CHANNEL_ORDER_GRAY:
        return pixels.reshape(raw.height, raw.width)
    pixels = pixels.reshape(raw.height, raw.width, 3)
    return pixels if raw.channel_order == types_pb2.CHANNEL_ORDER_RGB else pixels[..., ::-1]


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RGB), (2, RGB[:, ::-1]), (3, RGB[::-1, ::-1]), (4, RGB[::-1]),
        (5, RGB.transpose(1, 0, 2)), (6, np.rot90(RGB, -1)),
        (7, np.rot90(RGB, 2).transpose(1, 0, 2)), (8, np.rot90(RGB)),
    ],
)  # fmt: skip
def test_a_pil_image_is_sent_upright(orientation: int, upright: U8) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(sent(Image.open(stream)), upright)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_of_16_bits_the_high_byte_is_sent(mode: str) -> None:
    levels = (GREY.astype(np.uint16) * 256 + 77).astype(">u2" if mode.endswith("B") else "<u2")
    picture = Image.frombytes(mode, (9, 6), levels.tobytes())
    np.testing.assert_array_equal(sent(picture), GREY)
    np.testing.assert_array_equal(sent(levels), GREY)


def test_12_bits_in_16_are_sent_by_the_scale_that_is_given() -> None:
    twelve = GREY.astype(np.uint16) << 4 | 7
    for image in (twelve, Image.fromarray(twelve), Image.fromarray(twelve).convert("I")):
        np.testing.assert_array_equal(sent(image, bit_depth=12), GREY)
    np.testing.assert_array_equal(sent(twelve), GREY >> 4)  # nobody said so
    with pytest.raises(ImageShapeMismatch, match="the largest of 10 bits is 1023"):
        sent(twelve, bit_depth=10)


@pytest.mark.parametrize(
    ("image", "bit_depth", "match"),
    [
        (GREY, 12, "give 8 to 8 for uint8"),
        (GREY.astype(np.uint16), 7, "give 8 to 16"),
        (GREY.astype(np.uint16), 17, "give 8 to 16"),
        (Image.fromarray(GREY), 12, "mode L has 8 bits"),
        (b"bytes of a file", 12, "open the file by PIL.Image.open"),
        ("street.png", 12, "open the file by PIL.Image.open"),
    ],
)
def test_a_bit_depth_that_can_not_be_meant_is_refused(
    image: Any, bit_depth: int, match: str
) -> None:
    with pytest.raises(InvalidOption, match=match):
        sent(image, bit_depth=bit_depth)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_of_no_known_scale_are_refused(mode: str) -> None:
    picture = Image.fromarray(GREY).convert(mode)
    with pytest.raises(InvalidOption, match=f"mode {mode} does not say which level is white"):
        sent(picture)


def test_levels_beyond_16_bits_are_refused() -> None:
    picture = Image.fromarray(GREY.astype(np.int32) * 1000)
    with pytest.raises(ImageShapeMismatch, match=r"16 bits are 0\.\.65535"):
        sent(picture, bit_depth=16)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX"])
def test_alpha_is_dropped_and_grey_stays_grey(mode: str) -> None:
    grey = Image.fromarray(GREY)
    through = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    pixels = sent(grey.convert(through).convert(mode))
    expected = np.asarray(grey.convert("1").convert("L")) if mode == "1" else GREY
    np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[..., 1], expected)
    assert (pixels.ndim == 2) == (mode in ("1", "L", "LA", "La"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
def test_arrays_of_every_shape(dtype: Any) -> None:
    rgb = RGB.astype(dtype) * (1 if dtype is np.uint8 else 256)
    grey = rgb[..., 0]
    for image in (grey, grey[..., None], np.dstack([grey, grey // 2])):
        np.testing.assert_array_equal(sent(image), GREY)
    for image in (rgb, np.dstack([rgb, grey])):
        np.testing.assert_array_equal(sent(image, channel_order="rgb"), RGB)
        np.testing.assert_array_equal(sent(image[..., [2, 1, 0]], channel_order="bgr"), RGB)
        with pytest.raises(InvalidOption, match="needs its channel order"):
            sent(image)


@pytest.mark.parametrize(
    "image",
    [
        RGB.transpose(2, 0, 1), RGB[None], RGB[0, :, 0], np.dstack([RGB, RGB]),
        RGB.astype(np.float32), RGB.astype(np.int16), RGB > 100, RGB.astype(np.uint32),
    ],
    ids=["channels first", "batch", "line", "6 channels", "float", "int16", "bool", "uint32"],
)  # fmt: skip
def test_what_is_no_picture_is_refused_with_what_to_do(image: Any) -> None:
    with pytest.raises(ImageShapeMismatch, match="give "):
        sent(image, channel_order="rgb")


def test_empty_pictures_are_refused() -> None:
    for image in (RGB[:0], RGB[:, :0], Image.new("RGB", (0, 5)), Image.new("I;16", (5, 0))):
        with pytest.raises(ImageEmpty):
            sent(image, channel_order="rgb")


@pytest.mark.filterwarnings("ignore:.*EXIF.*:UserWarning")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0no TIFF", b"nothing", b"Exif\0\0"]
)
def test_exif_that_is_damaged_turns_nothing(exif: bytes) -> None:
    picture = Image.fromarray(RGB)
    picture.info["exif"] = exif
    np.testing.assert_array_equal(sent(picture), RGB)


# --- A JPEG that was not read yet -------------------------------------------------------------


def opened(**options: Any) -> tuple[Image.Image, bytes]:
    stream = io.BytesIO()
    Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))).save(stream, "JPEG", **options)
    return Image.open(io.BytesIO(stream.getvalue())), stream.getvalue()


def test_the_file_of_a_jpeg_that_was_not_read_is_sent() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}, {"progressive": True}):
        picture, encoded = opened(**options)
        assert detect(picture, "m", {})[0].encoded == encoded
        assert detect(picture, "m", {})[0].encoded == encoded
        picture.load()  # is still there to be read
        assert sent(picture).shape == ((72, 48, 3) if "exif" in options else (48, 72, 3))


def test_a_jpeg_that_is_no_more_as_its_file_is_sent_as_pixels() -> None:
    turned = opened()[0]
    turned.getexif()[0x0112] = 6
    assert sent(turned).shape == (72, 48, 3)
    drafted = opened()[0]
    drafted.draft("RGB", (36, 24))
    assert sent(drafted).shape == (24, 36, 3)
    painted = opened()[0]
    painted.putpixel((0, 0), (1, 2, 3))
    assert sent(painted)[0, 0].tolist() == [1, 2, 3]
    inverted = opened()[0].convert("CMYK")
    assert sent(inverted).shape == (48, 72, 3)
    closed = opened()[0]
    with closed:
        closed.load()
    assert sent(closed).shape == (48, 72, 3)
    part = opened()[0].crop((0, 0, 10, 10))
    assert sent(part).shape == (10, 10, 3)


# --- What is large ---------------------------------------------------------------------------


def test_pixels_above_the_limit_of_raw_ones_are_sent_as_png(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_RAW_BYTES", RGB.nbytes - 1)
    for image, order in ((Image.fromarray(RGB), None), (RGB, "rgb"), (RGB[..., ::-1], "bgr")):
        request, _ = detect(image, "m", {"channel_order": order})  # type: ignore[typeddict-item]
        with Image.open(io.BytesIO(request.encoded)) as picture:
            assert picture.format == "PNG"
            np.testing.assert_array_equal(np.asarray(picture), RGB)
    assert detect(GREY, "m", {})[0].HasField("raw")


def test_what_a_message_can_not_carry_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(images, "MAX_MESSAGE_BYTES", images._ROOM_BYTES + 100)
    monkeypatch.setattr(images, "MAX_RAW_BYTES", 100)
    path = tmp_path / "large.tif"
    path.write_bytes(bytes(101))
    noise = np.random.default_rng(1).integers(0, 256, (40, 40), np.uint8)
    for image in (path, bytes(101), noise, Image.fromarray(noise)):
        with pytest.raises(ImageTooLarge, match="a message carries") as caught:
            detect(image, "m", {})
        assert not caught.value.retryable
    assert detect(bytes(100), "m", {})[0].encoded == bytes(100)


# --- What is no path -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("https://example.org/street.jpg", "a URL: fetch the image"),
        ("rtsp://camera/1", "a URL"),
        ("data:image/png;base64,iVBORw0KGgo=", "a data URI"),
        ("/9j/4AAQSkZJRgABAQAAAQABAAD" * 50, "base64 text"),
        ("iVBORw0KGgoAAAANSUhEUgAA" * 50, "base64 text"),
    ],
)
def test_text_that_is_no_path_is_named(text: str, match: str) -> None:
    with pytest.raises(InvalidOption, match=match):
        images.put(text, None, None, detection_pb2.DetectRequest())


def test_damaged_images_are_run_on_request_alone() -> None:
    assert not detect(b"file", "m", {})[0].options.accept_damaged
    assert detect(b"file", "m", {"accept_damaged": True})[0].options.accept_damaged
