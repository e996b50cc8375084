"""One admitted request through the engine: its image, or its tiles, and one result of them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from worker.arrays import U8
from worker.batching.config import BatchingConfig
from worker.concurrency.reply import Reply
from worker.engine.engine import Engine, Request
from worker.engine.runner import Outcome
from worker.postprocess.postprocessor import Postprocessor
from worker.postprocess.results import Results, check_mask_bytes
from worker.preprocess.letterbox import Origin, Region
from worker.preprocess.prepared import ImageSource, Prepared, PreprocessSpec, identity
from worker.service.options import OutputOptions
from yolopool.errors import DeadlineUnmeetable, QueueFull

# Until a tile that found no room in the queue asks for it again.
_AGAIN_S = 0.005


@dataclass(frozen=True, slots=True)
class Inference:
    """What was found on an image, and the passes it took: of tiles their shares of passes, added
    up, and the longest wait. `device_s`: the request's share of the device; `tiles` 0: it was run
    as one.
    """

    prepared: Prepared
    found: Results
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
    """Runs what is prepared; `request.place` is the caller's to give back. Raises as Engine.submit
    and Intake.prepare, and InvalidOption for too large an answer. When one tile fails, or the
    caller leaves, all end.
    """
    if output_options.tiling is None:
        prepared, outcome = await _run_whole(engine, request, image, spec)
        (place,) = prepared.places(None)
        began = clock()
        found = await postprocessor.run(
            outcome.candidates, place, output_options.masks, request.deadline
        )
        told = replace(outcome, postprocess_s=outcome.postprocess_s + clock() - began)
        return Inference(prepared, found, told, _device_s(outcome), 0)

    prepared = await image.prepare_then(spec, identity)
    places = prepared.places(output_options.tiling)
    _check_deadline(engine, request, places, clock())
    room = asyncio.Semaphore(at_a_time(request.batching, engine.load().capacity))
    mask_bytes = 0

    async def run(number: int, place: Origin) -> tuple[Outcome, Results]:
        nonlocal mask_bytes
        async with room:
            pixels = place.letterboxed.image
            # The first takes the place that was kept while the image was decoded.
            ask = replace(request, place=0 if number else request.place)
            outcome = await _submit(engine, ask, pixels, clock, patient=number > 0)
            found = await postprocessor.run(
                outcome.candidates, place, output_options.masks, request.deadline
            )
            # Before more of them are made; merged there are no more.
            mask_bytes += found.mask_bytes
            check_mask_bytes(mask_bytes)
            return outcome, found

    runs = [asyncio.create_task(run(number, place)) for number, place in enumerate(places)]
    try:
        done = await asyncio.gather(*runs)
    except BaseException:
        for one in runs:
            one.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        raise
    outcomes = [outcome for outcome, _ in done]
    began = clock()
    parts = [(_region(place), found) for place, (_, found) in zip(places, done, strict=True)]
    merged = await postprocessor.merge(parts, prepared.part, request.options)
    outcome = _added_up(outcomes, clock() - began)
    return Inference(prepared, merged, outcome, sum(map(_device_s, outcomes)), len(places))


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


async def _run_whole(
    engine: Engine, request: Request, image: ImageSource, spec: PreprocessSpec
) -> tuple[Prepared, Outcome]:
    enqueuer = _Enqueuer(engine, request)
    outcome = await image.prepare_then(spec, enqueuer)
    assert enqueuer.prepared is not None, "the outcome is this image's"
    return enqueuer.prepared, outcome


def at_a_time(batching: BatchingConfig, capacity: int) -> int:
    """Tiles of one request in the queue: as many as keep the device busy, and at most a quarter of
    the room that the worker's queue and the version's have for all requests.
    """
    room = min(capacity, batching.queue_capacity or capacity)
    return max(1, min(2 * batching.max_batch, room // 4))


def _check_deadline(engine: Engine, request: Request, places: Sequence[Origin], now: float) -> None:
    """Only now is it known how many tiles there are. Raises DeadlineUnmeetable."""
    height, width = places[0].letterboxed.image.shape[:2]
    # In full passes; of an image alone it is known what it takes, and a tile takes no more.
    passes = -(-len(places) // max(1, request.batching.max_batch))
    least_s = passes * engine.image_s(request.version, (height, width))
    left_s = request.deadline - now
    if least_s > left_s:
        raise DeadlineUnmeetable(
            f"{len(places)} tiles take {least_s:.3f} s at least and the deadline is in "
            f"{left_s:.3f} s: allow more time, or cut fewer tiles by a larger tile_size"
        )


async def _submit(
    engine: Engine, request: Request, image: U8, clock: Callable[[], float], patient: bool
) -> Outcome:
    """As Engine.submit; a patient one asks until there is room, or its deadline passed."""
    while True:
        try:
            return await engine.submit(request, image)
        except QueueFull:
            if not patient or clock() >= request.deadline:
                raise
        await asyncio.sleep(_AGAIN_S)


def _region(place: Origin) -> Region:
    (x, y), (height, width) = place.offset, place.letterboxed.original_shape
    return Region(x, y, x + width, y + height)


def _device_s(outcome: Outcome) -> float:
    stages_s = outcome.transfer_s + outcome.inference_s + outcome.postprocess_s
    return stages_s / outcome.batch_size


def _added_up(outcomes: Sequence[Outcome], merge_s: float) -> Outcome:
    return replace(
        outcomes[0],
        queue_s=max(one.queue_s for one in outcomes),
        transfer_s=sum(one.transfer_s / one.batch_size for one in outcomes),
        inference_s=sum(one.inference_s / one.batch_size for one in outcomes),
        postprocess_s=sum(one.postprocess_s / one.batch_size for one in outcomes) + merge_s,
        batch_size=max(one.batch_size for one in outcomes),
    )
