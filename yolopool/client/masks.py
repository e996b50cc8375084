"""Masks as callers use them: outlines or run lengths, turned into arrays on request."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from yolopool.v1 import detection_pb2

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One object's mask on an image of `size` (width, height), in the form that was asked for.

    polygons: outlines of its parts, each float32 (points, 2) of x and y in pixels of the original
    image. counts: COCO's compressed run lengths.
    """

    size: tuple[int, int]
    polygons: tuple[F32, ...] = ()
    counts: bytes = b""

    def to_array(self) -> npt.NDArray[np.bool_]:
        """bool (height, width). Outlines are filled, so holes are filled too."""
        width, height = self.size
        if self.counts:
            lengths = decompressed(self.counts)
            flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
            return flat.reshape(width, height).T
        picture = Image.new("1", self.size)
        draw = ImageDraw.Draw(picture)
        for part in self.polygons:
            # Outlines run through the centres of pixels, which are whole numbers in pillow.
            fill(draw, part, 1)
        return np.array(picture, bool)

    def to_coco(self) -> dict[str, Any] | list[list[float]]:
        """COCO's `segmentation`: polygons of at least three points, or size and counts."""
        if self.counts:
            return {"size": [self.size[1], self.size[0]], "counts": self.counts.decode("ascii")}
        long_enough = [part for part in self.polygons if len(part) > 2]
        return [[round(float(v), 3) for v in part.reshape(-1)] for part in long_enough]


def fill(draw: ImageDraw.ImageDraw, part: F32, colour: Any) -> None:
    """Fills an outline; one or two points become a dot or a line."""
    points = [(float(x), float(y)) for x, y in part]
    if len(points) > 2:
        draw.polygon(points, fill=colour, outline=colour)
    elif len(points) == 2:
        draw.line(points, fill=colour)
    else:
        draw.point(points, fill=colour)


def decompressed(counts: bytes) -> I64:
    """The run lengths in COCO's string, zeros first. Raises ValueError if it is cut short."""
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = (digits & 0x20) == 0
    if not len(digits) or not last[-1]:
        raise ValueError("the mask's run lengths are cut short")
    ends = np.flatnonzero(last)
    begins = np.append(0, ends[:-1] + 1)
    place = np.arange(len(digits)) - np.repeat(begins, ends - begins + 1)
    values = np.add.reduceat((digits & 0x1F) << (5 * place), begins)
    negative = (digits[ends] & 0x10) != 0
    values[negative] -= np.int64(1) << (5 * (place[ends][negative] + 1))
    # From the fourth on, each is stored as the difference to the second last before it.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return np.asarray(values, np.int64)


def from_message(mask: detection_pb2.Mask, size: tuple[int, int]) -> Mask:
    """Reads the mask of an object on an image of (width, height)."""
    if mask.WhichOneof("format") == "rle":
        return Mask((mask.rle.width, mask.rle.height), counts=mask.rle.counts)
    parts = (np.array(part.points, np.float32).reshape(-1, 2) for part in mask.polygons.parts)
    return Mask(size, tuple(parts))
