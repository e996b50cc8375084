"""JPEG: damage is told, harmless faults are not damage, and nothing is written to stderr."""

import re
import struct
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.matrix import examples
from tests.unit.worker.preprocess.encoded_images import ALL, RGB, by_opencv, encode
from worker.preprocess import decode, jpeg
from worker.preprocess.decode import ImageLimits
from worker.preprocess.image_header import jpeg_segments
from yolopool.errors import ImageDamaged, ImageNotDecodable

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=4_000_000)
END = b"\xff\xd9"
NAMES = ["jpeg", "jpeg progressive", "jpeg with restarts", "jpeg cmyk", "jpeg grey", "jpeg 4:2:2"]


def segments(encoded: bytes, marker: int) -> list[int]:
    """Where each segment with this marker has its length."""
    return [at for one, at in jpeg_segments(encoded) if one == marker]


def scans(encoded: bytes) -> list[int]:
    return segments(encoded, 0xDA)


def half(encoded: bytes) -> bytes:
    return encoded[: len(encoded) // 2] + END


def zeros(encoded: bytes) -> bytes:
    middle = (scans(encoded)[0] + len(encoded)) // 2
    return encoded[:middle] + bytes(1000) + encoded[middle + 1000 :]


def gap(encoded: bytes) -> bytes:
    middle = (scans(encoded)[0] + len(encoded)) // 2
    return encoded[:middle] + encoded[middle + 300 :]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [half, zeros, gap])
