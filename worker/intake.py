"""The door where images come in: decode, crop and letterbox on a few threads, beside the loop.

OpenCV gives up the interpreter lock while it works, so threads do run at once. What does not fit
in the bounded backlog is refused at once, not queued into lateness.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2

from worker import imaging
from worker.imaging import ChannelOrder, ImageLimits, Letterboxed, ShapePolicy
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for a model.

    `image_shape` is the (height, width) of the whole image, upright; `offset` the (x, y) of the
    region of interest in it, for `imaging.to_original`. Times are seconds of this image's thread.
    """

    letterboxed: Letterboxed
    image_shape: tuple[int, int]
    offset: tuple[int, int]
    decode_s: float
    preprocess_s: float


class Intake:
    """Prepares images on `threads` threads, at most `capacity` waiting or under way."""

    def __init__(
        self,
        threads: int,
        capacity: int,
        limits: ImageLimits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        # One thread an image: images are many and small, and the cores belong to the model.
        cv2.setNumThreads(1)
        # Whoever sends a broken image is told so; the log is not theirs to write into.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._limits = limits
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
        QueueFull at once when the backlog is full, Draining when closed, ImageEmpty,
        ImageNotDecodable, ImageTooLarge, ImageShapeMismatch, and InvalidOption for the region.
        """
        if self._closed:
            raise Draining("this worker is ending: ask another")
        if not self._places.acquire(blocking=False):
            raise QueueFull(
                f"{self._capacity} images are being decoded or wait for it: try again shortly"
            )
        work = self._threads.submit(self._prepare, source, region_of_interest, framing)
        # Given back when the work is over, not when its caller goes: a thread is still busy then.
        work.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(work)

    def _prepare(
        self, source: bytes | RawPixels, region_of_interest: Box | None, framing: Framing
    ) -> Prepared:
        started = self._clock()
        if isinstance(source, RawPixels):
            image = imaging.from_raw(
                source.data, source.height, source.width, source.channel_order, self._limits
            )
        else:
            image = imaging.decode(source, self._limits)
        decoded = self._clock()
        height, width = image.shape[:2]
        offset = (0, 0)
        if region_of_interest is not None:
            part = imaging.region(region_of_interest, (height, width))
            image, offset = imaging.crop(image, part), part.offset
        letterboxed = imaging.letterbox(image, framing.image_size, framing.stride, framing.policy)
        return Prepared(
            letterboxed,
            (height, width),
            offset,
            decode_s=decoded - started,
            preprocess_s=self._clock() - decoded,
        )

    def close(self) -> None:
        """Refuses new images, cancels those that wait, and returns when the threads have ended."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
