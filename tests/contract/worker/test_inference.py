"""A tiled request takes its share of the queue, and waits where there is no room."""

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from worker.arrays import U8
from worker.batching.config import BatchingConfig
from worker.concurrency.reply import Reply
from worker.engine.engine import Engine
from worker.engine.request import QueueLoad, Request
from worker.engine.runner import Outcome
from worker.postprocess import results
from worker.postprocess.outputs import Candidates, MaskParts, NmsOptions
from worker.postprocess.postprocessor import Postprocessor
from worker.postprocess.results import MaskFormat
from worker.preprocess.letterbox import Letterboxed
from worker.preprocess.prepared import ImageConsumer, Prepared, PreprocessSpec, T
from worker.preprocess.tiling import Tiling
from worker.service import inference
from worker.service.options import OutputOptions
from yolopool.errors import DeadlineExceeded, DeadlineUnmeetable, InvalidOption, QueueFull
from yolopool.vocabulary import ShapePolicy


@pytest.mark.parametrize(
    ("batching", "capacity", "expected"),
    [
        (BatchingConfig(max_batch=16), 256, 32),
        (BatchingConfig(max_batch=16), 64, 16),
        (BatchingConfig(max_batch=16, queue_capacity=8), 256, 2),
        (BatchingConfig(max_batch=1, queue_capacity=1), 256, 1),
    ],
)
def test_tiles_take_a_share_of_the_queue(
    batching: BatchingConfig, capacity: int, expected: int
) -> None:
    assert inference.tiles_in_flight(batching, capacity) == expected


TILING = Tiling(32, 0.0)
SPEC = PreprocessSpec(32, 32, ShapePolicy.SQUARE, tiling=TILING)
CAPACITY = 8


class Scripted:
    """An engine without a device, which refuses the second image `full` times."""

    def __init__(self, full: int = 0, image_s: float = 0.0) -> None:
        self.full, self.seconds, self.asked = full, image_s, 0

    def load(self) -> QueueLoad:
        return QueueLoad(0, CAPACITY, 0.0, 1)

    def image_s(self, version: str, shape: tuple[int, int]) -> float:
        assert shape == (32, 32)
        return self.seconds

    async def submit(self, request: Request, image: U8) -> Outcome:
        self.asked += 1
        if self.asked > 1 and self.full:
            self.full -= 1
            raise QueueFull("full")
        parts = MaskParts(np.ones((1, 1), np.float32), np.ones((1, 8, 8), np.float32))
        box = np.array([[4, 4, 28, 28]], np.float32)
        candidates = Candidates(box, np.ones(1, np.float32), np.zeros(1, np.int64), parts)
        return Outcome(candidates, 0.0, 0.0, 0.0, 0.0, 1)


class Ready:
    """An image that is prepared already."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared

    async def prepare_then(self, spec: PreprocessSpec, consumer: ImageConsumer[T]) -> T:
        reply = Reply[T]()
        consumer(self._prepared, reply)
        return await reply.future


async def run(
    engine: Scripted, left_s: float = 30.0, clock: Callable[[], float] = time.monotonic
) -> inference.Inference:
    stack = np.zeros((4 * 32, 32, 3), np.uint8)
    prepared = Prepared(Letterboxed(stack, (64, 64)), (64, 64), (0, 0), 0.0, 0.0)
    nms = NmsOptions((0.25,), 0.5, 10, False)
    deadline = clock() + left_s
    request = Request("m@1", nms, 1, deadline, BatchingConfig(max_batch=2))

    output_options = OutputOptions(MaskFormat.RLE, 5, False, 32, TILING, False)
    postprocessor = Postprocessor(1, 8, clock)
    try:
        return await inference.infer(
            cast(Engine, engine),
            postprocessor,
            request,
            Ready(prepared),
            SPEC,
            output_options,
            clock,
        )
    finally:
        postprocessor.close()


async def test_later_tiles_wait_for_room() -> None:
    engine = Scripted(full=5)
    answer = await run(engine)
    assert (answer.tiles, engine.asked, len(answer.results.class_id)) == (4, 9, 4)


async def test_room_that_never_comes_ends_with_the_deadline() -> None:
    with pytest.raises(QueueFull):
        await run(Scripted(full=1_000_000), 0.2)


async def test_tiles_that_cannot_be_done_in_time_are_refused_at_once() -> None:
    engine = Scripted(image_s=20.0)
    with pytest.raises(DeadlineUnmeetable, match="4 tiles"):
        await run(engine)
    assert engine.asked == 0


@pytest.mark.parametrize("ahead_s", [-1e6, 1e6])
async def test_deadlines_of_tiles_are_of_the_clock_that_was_given(ahead_s: float) -> None:
    def clock() -> float:
        return time.monotonic() + ahead_s

    assert (await run(Scripted(full=5, image_s=1.0), clock=clock)).tiles == 4
    with pytest.raises(DeadlineUnmeetable):
        await run(Scripted(image_s=20.0), clock=clock)
    with pytest.raises(QueueFull):
        async with asyncio.timeout(20):
            await run(Scripted(full=1_000_000), 0.2, clock)


async def test_masks_of_all_tiles_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_bytes = (await run(Scripted())).results.mask_bytes // 4
    monkeypatch.setattr(results, "MAX_MASK_BYTES", 3 * tile_bytes)
    with pytest.raises(InvalidOption, match="fewer detections"):
        await run(Scripted())


async def test_tiles_that_fail_keep_no_pixels() -> None:
    """Not until Python's collector runs: an error's frames and the tiles' tasks are a ring."""
    kept: list[weakref.ref[U8]] = []

    class Late(Scripted):
        async def submit(self, request: Request, image: U8) -> Outcome:
            kept.append(weakref.ref(image))
            await asyncio.sleep(0)
            raise DeadlineExceeded("the deadline passed in the queue")

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(DeadlineExceeded) as failed:
            await run(Late())
        del failed
        await asyncio.sleep(0)
        assert kept
        assert [image() for image in kept if image() is not None] == []
    finally:
        gc.enable()
