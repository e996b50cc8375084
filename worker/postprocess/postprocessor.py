"""Turns candidates into results. Masks and merges of tiles, which take long, run on threads beside
the event loop. Their backlog is bounded: what does not fit is refused at once.
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
    """Works on `threads` threads. Refuses requests for masks while `capacity` images wait for
    theirs, or while their prototypes take `capacity_bytes` (3 MiB for an image of 640 pixels, 50
    for one of 2560). `clock` is the engine's, which deadlines are of.
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
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="postprocess")

    def check(self) -> None:
        """Raises QueueFull if a request for masks would find no room."""
        if self._waiting >= self._capacity or self._waiting_bytes >= self._capacity_bytes:
            raise self._full()

    async def run(
        self, candidates: Candidates, origin: Origin, mask_format: MaskFormat, deadline: float
    ) -> Results:
        """results_of, which ends before the next mask when the call is cancelled, when the deadline
        passes, or on close. Raises QueueFull if the bytes do not fit, which `check` can't know.
        """
        if not isinstance(candidates.task_output, MaskParts):
            return results.results_of(candidates, origin, mask_format)
        size = candidates.task_output.prototypes.nbytes
        with self._lock:
            # A single image is always accepted, however large.
            if self._waiting and self._waiting_bytes + size > self._capacity_bytes:
                raise self._full()
            self._waiting += 1
            self._waiting_bytes += size
        caller_left = threading.Event()

        def stop() -> bool:
            return caller_left.is_set() or self._closed.is_set() or self._clock() >= deadline

        work = self._threads.submit(results.results_of, candidates, origin, mask_format, stop)
        work.add_done_callback(lambda _: self._done(size))
        try:
            return await asyncio.wrap_future(work)
        finally:
            caller_left.set()

    async def merge(
        self, tiles: Sequence[tuple[Region, Results]], whole: Region, nms: NmsOptions
    ) -> Results:
        """merge_tiles, on a thread."""
        work = self._threads.submit(
            tile_merge.merge_tiles, tiles, whole, nms.iou, nms.agnostic, nms.max_detections
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
        """Cancels what waits. The threads end after their current mask or merge; this does not
        wait for them, since it runs on the event loop.
        """
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
