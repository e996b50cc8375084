"""The batch-latency curve: passes by shape and batch size, measured on the device as it serves.

Each pass is a job that waits for the batches of requests. The ledger reserves its working memory
while it runs. A batch that does not fit is left out with its reason, and so are larger ones.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np

from worker.arrays import U8
from worker.backends.base import LoadedModel, run
from worker.batching.estimates import Shape
from worker.engine.engine import Engine
from worker.engine.jobs import Turn
from worker.packs.manifest import channels_of
from worker.postprocess.outputs import NmsOptions
from worker.preprocess.prepared import PreprocessSpec
from worker.preprocess.preprocessor import Preprocessor
from worker.replicas.lifecycle import SERVING
from worker.replicas.replica import Replica
from worker.replicas.replica_table import ReplicaTable
from worker.replicas.swapper import Swapper
from worker.service import convert, options
from worker.service.bench_points import Pass, Sweep, left_out, point_of, sweep_of
from yolopool.errors import (
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    LedgerFull,
    NotAssigned,
    OutOfMemory,
)
from yolopool.v1 import bench_pb2, detection_pb2, worker_pb2
from yolopool.vocabulary import ReplicaState, ShapePolicy

# All batch sizes of a shape are measured in each round, so that a disturbance of the machine falls
# on all of them.
ROUNDS = 3
MIN_PASSES = 2  # of a point in a round
# A running pass holds up requests, so none starts that is expected to take longer.
MAX_PASS_S = 5.0
# The next pass may take this many times the last one; then the answer must still be sent.
SLOWDOWN, RESPONSE_S = 1.5, 0.1
RECTANGLES = 64
# With these errors a point is left out, and the sweep goes on.
LEFT_OUT = (LedgerFull, OutOfMemory, DeadlineExceeded)


class CurveRunner:
    """All methods run on the event loop. No state is kept between two sweeps."""

    def __init__(
        self,
        replicas: ReplicaTable,
        swapper: Swapper,
        engine: Engine,
        preprocessor: Preprocessor,
        clock: Callable[[], float],
    ) -> None:
        self._replicas = replicas
        self._swapper = swapper
        self._engine = engine
        self._preprocessor = preprocessor
        self._clock = clock

    async def points(
        self, request: worker_pb2.BenchRequest, deadline: float
    ) -> AsyncGenerator[bench_pb2.BenchPoint, None]:
        """Yields the points of a sweep. `deadline` is in seconds of the clock.

        Raises NotAssigned, InvalidOption, Draining, LedgerFull (the version does not fit on the
        device), InferenceFailed, and the errors of an image that can't be used.
        """
        with self._replicas.hold(convert.key_of(request.version)) as replica:
            await self._on_device(replica)
            sweep = sweep_of(request.sweep, replica.shape, replica.stride)
            for shape in sweep.shapes:
                async with aclosing(self._of_shape(replica, sweep, shape, deadline)) as points:
                    async for point in points:
                        yield point

    async def _of_shape(
        self, replica: Replica, sweep: Sweep, shape: Shape, deadline: float
    ) -> AsyncGenerator[bench_pb2.BenchPoint, None]:
        channels = channels_of(replica.manifest_pack.manifest)
        image = await self._image(sweep.image, shape, replica.stride, channels)
        seconds = sweep.seconds / ROUNDS
        measured: dict[int, list[Pass]] = {}
        largest: bench_pb2.BenchPoint | None = None
        for batch in sweep.batches:
            if largest is None and batch > 1:
                # Nothing is known of this shape. One image shows how long more would take.
                largest, _ = await self._point(replica, [image], 0.0, deadline)
            if largest is not None and (largest.reason or _too_long(largest, batch)):
                largest = _beyond(largest, batch)
            else:
                images = [image] * batch
                largest, passes = await self._point(replica, images, seconds, deadline)
                if passes:
                    measured[batch] = passes
            yield largest
        for number in range(1, ROUNDS):
            for batch in sorted(measured, reverse=number % 2 == 1):
                try:
                    more = await self._passes(replica, [image] * batch, seconds, deadline)
                except LEFT_OUT:
                    return  # the points so far stand, and are not marked as done
                measured[batch] += more
                done = number == ROUNDS - 1
                yield point_of(shape, batch, measured[batch], self._busy(), done)

    async def _point(
        self, replica: Replica, images: Sequence[U8], seconds: float, deadline: float
    ) -> tuple[bench_pb2.BenchPoint, list[Pass]]:
        """The first point of a batch size, or why it was left out, and its passes."""
        height, width = images[0].shape[:2]
        try:
            passes = await self._passes(replica, images, seconds, deadline)
        except (*LEFT_OUT, InferenceFailed) as error:
            if isinstance(error, InferenceFailed) and len(images) == 1:
                raise  # it runs no image at all
            return left_out((height, width), len(images), error.reason, error.message), []
        return point_of((height, width), len(images), passes, self._busy()), passes

    async def _passes(
        self, replica: Replica, images: Sequence[U8], seconds: float, deadline: float
    ) -> list[Pass]:
        """Runs passes for so many seconds. The first one warms up and is not returned."""
        height, width = images[0].shape[:2]
        passes: list[Pass] = []
        began = self._clock()
        while len(passes) <= MIN_PASSES or self._clock() - began < seconds:
            # A result after the deadline reaches nobody.
            needs_s = RESPONSE_S + (SLOWDOWN * passes[-1].seconds if passes else 0.0)
            if self._clock() + needs_s >= deadline:
                raise DeadlineExceeded(
                    f"no time is left for batches of {len(images)}: allow more time, or ask for "
                    "fewer points"
                )
            done = await self._pass(replica, images)
            passes.append(done)
            replica.last_pass = self._clock()
            self._engine.note_pass(replica.key, (height, width), len(images), done.seconds)
        return passes[1:]

    async def _pass(self, replica: Replica, images: Sequence[U8]) -> Pass:
        while True:
            await self._on_device(replica)
            # Shielded: if the caller leaves, the ledger's reservation must outlast the pass.
            run = asyncio.ensure_future(self._run(replica, images))
            if (done := await asyncio.shield(run)) is not None:
                return done

    async def _run(self, replica: Replica, images: Sequence[U8]) -> Pass | None:
        """Runs one pass; None if the replica was swapped out before it could start."""
        height, width = images[0].shape[:2]
        reserve = self._swapper.reserve_workspace(replica, (height, width), len(images))
        async with reserve as reserved:
            if reserved is None:
                return None
            model, workspace_bytes = reserved
            nms = options.resolve(
                detection_pb2.DetectOptions(), replica.order.settings, len(replica.class_names)
            )
            job = partial(_timed, model, images, nms, self._clock)
            done = await self._engine.job(job, Turn.IDLE)
            return replace(done, workspace_bytes=workspace_bytes)

    async def _on_device(self, replica: Replica) -> None:
        while replica.state is not ReplicaState.HOT:
            self._check(replica)
            await self._replicas.promote(replica)
            if replica.error is not None:
                raise replica.error
        self._check(replica)

    def _check(self, replica: Replica) -> None:
        if self._replicas.draining:
            raise Draining("this worker is ending: measure on another")
        if replica.state not in SERVING:
            raise NotAssigned(f"{replica.key} was released while it was measured: load it again")

    def _busy(self) -> float:
        now = self._clock()
        return min(1.0, sum(replica.usage.busy(now) for replica in self._replicas.held()))

    async def _image(self, encoded: bytes, shape: Shape, stride: int, channels: int) -> U8:
        """Letterboxes the image to the enclosing square and cuts the shape out of its middle."""
        height, width = shape
        side = max(shape)
        if encoded:
            spec = PreprocessSpec(side, stride, ShapePolicy.SQUARE, channels=channels)
            square = (await self._preprocessor.prepare(encoded, None, spec)).letterboxed.image
        else:
            square = _picture(side)[..., :channels]
        top, left = (side - height) // 2, (side - width) // 2
        return np.ascontiguousarray(square[top : top + height, left : left + width])


def _timed(
    model: LoadedModel, images: Sequence[U8], nms: NmsOptions, clock: Callable[[], float]
) -> Pass:
    """Runs on the device thread."""
    began = clock()
    result = run(model, images, [nms] * len(images))
    seconds = clock() - began
    boxes = fmean(len(candidates.confidence) for candidates in result.candidates)
    return Pass(seconds, result.transfer_s, result.inference_s, result.postprocess_s, boxes)


def _too_long(largest: bench_pb2.BenchPoint, batch: int) -> bool:
    return largest.p50_ms / 1000 * batch / largest.batch > MAX_PASS_S


def _beyond(largest: bench_pb2.BenchPoint, batch: int) -> bench_pb2.BenchPoint:
    """The point of a batch larger than one that was left out, or that took too long."""
    shape = (largest.shape.height, largest.shape.width)
    if largest.reason:
        return left_out(
            shape, batch, largest.reason, f"a batch of {largest.batch} was left out for this reason"
        )
    return left_out(
        shape,
        batch,
        "TOO_LONG",
        f"a pass would hold up requests for more than {MAX_PASS_S:g} s",
    )


def _picture(side: int) -> U8:
    """Always the same picture, BGR (side, side, 3): rectangles of all colours on noise."""
    draw = np.random.default_rng(0)
    picture = draw.integers(96, 160, (side, side, 3), np.uint8)
    for _ in range(RECTANGLES):
        (top, left), (height, width) = draw.integers(0, side, 2), draw.integers(4, side // 3 + 4, 2)
        picture[top : top + height, left : left + width] = draw.integers(0, 256, 3, np.uint8)
    return picture
