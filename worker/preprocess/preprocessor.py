"""Decodes, crops and letterboxes images on a few threads, beside the event loop.

OpenCV releases the interpreter lock while it works, so that the threads run in parallel. The
backlog is bounded: an image that finds no place in it, or no slot for its pixels, is refused at
once.
"""

import ctypes
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import cv2
from PIL import Image

from worker.arrays import U8
from worker.concurrency.reply import Reply
from worker.concurrency.thread_pool import ThreadPool
from worker.concurrency.turn_backlog import TurnBacklog
from worker.preprocess import decode, letterbox
from worker.preprocess.arena import Arena
from worker.preprocess.decode import DecodedImage, ImageLimits
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
    """An image that waits for a thread, or is on one. `slot` is None once it is used or given up,
    and with tiles, whose slot is allocated when their number is known.
    """

    number: int
    source: bytes | RawPixels
    region_of_interest: Box | None
    spec: PreprocessSpec
    consumer: ImageConsumer[T]
    reply: Reply[T]
    slot: U8 | None


class Preprocessor:
    """Prepares images on `threads` threads into slots of `arena`, from `start` on. At most
    `capacity` images wait or are in progress. Tenants take turns.
    """

    def __init__(
        self,
        threads: int,
        capacity: int,
        limits: ImageLimits,
        arena: Arena,
        clock: Callable[[], float],
    ) -> None:
        # One thread for each image: images are many and small, and the model needs the cores.
        cv2.setNumThreads(1)
        silence_decoders()
        self._limits = limits
        self._arena = arena
        self._capacity = capacity
        self._clock = clock
        self._places = threading.BoundedSemaphore(capacity)
        self._closed = False
        self._numbers = itertools.count(1)
        # By number. Whoever pops an image, a thread or its caller, must release what it holds.
        self._waiting: dict[int, _Image[Any]] = {}
        # The numbers of the images that threads work on.
        self._in_progress: set[int] = set()
        self._backlog: TurnBacklog[int] = TurnBacklog()
        self._threads = ThreadPool("preprocess", threads)

    def start(self) -> None:
        self._threads.start()

    async def prepare(
        self,
        source: bytes | RawPixels,
        region_of_interest: Box | None,
        spec: PreprocessSpec,
        tenant: str = "",
    ) -> Prepared:
        """Decodes (bytes are an encoded image), crops and letterboxes.

        If the call is cancelled, a waiting image is dropped, and so is the result of one in
        progress. Raises QueueFull at once when the backlog or the arena is full, Draining when
        closed, ImageEmpty, ImageNotDecodable, ImageTooLarge, ImageShapeMismatch, and InvalidOption
        for the region.
        """
        return await self.prepare_then(source, region_of_interest, spec, identity, tenant)

    async def prepare_then(
        self,
        source: bytes | RawPixels,
        region_of_interest: Box | None,
        spec: PreprocessSpec,
        consumer: ImageConsumer[T],
        tenant: str = "",
    ) -> T:
        """`prepare`, and then `consumer` on the same thread, without a turn of the event loop in
        between. Returns the consumer's reply, or raises its error.
        """
        if self._closed:
            raise Draining(_ENDING)
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self._capacity} images are being decoded or wait for it: try again shortly"
            )
        try:
            # For the largest shape: the actual one is known once the image is decoded.
            slot = self._arena.allocate(spec.max_bytes) if spec.tiling is None else None
        except BaseException:
            self._places.release()
            raise
        number = next(self._numbers)
        reply: Reply[T] = Reply()
        self._waiting[number] = _Image(
            number, source, region_of_interest, spec, consumer, reply, slot
        )
        # Whoever keeps an error keeps this frame. It must hold neither the slot, nor, below, the
        # reply, which holds the error.
        del slot
        self._backlog.put(tenant, number)
        self._threads(self._work_on_next)
        try:
            return await reply.future
        finally:
            self._cancel(number)
            del reply

    @property
    def oldest(self) -> int:
        """The number of the image that a thread has worked on for the longest time; 0 if there is
        none. If it stays the same for long, a decoder hangs.
        """
        return min(tuple(self._in_progress), default=0)

    def _work_on_next(self) -> None:
        number = self._backlog.take()
        image = self._waiting.pop(number, None)
        if image is None:
            return
        self._in_progress.add(number)
        try:
            image.consumer(self._prepare(image), image.reply)
        except Exception as error:
            image.reply.fail(error)

    def _cancel(self, number: int) -> "_Image[Any] | None":
        """Takes an image out of the backlog and returns it; None if a thread has it already."""
        image = self._waiting.pop(number, None)
        if image is not None:
            self._release(image)
        return image

    def _prepare(self, image: "_Image[Any]") -> Prepared:
        try:
            started = self._clock()
            whole = self._decode(image.source, image.spec)
            pixels, offset = _region(whole.pixels, image.region_of_interest)
            decoded = self._clock()
            if image.spec.tiling is not None:
                letterboxed = self._tiles(pixels, image.spec, image.spec.tiling)
            else:
                assert image.slot is not None, "an image without tiles has a slot"
                letterboxed = _letterboxed(pixels, image.spec, image.slot, self._limits)
        finally:
            # Not when the caller leaves: this thread is still busy with the image.
            self._release(image)
        return Prepared(
            letterboxed,
            whole.pixels.shape[:2],
            offset,
            decode_s=decoded - started,
            preprocess_s=self._clock() - decoded,
            damage=whole.damage,
        )

    def _tiles(self, image: U8, spec: PreprocessSpec, tiling: Tiling) -> Letterboxed:
        """All tiles, one below the other: they have one shape."""
        height, width = image.shape[:2]
        tiles = layout(Region(0, 0, width, height), tiling)
        slot = self._arena.allocate(spec.image_bytes * len(tiles))
        first = _letterboxed(letterbox.crop(image, tiles[0]), spec, slot, self._limits).image
        for number, tile in enumerate(tiles[1:], start=1):
            _letterboxed(
                letterbox.crop(image, tile), spec, slot[number * first.nbytes :], self._limits
            )
        stack = slot[: len(tiles) * first.nbytes].reshape(-1, *first.shape[1:])
        return Letterboxed(stack, (height, width))

    def _decode(self, source: bytes | RawPixels, spec: PreprocessSpec) -> DecodedImage:
        if isinstance(source, RawPixels):
            pixels = decode.from_raw(
                source.data, source.height, source.width, source.channel_order, self._limits
            )
            return DecodedImage(decode.to_grey(pixels) if spec.channels == 1 else pixels)
        return decode.decode(source, self._limits, spec.accept_damaged, grey=spec.channels == 1)

    def _release(self, image: "_Image[Any]") -> None:
        image.slot = None
        self._in_progress.discard(image.number)
        self._places.release()

    def close(self) -> None:
        """Refuses new images and those that wait. Returns when the threads have ended."""
        self._closed = True
        for number in tuple(self._waiting):
            if (image := self._cancel(number)) is not None:
                image.reply.fail(Draining(_ENDING))
        self._threads.end()
        self._threads.join()


def silence_decoders() -> None:
    """Decoders write nothing of broken images to stderr: their senders get an error."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    pillow = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined] # its C part
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        set_handler = getattr(pillow, name, None)  # of the libtiff that pillow brings
        if set_handler is not None:
            set_handler.argtypes = [ctypes.c_void_p]
            set_handler(None)


def _region(image: U8, box: Box | None) -> tuple[U8, tuple[int, int]]:
    """The pixels of the region of interest, and their (x, y) in the image."""
    if box is None:
        return image, (0, 0)
    part = letterbox.region(box, image.shape[:2])
    return letterbox.crop(image, part), part.offset


def _letterboxed(image: U8, spec: PreprocessSpec, slot: U8, limits: ImageLimits) -> Letterboxed:
    if spec.crop:
        return letterbox.centre_crop(image, spec.image_size, spec.stride, slot, limits.max_pixels)
    return letterbox.letterbox(image, spec.image_size, spec.stride, spec.policy, slot)
