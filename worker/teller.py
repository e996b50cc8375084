"""Makes results of what passes answer, beside the event loop and the device where it takes long:
masks, and many tiles. What does not fit in the bounded backlog is refused at once.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from worker import merging, results
from worker.backends.base import Candidates, NmsOptions
from worker.backends.beside import MaskParts
from worker.imaging import Place, Region
from worker.results import Found, MaskFormat
from yolopool.errors import QueueFull


class Teller:
    """Works on `threads` threads, and takes no request for masks while `capacity` images wait for
    theirs: each holds some megabytes of prototypes. Deadlines are of `clock`, the engine's.
    """

    def __init__(
        self, threads: int, capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._closed = threading.Event()
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="teller")

    def check(self) -> None:
        """Raises QueueFull for a request that would want masks."""
        if self._waiting >= self._capacity:
            raise QueueFull(f"{self._waiting} images wait for their masks: try again shortly")

    async def tell(
        self, candidates: Candidates, place: Place, mask_format: MaskFormat, deadline: float
    ) -> Found:
        """As results.found; cancelled, too late or closed, it ends before the next mask."""
        if not isinstance(candidates.beside, MaskParts):
            return results.found(candidates, place, mask_format)
        with self._lock:
            self._waiting += 1
        left = threading.Event()

        def stop() -> bool:
            return left.is_set() or self._closed.is_set() or self._clock() >= deadline

        work = self._threads.submit(results.found, candidates, place, mask_format, stop)
        work.add_done_callback(lambda _: self._done())
        try:
            return await asyncio.wrap_future(work)
        finally:
            left.set()

    async def merge(
        self, parts: Sequence[tuple[Region, Found]], whole: Region, nms: NmsOptions
    ) -> Found:
        """As merging.merge."""
        work = self._threads.submit(
            merging.merge, parts, whole, nms.iou, nms.agnostic, nms.max_detections
        )
        return await asyncio.wrap_future(work)

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1

    def close(self) -> None:
        """Cancels what waits. The threads end by themselves after the mask or merge they are at:
        an event loop must not wait for them.
        """
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
