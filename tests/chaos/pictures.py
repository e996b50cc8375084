"""Pictures of which the right answer is known, so that an answer to another's picture is seen."""

import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from yolopool.client.detections import Detections

SIDE = 320
PIXELS, CONFIDENCE = 0.5, 0.005


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels of the picture."""

    class_id: int
    confidence: float
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image and the boxes that a model must find on it."""

    encoded: bytes
    boxes: tuple[Box, ...]

    def is_answered_by(self, boxes: Sequence[Box]) -> bool:
        """Whether these are its boxes, in any order."""
        pairs = zip(sorted(boxes, key=_order), sorted(self.boxes, key=_order), strict=False)
        return len(boxes) == len(self.boxes) and all(_same(*pair) for pair in pairs)


def grey(levels: Iterable[int], classes: int) -> tuple[Picture, ...]:
    """Plain squares of a model's own size (320), one a level of grey.

    A simulated device answers with one box in the middle half, whose class and confidence tell
    the mean of the pixels that arrived.
    """
    quarter = SIDE / 4
    middle = (quarter, quarter, 3 * quarter, 3 * quarter)
    return tuple(
        Picture(_png(level), (Box(level % classes, 0.5 + level / 510, middle),)) for level in levels
    )


async def asked(
    images: Iterable[bytes], ask: Callable[[bytes], Awaitable[Sequence[Box]]]
) -> tuple[Picture, ...]:
    """Pictures with the boxes that a real model finds while nothing disturbs it.

    Raises ValueError if two are answered alike: a mistaken one would not be seen.
    """
    known: list[Picture] = []
    for image in images:
        picture = Picture(image, tuple(await ask(image)))
        if any(other.is_answered_by(picture.boxes) for other in known):
            raise ValueError("two pictures have the same answer: give pictures that differ")
        known.append(picture)
    return tuple(known)


def boxes_of(found: Detections) -> tuple[Box, ...]:
    """The boxes of an answer."""
    return tuple(Box(one.class_id, one.confidence, one.xyxy) for one in found)


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def _order(box: Box) -> tuple[float, ...]:
    # Coarse, so that a difference below the tolerance does not change the order.
    return (box.class_id, *(round(edge / 4) for edge in box.xyxy))


def _same(one: Box, other: Box) -> bool:
    edges = zip(one.xyxy, other.xyxy, strict=True)
    return (
        one.class_id == other.class_id
        and abs(one.confidence - other.confidence) <= CONFIDENCE
        and all(abs(a - b) <= PIXELS for a, b in edges)
    )
