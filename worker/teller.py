"""Makes results of what passes answer, beside the event loop and the device where it takes long:
masks, and many tiles. What does not fit in the bounded backlog is refused at once.
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from worker import merging, results
from worker.backends.base import Candidates, NmsOptions
from worker.backends.beside import MaskParts
from worker.imaging import Place, Region
from worker.results import Found, MaskFormat
from yolopool.errors import QueueFull


class Teller:
    """Works on `threads` threads, and takes no request for masks while `capacity` images wait for
    theirs: each holds some megabytes of prototypes.
    """

    def __init__(self, threads: int, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._waiting = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="teller")

    def check(self) -> None:
        """Raises QueueFull for a request that would want masks."""
        if self._waiting >= self._capacity:
            raise QueueFull(f"{self._waiting} images wait for their masks: try again shortly")

    async def tell(self, candidates: Candidates, place: Place, mask_format: MaskFormat) -> Found:
        """As results.found. Cancelled while it waits, nothing is done."""
        if not isinstance(candidates.beside, MaskParts):
            return results.found(candidates, place, mask_format)
        with self._lock:
            self._waiting += 1
        work = self._threads.submit(results.found, candidates, place, mask_format)
        work.add_done_callback(lambda _: self._done())
        return await asyncio.wrap_future(work)

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
        """Cancels what waits, and returns when the threads have ended."""
        self._threads.shutdown(wait=True, cancel_futures=True)
