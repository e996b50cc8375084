"""Where the tiles of a large image lie. Pure."""

import math
from dataclasses import dataclass

from worker.imaging import Region
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
    columns = _positions(part.x_max - part.x_min, tiling)
    rows = _positions(part.y_max - part.y_min, tiling)
    if len(columns) * len(rows) > MAX_TILES:
        raise InvalidOption(
            f"{len(columns)} x {len(rows)} tiles of {tiling.size} pixels: at most {MAX_TILES} are "
            "cut; give a larger tile_size, less overlap, or a region of interest"
        )
    return tuple(
        Region(
            part.x_min + x,
            part.y_min + y,
            min(part.x_min + x + tiling.size, part.x_max),
            min(part.y_min + y + tiling.size, part.y_max),
        )
        for y in rows
        for x in columns
    )


def _positions(length: int, tiling: Tiling) -> tuple[int, ...]:
    rest = length - tiling.size
    if rest <= 0:
        return (0,)
    step = max(1.0, tiling.size * (1 - tiling.overlap))
    count = math.ceil(rest / step) + 1
    return tuple(round(index * rest / (count - 1)) for index in range(count))
