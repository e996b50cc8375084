"""What preprocessing is asked for, what it gives, and how an image reaches the device queue:

event loop       infer() calls ImageSource.prepare_then(spec, consumer) and waits for the reply
decoding thread  decodes and letterboxes, then calls consumer(prepared, reply): Engine.put
device thread    runs the batch, then calls reply(outcome)
event loop       infer() goes on with the outcome
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from worker.concurrency.reply import Reply
from worker.preprocess import letterbox
from worker.preprocess.decode import ChannelOrder
from worker.preprocess.letterbox import Letterboxed, Origin, Region
from worker.preprocess.tiling import MAX_TILES, Tiling, layout
from yolopool.vocabulary import ShapePolicy

Box = tuple[float, float, float, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawPixels:
    """An uncompressed image: uint8, row-major HWC."""

    data: bytes
    height: int
    width: int
    channel_order: ChannelOrder


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a version wants its images: the longest side and the stride in pixels, and the shape.

    With `crop` it gets the middle of the image instead, as models that classify do. Without
    `tiling` the image is prepared whole. With `accept_damaged` it is prepared also where parts of
    it can't be read.
    """

    image_size: int
    stride: int
    policy: ShapePolicy
    crop: bool = False
    tiling: Tiling | None = None
    accept_damaged: bool = False

    @property
    def max_bytes(self) -> int:
        """The most that a letterboxed image, or all its tiles, can take: whole squares."""
        side = letterbox.size_of(self.image_size, self.stride)
        return 3 * side * side * (MAX_TILES if self.tiling is not None else 1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for a model. Its pixels are in a slot, which is in use until they are gone.

    `image_shape` is the (height, width) of the whole image, upright, and `offset` the (x, y) of the
    region of interest in it. If the image is tiled, `letterboxed` has all tiles, one below the
    other: see `origins`. The times are seconds of the thread that prepared it. `damage` says what
    of the image could not be read; empty if nothing was damaged.
    """

    letterboxed: Letterboxed
    image_shape: tuple[int, int]
    offset: tuple[int, int]
    decode_s: float
    preprocess_s: float
    damage: str = ""

    @property
    def part(self) -> Region:
        """The region of interest, or the whole image."""
        (x, y), (height, width) = self.offset, self.letterboxed.original_shape
        return Region(x, y, x + width, y + height)

    def origins(self, tiling: Tiling | None) -> tuple[Origin, ...]:
        """The images to run, each with its origin; `tiling` is the one they were prepared with."""
        if tiling is None:
            return (Origin(self.letterboxed, self.offset, self.image_shape),)
        tiles = layout(self.part, tiling)
        images = np.split(self.letterboxed.image, len(tiles))
        return tuple(
            Origin(Letterboxed(image, tile.shape), tile.offset, self.image_shape)
            for image, tile in zip(images, tiles, strict=True)
        )


# Takes an image on the thread that prepared it, and answers through the reply, now or later.
ImageConsumer = Callable[[Prepared, Reply[T]], None]


class ImageSource(Protocol):
    """The image of one request, whether its bytes are in this process or in an I/O process."""

    async def prepare_then(self, spec: PreprocessSpec, consumer: ImageConsumer[T]) -> T:
        """Prepares the image and passes it to the consumer; returns the consumer's reply."""
        ...


def identity(prepared: Prepared, reply: Reply[Prepared]) -> None:
    """The consumer of a caller that wants the image itself."""
    reply(prepared, None)
