"""The door where images come in: decode, crop and letterbox on a few threads, beside the loop.

OpenCV gives up the interpreter lock while it works, so threads do run at once. What does not fit
in the bounded backlog, or finds no slot for its pixels, is refused at once, not queued into
lateness.
"""

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import cv2

from worker.arrays import U8
from worker.concurrency.reply import Reply
from worker.concurrency.thread_pool import ThreadPool
from worker.preprocess import decode, letterbox
from worker.preprocess.arena import Arena
from worker.preprocess.decode import ImageLimits
from worker.preprocess.letterbox import Letterboxed, Region
from worker.preprocess.prepared import (
    Box,
    ImageConsumer,
    Prepared,
    PreprocessSpec,
    RawPixels,
    T,
    identity,
)
from worker.preprocess.tiling import Tiling, layout
from yolopool.errors import Draining, QueueFull

_ENDING = "this worker is ending: ask another"


@dataclass(slots=True, eq=False)
class _Image(Generic[T]):
    """One that waits for a thread, or has one. `slot`: None of tiles, which get theirs when it is
    known how many there are, and once it is used or given back.
    """

    number: int
    source: bytes | RawPixels
    region_of_interest: Box | None
    spec: PreprocessSpec
    consumer: ImageConsumer[T]
    reply: Reply[T]
    slot: U8 | None


class Preprocessor:
    """Prepares images on `threads` threads, at most `capacity` waiting or under way, into slots
    of `arena`; none before `start`.
    """

    def __init__(
        self,
        threads: int,
        capacity: int,
        limits: ImageLimits,
        arena: Arena,
        clock: Callable[[], float],
    ) -> None:
        # One thread an image: images are many and small, and the cores belong to the model.
        cv2.setNumThreads(1)
        # Whoever sends a broken image is told so; the log is not theirs to write into.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._limits = limits
        self._arena = arena
        self._capacity = capacity
        self._clock = clock
        self._places = threading.BoundedSemaphore(capacity)
        self._closed = False
        self._numbers = itertools.count(1)
        # By number; who takes one out of it has to see to it, be it a thread or its caller.
        self._waiting: dict[int, _Image[Any]] = {}
        # Of the images that threads are at.
        self._at: set[int] = set()
        self._threads = ThreadPool("intake", threads)

    def start(self) -> None:
        self._threads.start()

    async def prepare(
        self, source: bytes | RawPixels, region_of_interest: Box | None, spec: PreprocessSpec
    ) -> Prepared:
        """Decodes (bytes are an encoded image), crops and letterboxes.

        Cancelled while it waits, nothing is done; under way, the result is dropped. Raises
        QueueFull at once when the backlog or the arena is full, Draining when closed, ImageEmpty,
        ImageNotDecodable, ImageTooLarge, ImageShapeMismatch, and InvalidOption for the region.
        """
        return await self.prepare_then(source, region_of_interest, spec, identity)

    async def prepare_then(
        self,
        source: bytes | RawPixels,
        region_of_interest: Box | None,
        spec: PreprocessSpec,
        consumer: ImageConsumer[T],
    ) -> T:
        """As `prepare`, with no way back to the event loop between the image and what is done with
        it: the answer is what `then` has replied, or raised.
        """
        if self._closed:
            raise Draining(_ENDING)
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self._capacity} images are being decoded or wait for it: try again shortly"
            )
        try:
            # The largest it may become: how large it does is known when it is decoded.
            slot = self._arena.allocate(spec.most_bytes) if spec.tiling is None else None
        except BaseException:
            self._places.release()
            raise
        number = next(self._numbers)
        reply: Reply[T] = Reply()
        self._waiting[number] = _Image(
            number, source, region_of_interest, spec, consumer, reply, slot
        )
        # Whoever keeps an error keeps this frame: neither a slot, nor what has the error itself.
        del slot
        self._threads(partial(self._hand_on, number))
        try:
            return await reply.future
        finally:
            self._give_up(number)
            del reply

    @property
    def oldest(self) -> int:
        """The number of the image that a thread has been at for the longest time; 0: there is none.
        Who sees the same one for long sees a decoder that hangs.
        """
        return min(tuple(self._at), default=0)

    def _hand_on(self, number: int) -> None:
        image = self._waiting.pop(number, None)
        if image is None:
            return
        self._at.add(number)
        try:
            image.consumer(self._prepare(image), image.reply)
        except Exception as error:
            image.reply.fail(error)

    def _give_up(self, number: int) -> "_Image[Any] | None":
        """One that no thread has taken yet, and none will."""
        image = self._waiting.pop(number, None)
        if image is not None:
            self._over(image)
        return image

    def _prepare(self, image: "_Image[Any]") -> Prepared:
        try:
            started = self._clock()
            pixels, image_shape, offset = self._read(image.source, image.region_of_interest)
            decoded = self._clock()
            if image.spec.tiling is not None:
                letterboxed = self._tiles(pixels, image.spec, image.spec.tiling)
            else:
                assert image.slot is not None, "it was lent with the place"
                letterboxed = _framed(pixels, image.spec, image.slot, self._limits)
        finally:
            # Not when its caller goes: this thread would still be busy.
            self._over(image)
        return Prepared(
            letterboxed,
            image_shape,
            offset,
            decode_s=decoded - started,
            preprocess_s=self._clock() - decoded,
        )

    def _tiles(self, image: U8, spec: PreprocessSpec, tiling: Tiling) -> Letterboxed:
        """All tiles one beneath the other: they are of one shape."""
        height, width = image.shape[:2]
        tiles = layout(Region(0, 0, width, height), tiling)
        side = letterbox.size_of(spec.image_size, spec.stride)
        slot = self._arena.allocate(3 * side * side * len(tiles))
        first = _framed(letterbox.crop(image, tiles[0]), spec, slot, self._limits).image
        for number, tile in enumerate(tiles[1:], start=1):
            _framed(letterbox.crop(image, tile), spec, slot[number * first.nbytes :], self._limits)
        stack = slot[: len(tiles) * first.nbytes].reshape(-1, *first.shape[1:])
        return Letterboxed(stack, (height, width))

    def _read(
        self, source: bytes | RawPixels, region_of_interest: Box | None
    ) -> tuple[U8, tuple[int, int], tuple[int, int]]:
        """The pixels asked for, the (height, width) of the whole image, and their (x, y) in it."""
        if isinstance(source, RawPixels):
            image = decode.from_raw(
                source.data, source.height, source.width, source.channel_order, self._limits
            )
        else:
            image = decode.decode(source, self._limits)
        height, width = image.shape[:2]
        if region_of_interest is None:
            return image, (height, width), (0, 0)
        part = letterbox.region(region_of_interest, (height, width))
        return letterbox.crop(image, part), (height, width), part.offset

    def _over(self, image: "_Image[Any]") -> None:
        image.slot = None
        self._at.discard(image.number)
        self._places.release()

    def close(self) -> None:
        """Refuses new images and those that wait, and returns when the threads have ended."""
        self._closed = True
        for number in tuple(self._waiting):
            if (image := self._give_up(number)) is not None:
                image.reply.fail(Draining(_ENDING))
        self._threads.end()
        self._threads.join()


def _framed(image: U8, spec: PreprocessSpec, slot: U8, limits: ImageLimits) -> Letterboxed:
    if spec.crop:
        return letterbox.centre_crop(image, spec.image_size, spec.stride, slot, limits.max_pixels)
    return letterbox.letterbox(image, spec.image_size, spec.stride, spec.policy, slot)
