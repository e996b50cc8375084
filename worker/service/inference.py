"""Runs one admitted request: the whole image in one batch, or its tiles, merged into one result."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from worker.arrays import U8
from worker.batching.config import BatchingConfig
from worker.concurrency.reply import Reply
from worker.engine.engine import Engine
from worker.engine.request import Request
from worker.engine.runner import Outcome
from worker.postprocess.postprocessor import Postprocessor
from worker.postprocess.results import Results, check_mask_bytes
from worker.preprocess.letterbox import Origin, Region
from worker.preprocess.prepared import ImageSource, Prepared, PreprocessSpec, identity
from worker.service.options import OutputOptions
from yolopool.errors import DeadlineUnmeetable, QueueFull

# A tile that found the queue full tries again after this time.
_RETRY_S = 0.005


@dataclass(frozen=True, slots=True)
class Inference:
    """The results on one image, and what they took. With tiles, `outcome` adds up their shares of
    the passes and has the longest wait. `device_s` is the request's share of the device's time;
    `tiles` is 0 if the image ran whole.
    """

    prepared: Prepared
    results: Results
    outcome: Outcome
    device_s: float
    tiles: int


async def infer(
    engine: Engine,
    postprocessor: Postprocessor,
    request: Request,
    image: ImageSource,
    spec: PreprocessSpec,
    output_options: OutputOptions,
    clock: Callable[[], float],
) -> Inference:
    """Prepares the image, runs it and makes its results. `clock` is the engine's.

    The caller frees `request.place`. Raises what Engine.submit and ImageSource.prepare_then raise,
    and InvalidOption for masks of too many bytes. If one tile fails, or the caller leaves, all
    tiles are cancelled.
    """
    if output_options.tiling is None:
        enqueuer = _Enqueuer(engine, request)
        outcome = await image.prepare_then(spec, enqueuer)
        assert enqueuer.prepared is not None, "the outcome is this image's"
        return await _finish_whole(
            postprocessor, request, enqueuer.prepared, outcome, output_options, clock
        )
    prepared = await image.prepare_then(spec, identity)
    return await _run_tiles(engine, postprocessor, request, prepared, output_options, clock)


class _Enqueuer:
    """The consumer that puts a whole image into the engine's queue, on the thread that prepared
    it: each turn of the event loop in between would cost the device a tenth of a millisecond.
    """

    def __init__(self, engine: Engine, request: Request) -> None:
        self.prepared: Prepared | None = None
        self._engine = engine
        self._request = request

    def __call__(self, prepared: Prepared, reply: Reply[Outcome]) -> None:
        self.prepared = prepared
        self._engine.put(self._request, prepared.letterboxed.image, reply)


async def _finish_whole(
    postprocessor: Postprocessor,
    request: Request,
    prepared: Prepared,
    outcome: Outcome,
    output_options: OutputOptions,
    clock: Callable[[], float],
) -> Inference:
    (origin,) = prepared.origins(None)
    began = clock()
    results = await postprocessor.run(
        outcome.candidates, origin, output_options.masks, request.deadline
    )
    whole = replace(outcome, postprocess_s=outcome.postprocess_s + clock() - began)
    return Inference(prepared, results, whole, _device_s(outcome), 0)


async def _run_tiles(
    engine: Engine,
    postprocessor: Postprocessor,
    request: Request,
    prepared: Prepared,
    output_options: OutputOptions,
    clock: Callable[[], float],
) -> Inference:
    origins = prepared.origins(output_options.tiling)
    _check_deadline(engine, request, origins, clock())
    slots = asyncio.Semaphore(tiles_in_flight(request.batching, engine.load().capacity))
    mask_bytes = 0

    async def run(number: int, origin: Origin) -> tuple[Outcome, Results]:
        nonlocal mask_bytes
        async with slots:
            pixels = origin.letterboxed.image
            # The first tile takes the queue place that was reserved while the image was decoded.
            ticket = replace(request, place=0 if number else request.place)
            outcome = await _submit(engine, ticket, pixels, clock, patient=number > 0)
            results = await postprocessor.run(
                outcome.candidates, origin, output_options.masks, request.deadline
            )
            # Checked before more masks are made: merging adds none.
            mask_bytes += results.mask_bytes
            check_mask_bytes(mask_bytes)
            return outcome, results

    runs = [asyncio.create_task(run(number, origin)) for number, origin in enumerate(origins)]
    try:
        done = await asyncio.gather(*runs)
    except BaseException:
        for tile_run in runs:
            tile_run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        raise
    finally:
        # An error's frames hold this list, and its tasks hold the pixels and the error: a ring that
        # would keep the image's memory until Python's collector runs.
        runs.clear()
    outcomes = [outcome for outcome, _ in done]
    began = clock()
    parts = [(_region(origin), results) for origin, (_, results) in zip(origins, done, strict=True)]
    merged = await postprocessor.merge(parts, prepared.part, request.options)
    outcome = _sum_of(outcomes, clock() - began)
    return Inference(prepared, merged, outcome, sum(map(_device_s, outcomes)), len(origins))


def tiles_in_flight(batching: BatchingConfig, capacity: int) -> int:
    """How many tiles of one request may be in the queue: enough to keep the device busy, and at
    most a quarter of the queue, the worker's or the version's, whichever is shorter.
    """
    shorter = min(capacity, batching.queue_capacity or capacity)
    return max(1, min(2 * batching.max_batch, shorter // 4))


def _check_deadline(
    engine: Engine, request: Request, origins: Sequence[Origin], now: float
) -> None:
    """Raises DeadlineUnmeetable if the tiles can't be run in time. Their number was not known when
    the request was admitted.
    """
    height, width = origins[0].letterboxed.image.shape[:2]
    # A lower bound: a full batch takes at least as long as one image alone, which is measured.
    passes = -(-len(origins) // max(1, request.batching.max_batch))
    min_s = passes * engine.image_s(request.version, (height, width))
    left_s = request.deadline - now
    if min_s > left_s:
        raise DeadlineUnmeetable(
            f"{len(origins)} tiles take {min_s:.3f} s at least and the deadline is in "
            f"{left_s:.3f} s: allow more time, or cut fewer tiles by a larger tile_size"
        )


async def _submit(
    engine: Engine, request: Request, image: U8, clock: Callable[[], float], patient: bool
) -> Outcome:
    """Engine.submit; if `patient`, a full queue is tried again until the deadline."""
    while True:
        try:
            return await engine.submit(request, image)
        except QueueFull:
            if not patient or clock() >= request.deadline:
                raise
        await asyncio.sleep(_RETRY_S)


def _region(origin: Origin) -> Region:
    (x, y), (height, width) = origin.offset, origin.letterboxed.original_shape
    return Region(x, y, x + width, y + height)


def _device_s(outcome: Outcome) -> float:
    stages_s = outcome.transfer_s + outcome.inference_s + outcome.postprocess_s
    return stages_s / outcome.batch_size


def _sum_of(outcomes: Sequence[Outcome], merge_s: float) -> Outcome:
    return replace(
        outcomes[0],
        queue_s=max(outcome.queue_s for outcome in outcomes),
        transfer_s=sum(outcome.transfer_s / outcome.batch_size for outcome in outcomes),
        inference_s=sum(outcome.inference_s / outcome.batch_size for outcome in outcomes),
        postprocess_s=sum(outcome.postprocess_s / outcome.batch_size for outcome in outcomes)
        + merge_s,
        batch_size=max(outcome.batch_size for outcome in outcomes),
    )
