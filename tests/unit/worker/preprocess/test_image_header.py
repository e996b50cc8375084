"""Headers give the true size, and a damaged one raises ImageNotDecodable or is read."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.matrix import examples
from tests.unit.worker.preprocess.encoded_images import ALL, encode
from worker.preprocess.image_header import MAX_PARTS, read_header
from yolopool.errors import ImageNotDecodable


@examples(60)
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


@examples(300)
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


def segments(count: int) -> bytes:
    return b"\xff\xd8" + b"\xff\xe5\0\2" * count + ALL["jpeg"][2:]


def test_more_segments_than_any_file_has_are_not_counted() -> None:
    assert read_header(segments(MAX_PARTS - 100)).pixels == 64 * 96
    with pytest.raises(ImageNotDecodable, match="more than 10000 segments"):
        read_header(segments(MAX_PARTS))


def test_a_raw_photo_is_not_answered_on_its_preview() -> None:
    """Its first directory says so: it is of a reduced resolution."""
    encoded = bytearray(ALL["tiff"])
    at = encoded.index(struct.pack("<HH", 258, 3)) - 12  # the tag before
    struct.pack_into("<HHII", encoded, at, 254, 4, 1, 1)
    with pytest.raises(ImageNotDecodable, match="a preview, as in raw photos"):
        read_header(bytes(encoded))


def test_fill_bytes_take_no_time() -> None:
    """Each of them begins a marker; so many would take hours if they were tried in every length."""
    encoded = ALL["jpeg"]
    assert read_header(encoded[:2] + b"\xff" * 1_000_000 + encoded[2:]).pixels == 64 * 96
    with pytest.raises(ImageNotDecodable, match="ends within its JPEG header"):
        read_header(encoded[:2] + b"\xff" * 1_000_000 + b"\0")
