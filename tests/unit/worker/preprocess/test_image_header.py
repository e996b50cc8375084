"""What headers say is true, and no damage to one makes another error than the one it may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.matrix import examples
from tests.unit.worker.preprocess.encoded_images import ALL, encode
from worker.preprocess.image_header import read_header
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
