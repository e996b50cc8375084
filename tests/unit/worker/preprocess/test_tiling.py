"""Tiles cover the image, and their number is bounded."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.preprocess.letterbox import Region
from worker.preprocess.tiling import MAX_TILES, Tiling, layout
from yolopool.errors import InvalidOption

WHOLE = Region(0, 0, 200, 100)


@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    size=st.integers(400, 3000),
    overlap=st.floats(0, 0.5),
    x=st.integers(0, 50),
)
def test_tiles_cover_the_part_with_their_overlap(
    width: int, height: int, size: int, overlap: float, x: int
) -> None:
    part = Region(x, 7, x + width, 7 + height)
    try:
        tiles = layout(part, Tiling(size, overlap))
    except InvalidOption:
        return
    assert len(tiles) <= MAX_TILES
    assert len({tile.shape for tile in tiles}) == 1
    columns = sorted({(tile.x_min, tile.x_max) for tile in tiles})
    rows = sorted({(tile.y_min, tile.y_max) for tile in tiles})
    assert len(columns) * len(rows) == len(tiles)
    for spans, low, high in ((columns, part.x_min, part.x_max), (rows, part.y_min, part.y_max)):
        assert spans[0][0] == low
        assert spans[-1][1] == high
        for (begin, end), (following, _) in pairwise(spans):
            assert end - begin == size
            # Whole pixels may take one of the overlap.
            assert end - following >= size * overlap - 1


def test_a_small_image_is_one_tile() -> None:
    assert layout(WHOLE, Tiling(640, 0.2)) == (WHOLE,)


def test_too_many_tiles_are_refused() -> None:
    with pytest.raises(InvalidOption, match="at most 64"):
        layout(Region(0, 0, 10_000, 10_000), Tiling(640, 0.2))


def test_too_many_tiles_are_counted_and_not_made() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidOption, match="at most 64"):
            layout(Region(0, 0, 10_000_000, 10), Tiling(32, 0.5))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
