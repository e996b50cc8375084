"""PNG, TIFF and the others: damage that a format can show is refused, and nothing is written to
stderr.
"""

import struct
import sys
import zlib

import numpy as np
import pytest

from tests.unit.worker.preprocess.encoded_images import ALL, BGR, LOSSLESS
from worker.preprocess import decode, tiff
from worker.preprocess.decode import ImageLimits
from worker.preprocess.preprocessor import silence_decoders
from yolopool.errors import ImageNotDecodable

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=4_000_000)
NAMES = ["png", "png 16 bit", "png palette", "tiff deflate", "tiff lzw", "tiff jpeg"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    """As in a worker."""
    silence_decoders()


def zeros(encoded: bytes) -> bytes:
    middle = len(encoded) // 2
    return encoded[:middle] + bytes(200) + encoded[middle + 200 :]


def gap(encoded: bytes) -> bytes:
    middle = len(encoded) // 2
    return encoded[:middle] + encoded[middle + 300 :]


@pytest.mark.parametrize("name", NAMES)
def test_damage_in_the_middle_is_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    for accept in (False, True):  # only a JPEG can be run in part
        with pytest.raises(ImageNotDecodable, match=r"can't be decoded.*damaged"):
            decode.decode(zeros(ALL[name]), LIMITS, accept)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*NAMES, "tiff", "bmp", "avif", "heic", "webp"])
def test_a_part_that_is_missing_is_seen(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageNotDecodable, match=r"can't be decoded|TIFF header"):
        decode.decode(gap(ALL[name]), LIMITS)
    assert capfd.readouterr() == ("", "")


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    if checksum is None:
        checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def test_a_damaged_chunk_of_a_png_is_named() -> None:
    encoded = bytearray(ALL["png"])
    at = encoded.index(b"IDAT")
    encoded[at + 20] ^= 1
    with pytest.raises(ImageNotDecodable, match=f"chunk IDAT at byte {at - 4} is damaged"):
        decode.decode(bytes(encoded), LIMITS)


@pytest.mark.parametrize("kind", [b"prVt", b"CgBI", b"\xff\xfe\0a"])
def test_chunks_that_may_be_of_the_picture_are_not_left_out(kind: bytes) -> None:
    encoded = ALL["png palette"]
    at = encoded.index(b"PLTE") - 4
    renamed = encoded[: at + 4] + kind + encoded[at + 8 :]
    with pytest.raises(ImageNotDecodable, match="is damaged"):
        decode.decode(renamed, LIMITS)
    if kind == b"CgBI":
        with pytest.raises(ImageNotDecodable, match="a chunk of the kind CgBI"):
            decode.decode(encoded[:at] + chunk(kind, b"") + encoded[at:], LIMITS)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(b"no profile")),
        chunk(b"gAMA", struct.pack(">I", 45455), checksum=7),
        chunk(b"tEXt", b"no separator"),
        chunk(b"prVt", b"of one program alone"),
    ],
    ids=["bad profile", "bad checksum", "bad text", "private"],
)
def test_what_a_picture_does_not_need_is_not_looked_at(
    extra: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng would write about it to stderr."""
    for name in LOSSLESS:
        if name.startswith("png"):
            encoded = ALL[name]
            at = encoded.index(b"IDAT") - 4
            image = decode.decode(encoded[:at] + extra + encoded[at:], LIMITS)
            np.testing.assert_array_equal(image.pixels, BGR)
    assert capfd.readouterr() == ("", "")


def test_what_follows_a_png_is_not_looked_at() -> None:
    image = decode.decode(ALL["png"] + b"more", LIMITS)
    np.testing.assert_array_equal(image.pixels, BGR)


def test_a_worker_without_pi_heif_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageNotDecodable, match="does not read HEIC: save the image as JPEG"):
        decode.decode(ALL["heic"], LIMITS)


def test_more_chunks_than_any_png_has_are_not_counted() -> None:
    encoded = ALL["png"]
    at = encoded.index(b"IDAT") - 4
    with pytest.raises(ImageNotDecodable, match="more than 100000 chunks"):
        decode.decode(encoded[:at] + chunk(b"prVt", b"") * 100_001 + encoded[at:], LIMITS)


def test_the_check_of_a_tiff_is_bounded() -> None:
    zeros = memoryview(zlib.compress(bytes(10_000_000)))
    tiff._inflate([zeros], most_bytes=1000)
    tiff._inflate([zeros], most_bytes=100_000_000)
    with pytest.raises(ValueError, match="ends too early"):
        tiff._inflate([zeros[:-5]], most_bytes=100_000_000)
    strip = memoryview(ALL["jpeg"])
    tiff._decode_jpegs([strip], b"\xff\xd8\xff\xd9", most_pixels=64 * 96)
    with pytest.raises(ValueError, match="larger than the picture"):
        tiff._decode_jpegs([strip] * 5, b"\xff\xd8\xff\xd9", most_pixels=64 * 96)


def test_parts_that_lie_over_each_other_are_not_looked_at() -> None:
    assert tiff._parts(bytes(100), {273: (8, 8, 50), 279: (40, 40, 40)}) == []
    assert len(tiff._parts(bytes(100), {273: (8, 50), 279: (40, 40)})) == 2
    with pytest.raises(ValueError, match="ends within"):
        tiff._parts(bytes(100), {324: (8, 61), 325: (40, 40)})
