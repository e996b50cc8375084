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
    """How a version wants its images: longest side and stride in pixels, and the policy; `crop`:
    the middle of the image, as models that classify want it, instead. `tiling` None: in one.
    """

    image_size: int
    stride: int
    policy: ShapePolicy
    crop: bool = False
    tiling: Tiling | None = None

    @property
    def most_bytes(self) -> int:
        """Of a letterboxed image: the whole square; of all tiles, if it is cut."""
        side = letterbox.size_of(self.image_size, self.stride)
        return 3 * side * side * (MAX_TILES if self.tiling is not None else 1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for a model; its pixels lie in a slot, which is lent as long as they are
    held.

    `image_shape` is the (height, width) of the whole image, upright; `offset` the (x, y) of the
    region of interest in it, for `imaging.to_original`. Of tiles, `letterboxed` has them one
    beneath the other: see `places`. Times are seconds of this image's thread.
    """

    letterboxed: Letterboxed
    image_shape: tuple[int, int]
    offset: tuple[int, int]
    decode_s: float
    preprocess_s: float

    @property
    def part(self) -> Region:
        """The region of interest, or all of the image."""
        (x, y), (height, width) = self.offset, self.letterboxed.original_shape
        return Region(x, y, x + width, y + height)

    def places(self, tiling: Tiling | None) -> tuple[Origin, ...]:
        """What is to be run, each with where it is from; `tiling` as it was framed with."""
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