def test_damage_is_refused_in_the_decoders_words(
    name: str, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageDamaged, match=r"96x64 pixels is damaged \(.+\): send it again"):
        decode.decode(damage(ALL[name]), LIMITS)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_damage_that_is_accepted_is_told(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    image = decode.decode(half(ALL[name]), LIMITS, accept_damaged=True)
    assert re.search("premature end|Premature end", image.damage)
    whole = decode.decode(ALL[name], LIMITS)
    assert not whole.damage
    # The upper rows, which the first half brings.
    if name != "jpeg progressive":
        np.testing.assert_array_equal(image.pixels[:8], whole.pixels[:8])
    assert image.pixels.shape == whole.pixels.shape
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", [END, b""], ids=["before its end marker", "in place of it"])
def test_the_zeros_that_fill_a_cameras_buffer_are_no_damage(name: str, end: bytes) -> None:
    encoded = ALL[name]
    found = decode.decode(encoded.removesuffix(END) + bytes(300) + end, LIMITS)
    assert not found.damage
    np.testing.assert_array_equal(found.pixels, decode.decode(encoded, LIMITS).pixels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [b"", bytes(300)], ids=["whole", "with a buffer's zeros"])
def test_a_grey_model_sees_libjpegs_grey(
    name: str, fill: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    encoded = ALL[name]
    expected = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    found = decode.decode(encoded.removesuffix(END) + fill + END, LIMITS, grey=True)
    np.testing.assert_array_equal(found.pixels[..., 0], expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_whose_last_part_is_zeros_is_damaged(name: str) -> None:
    encoded = ALL[name]
    middle = (scans(encoded)[-1] + len(encoded)) // 2
    with pytest.raises(ImageDamaged):
        decode.decode(encoded[:middle] + bytes(len(encoded) - middle - 2) + END, LIMITS)


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_picture_needs_no_end_marker(name: str) -> None:
    encoded = ALL[name]
    image = decode.decode(encoded[: encoded.rindex(END)], LIMITS)
    assert not image.damage
    np.testing.assert_array_equal(image.pixels, decode.decode(encoded, LIMITS).pixels)


def scan_for_each_component() -> tuple[bytes, list[bytes]]:
    """What comes before the scans of a file that is not progressive, and its three scans."""
    grey = ALL["jpeg grey"]
    frame, scan = segments(grey, 0xC0)[0], scans(grey)[0]
    head = grey[: frame - 2] + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 64, 96, 3)
    head += b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    head += grey[frame + struct.unpack_from(">H", grey, frame)[0] : scan - 2]
    data = grey[scan + struct.unpack_from(">H", grey, scan)[0] : grey.rindex(END)]
    starts = [b"\xff\xda\0\x08\1" + bytes((number, 0, 0, 63, 0)) for number in (1, 2, 3)]
    return head, [start + data for start in starts]


def test_a_file_that_lacks_the_scan_of_a_component_needs_its_end_marker() -> None:
    head, parts = scan_for_each_component()
    whole = decode.decode(head + b"".join(parts) + END, LIMITS).pixels
    np.testing.assert_array_equal(decode.decode(head + b"".join(parts), LIMITS).pixels, whole)
    for kept in (1, 2):
        with pytest.raises(ImageDamaged, match="Premature end"):
            decode.decode(head + b"".join(parts[:kept]), LIMITS)


def test_the_scans_are_bounded() -> None:
    """Each of them takes the time of the whole picture, and few bytes."""
    head, parts = scan_for_each_component()
    assert not decode.decode(head + b"".join(parts * 33) + END, LIMITS).damage
    for end in (END, b"", b"\xff\xe5\0"):
        with pytest.raises(ImageNotDecodable, match="more than 100 scans: save it again"):
            decode.decode(head + b"".join(parts * 34) + end, LIMITS)
    assert not decode.decode(ALL["jpeg"] + b"\xff\xda" * 101, LIMITS).damage


def test_a_progressive_file_that_lacks_scans_needs_its_end_marker() -> None:
    encoded = ALL["jpeg progressive"]
    last_scan = scans(encoded)[-1]
    table = max(at for at in segments(encoded, 0xC4) if at < last_scan)
    with pytest.raises(ImageDamaged, match="Premature end"):
        decode.decode(encoded[: table - 2], LIMITS)


@pytest.mark.parametrize("cut", [3, 10, 100])
def test_a_picture_that_ends_early_is_damaged(cut: int) -> None:
    for name in NAMES:
        with pytest.raises(ImageDamaged):
            decode.decode(ALL[name][: -cut - 2], LIMITS)


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive", "jpeg cmyk"])
def test_a_file_may_end_anywhere(name: str) -> None:
    for kept in range(2, 700):
        with pytest.raises(ImageNotDecodable):
            decode.decode(ALL[name][:kept], LIMITS)


def jfif_of_version_0(encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    changed[segments(encoded, 0xE0)[0] + 7] = 0
    return bytes(changed)


def odd_scan_parameters(encoded: bytes) -> bytes:
    changed = bytearray(encoded)
    at = scans(encoded)[0]
    last = at + 3 + 2 * changed[at + 2]
    changed[last : last + 3] = bytes((0, 0, 0))
    return bytes(changed)


@pytest.mark.parametrize("fault", [jfif_of_version_0, odd_scan_parameters])
def test_faults_that_say_nothing_of_the_picture_are_no_damage(
    fault: Callable[[bytes], bytes],
) -> None:
    encoded = ALL["jpeg"]
    with pytest.raises(ValueError, match=r"JFIF|SOS"):
        simplejpeg.decode_jpeg(fault(encoded))
    image = decode.decode(fault(encoded), LIMITS)
    np.testing.assert_array_equal(image.pixels, by_opencv(encoded))
    with pytest.raises(ImageDamaged):  # they hide no damage
        decode.decode(fault(half(encoded)), LIMITS)


def test_what_no_decoder_reads_is_refused() -> None:
    changed = bytearray(ALL["jpeg"])
    changed[segments(ALL["jpeg"], 0xC0)[0] + 2] = 7  # bits of a level
    with pytest.raises(ImageNotDecodable, match="can't be decoded: "):
        decode.decode(bytes(changed), LIMITS)


@pytest.mark.parametrize("sampling", [0x11, 0x12, 0x22, 0x41])
def test_grey_of_every_sampling(sampling: int) -> None:
    changed = bytearray(ALL["jpeg grey"])
    changed[segments(ALL["jpeg grey"], 0xC0)[0] + 9] = sampling
    np.testing.assert_array_equal(
        decode.decode(bytes(changed), LIMITS).pixels, by_opencv(bytes(changed))
    )


@pytest.mark.parametrize(
    "factor",
    [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (64, 96)])
def test_colours_of_every_sampling(factor: int, size: tuple[int, int]) -> None:
    pixels = np.ascontiguousarray(np.asarray(RGB)[: size[0], : size[1]])
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    encoded = cv2.imencode(".jpg", pixels, options)[1].tobytes()
    np.testing.assert_array_equal(decode.decode(encoded, LIMITS).pixels, by_opencv(encoded))


def with_exif(exif: bytes) -> bytes:
    encoded = ALL["jpeg"]
    body = b"Exif\0\0" + exif
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded[2:]


def exif_of(orientation: int, order: str = "<") -> bytes:
    magic = b"II" if order == "<" else b"MM"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return magic + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_of_either_byte_order(order: str, orientation: int) -> None:
    encoded = with_exif(exif_of(orientation, order))
    assert jpeg.orientation(encoded) == orientation
    np.testing.assert_array_equal(decode.decode(encoded, LIMITS).pixels, by_opencv(encoded))


@examples(200)
@given(
    st.lists(st.tuples(st.integers(0, 25), st.integers(0, 255)), max_size=3),
    st.integers(0, 26),
    st.integers(0, 9),
    st.sampled_from("<>"),
)
def test_damaged_exif_turns_a_picture_as_in_opencv(
    changes: list[tuple[int, int]], cut: int, orientation: int, order: str
) -> None:
    exif = bytearray(exif_of(orientation, order))
    for at, value in changes:
        exif[at] = value
    encoded = with_exif(bytes(exif[: len(exif) - cut]))
    np.testing.assert_array_equal(decode.decode(encoded, LIMITS).pixels, by_opencv(encoded))


def test_the_first_exif_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(RGB, "JPEG", exif=exif)
    body = b"Exif\0\0" + exif_of(3)
    again = encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded[2:]
    for one in (encoded, again):
        np.testing.assert_array_equal(decode.decode(one, LIMITS).pixels, by_opencv(one))


def grey_of(factors: tuple[tuple[int, int], ...]) -> bytes:
    """A grey picture of 2 x 2 units in which each component has so many blocks."""
    encoded = bytearray(encode(Image.new("RGB", (16, 16), (128,) * 3), "JPEG", subsampling=0))
    frame, scan = segments(bytes(encoded), 0xC0)[0], scans(bytes(encoded))[0]
    wide, high = (8 * 2 * max(sides) for sides in zip(*factors, strict=True))
    struct.pack_into(">HH", encoded, frame + 3, high, wide)
    for number, (across, down) in enumerate(factors):
        encoded[frame + 9 + 3 * number] = across << 4 | down
    # A block: no difference to the last one, then its end, by the usual Huffman tables.
    blocks = "".join(
        ("0000" if number else "001010") * across * down
        for number, (across, down) in enumerate(factors)
    )
    bits = blocks * 4 + "1" * (-len(blocks * 4) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    return bytes(encoded[: scan + struct.unpack_from(">H", encoded, scan)[0]]) + data + END


@pytest.mark.parametrize(
    "factors",
    [
        ((1, 1), (1, 1), (1, 1)), ((3, 1), (1, 1), (1, 1)), ((1, 1), (2, 1), (1, 1)),
        ((4, 2), (1, 1), (1, 1)), ((2, 1), (2, 1), (1, 1)), ((2, 2), (2, 1), (2, 1)),
    ],
)  # fmt: skip
def test_samplings_that_are_rare(factors: tuple[tuple[int, int], ...]) -> None:
    encoded = grey_of(factors)
    np.testing.assert_array_equal(decode.decode(encoded, LIMITS).pixels, by_opencv(encoded))
    with pytest.raises(ImageNotDecodable):
        decode.decode(encoded[:-5], LIMITS)
