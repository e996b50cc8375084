"""Where the tiles of a large image lie. Pure."""

import math
from dataclasses import dataclass

from worker.preprocess.letterbox import Region
from yolopool.errors import InvalidOption

MAX_TILES = 64


@dataclass(frozen=True, slots=True)
class Tiling:
    """Side of the tiles in pixels of the image, and the share that neighbours have in common."""

    size: int
    overlap: float


def layout(part: Region, tiling: Tiling) -> tuple[Region, ...]:
    """Tiles of one shape that cover a part of an image, row by row, evenly spread; none is larger
    than a tile or leaves the part. Raises InvalidOption for more than MAX_TILES.
    """
    height, width = part.shape
    # Counted before they are made: of a small tile and a wide image there are millions.
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
