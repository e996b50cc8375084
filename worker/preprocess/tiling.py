"""Where the tiles of a large image are. Pure."""

import math
from dataclasses import dataclass

from worker.preprocess.letterbox import Region
from yolopool.errors import InvalidOption

MAX_TILES = 64


@dataclass(frozen=True, slots=True)
class Tiling:
    """The side of a tile in pixels of the image, and the share by which neighbours overlap."""

    size: int
    overlap: float


def layout(part: Region, tiling: Tiling) -> tuple[Region, ...]:
    """The tiles that cover a region, row by row and evenly spread: all of one shape, none larger
    than a tile, none beyond the region. Raises InvalidOption for more than MAX_TILES.
    """
    height, width = part.shape
    # Counted before they are made: small tiles of a wide image could be millions.
    across, down = _count(width, tiling), _count(height, tiling)
    if across * down > MAX_TILES:
        raise InvalidOption(
            f"{across} x {down} tiles of {tiling.size} pixels: at most {MAX_TILES} are "
            "cut; give a larger tile_size, less overlap, or a region of interest"
        )
    return tuple(
        Region(
            part.x_min + x,
            part.y_min + y,
            min(part.x_min + x + tiling.size, part.x_max),
            min(part.y_min + y + tiling.size, part.y_max),
        )
        for y in _positions(height, down, tiling)
        for x in _positions(width, across, tiling)
    )


def _count(length: int, tiling: Tiling) -> int:
    step = max(1.0, tiling.size * (1 - tiling.overlap))
    return math.ceil(max(0, length - tiling.size) / step) + 1


def _positions(length: int, count: int, tiling: Tiling) -> tuple[int, ...]:
    if count == 1:
        return (0,)
    rest = length - tiling.size
    return tuple(round(index * rest / (count - 1)) for index in range(count))
