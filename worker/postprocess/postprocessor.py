"""Makes results of what passes answer, beside the event loop and the device where it takes long:
masks, and many tiles. What does not fit in the bounded backlog is refused at once.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from worker.postprocess import results, tile_merge
from worker.postprocess.outputs import Candidates, MaskParts, NmsOptions
from worker.postprocess.results import MaskFormat, Results
from worker.preprocess.letterbox import Origin, Region
from yolopool.errors import QueueFull


class Postprocessor:
    """Works on `threads` threads, and takes no request for masks while `capacity` images wait for
    theirs, or what they are made of has `capacity_bytes`: 3 MiB an image of 640 pixels, 50 one of
    2560. Deadlines are of `clock`, the engine's.
    """

    def __init__(
        self,
        threads: int,
        capacity: int,
        clock: Callable[[], float],
        capacity_bytes: int = 1024**3,
    ) -> None:
        self._clock = clock
        self._closed = threading.Event()
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._lock = threading.Lock()
        self._waiting, self._waiting_bytes = 0, 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="teller")

    def check(self) -> None:
        """Raises QueueFull for a request that would want masks."""
        if self._waiting >= self._capacity or self._waiting_bytes >= self._capacity_bytes:
            raise self._full()

    async def run(
        self, candidates: Candidates, place: Origin, mask_format: MaskFormat, deadline: float
    ) -> Results:
        """As results.found; cancelled, too late or closed, it ends before the next mask. Raises
        QueueFull where the bytes of those that were let in by `check` do not fit together.
        """
        if not isinstance(candidates.task_output, MaskParts):
            return results.results_of(candidates, place, mask_format)
        size = candidates.task_output.prototypes.nbytes
        with self._lock:
            # One alone is always made, however large.
            if self._waiting and self._waiting_bytes + size > self._capacity_bytes:
                raise self._full()
            self._waiting += 1
            self._waiting_bytes += size
        left = threading.Event()

        def stop() -> bool:
            return left.is_set() or self._closed.is_set() or self._clock() >= deadline

        work = self._threads.submit(results.results_of, candidates, place, mask_format, stop)
        work.add_done_callback(lambda _: self._done(size))
        try:
            return await asyncio.wrap_future(work)
        finally:
            left.set()

    async def merge(
        self, parts: Sequence[tuple[Region, Results]], whole: Region, nms: NmsOptions
    ) -> Results:
        """As merging.merge."""
        work = self._threads.submit(
            tile_merge.merge_tiles, parts, whole, nms.iou, nms.agnostic, nms.max_detections
        )
        return await asyncio.wrap_future(work)

    def _done(self, size: int) -> None:
        with self._lock:
            self._waiting -= 1
            self._waiting_bytes -= size

    def _full(self) -> QueueFull:
        return QueueFull(
            f"{self._waiting} images wait for their masks, {self._waiting_bytes >> 20} MiB: try "
            "again shortly"
        )

    def close(self) -> None:
        """Cancels what waits. The threads end by themselves after the mask or merge they are at:
        an event loop must not wait for them.
        """
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
