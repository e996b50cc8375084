"""The door where images come in: decode, crop and letterbox on a few threads, beside the loop.

OpenCV gives up the interpreter lock while it works, so threads do run at once. What does not fit
in the bounded backlog, or finds no slot for its pixels, is refused at once, not queued into
lateness.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from worker import imaging
from worker.arena import Arena
from worker.imaging import U8, ChannelOrder, ImageLimits, Letterboxed, ShapePolicy
from yolopool.errors import Draining, QueueFull

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class RawPixels:
    """An uncompressed image: uint8, row-major HWC."""

    data: bytes
    height: int
    width: int
    channel_order: ChannelOrder


@dataclass(frozen=True, slots=True)
class Framing:
    """How a version wants its images: longest side and stride in pixels, and the policy."""

    image_size: int
    stride: int
    policy: ShapePolicy

    @property
    def most_bytes(self) -> int:
        """Of a letterboxed image: the whole square."""
        side = imaging.size_of(self.image_size, self.stride)
        return 3 * side * side


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for a model; its pixels lie in a slot, which is lent as long as they are
    held.

    `image_shape` is the (height, width) of the whole image, upright; `offset` the (x, y) of the
    region of interest in it, for `imaging.to_original`. Times are seconds of this image's thread.
    """

    letterboxed: Letterboxed
    image_shape: tuple[int, int]
    offset: tuple[int, int]
    decode_s: float
    preprocess_s: float


class Intake:
    """Prepares images on `threads` threads, at most `capacity` waiting or under way, into slots
    of `arena`.
    """

    def __init__(
        self,
        threads: int,
        capacity: int,
        limits: ImageLimits,
        arena: Arena,
        clock: Callable[[], float] = time.perf_counter,
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
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="intake")

    async def prepare(
        self, source: bytes | RawPixels, region_of_interest: Box | None, framing: Framing
    ) -> Prepared:
        """Decodes (bytes are an encoded image), crops and letterboxes.

        Cancelled while it waits, nothing is done; under way, the result is dropped. Raises
        QueueFull at once when the backlog or the arena is full, Draining when closed, ImageEmpty,
        ImageNotDecodable, ImageTooLarge, ImageShapeMismatch, and InvalidOption for the region.
        """
        if self._closed:
            raise Draining("this worker is ending: ask another")
        # The largest it may become: how large it does is known when it is decoded.
        slot = self._arena.room(framing.most_bytes)
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self._capacity} images are being decoded or wait for it: try again shortly"
            )
        work = self._threads.submit(self._prepare, source, region_of_interest, framing, slot)
        del slot  # whoever keeps an error keeps the variables of all it came through
        # Given back when the work is over, not when its caller goes: a thread is still busy then.
        work.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(work)

    def _prepare(
        self,
        source: bytes | RawPixels,
        region_of_interest: Box | None,
        framing: Framing,
        slot: U8,
    ) -> Prepared:
        started = self._clock()
        try:
            image, image_shape, offset = self._read(source, region_of_interest)
        except BaseException:
            del slot
            raise
        decoded = self._clock()
        letterboxed = imaging.letterbox(
            image, framing.image_size, framing.stride, framing.policy, slot
        )
        return Prepared(
            letterboxed,
            image_shape,
            offset,
            decode_s=decoded - started,
            preprocess_s=self._clock() - decoded,
        )

    def _read(
        self, source: bytes | RawPixels, region_of_interest: Box | None
    ) -> tuple[U8, tuple[int, int], tuple[int, int]]:
        """The pixels asked for, the (height, width) of the whole image, and their (x, y) in it."""
        if isinstance(source, RawPixels):
            image = imaging.from_raw(
                source.data, source.height, source.width, source.channel_order, self._limits
            )
        else:
            image = imaging.decode(source, self._limits)
        height, width = image.shape[:2]
        if region_of_interest is None:
            return image, (height, width), (0, 0)
        part = imaging.region(region_of_interest, (height, width))
        return imaging.crop(image, part), (height, width), part.offset

    def close(self) -> None:
        """Refuses new images, cancels those that wait, and returns when the threads have ended."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
