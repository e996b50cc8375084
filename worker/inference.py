"""One admitted request through the engine: its image, or its tiles, and one result of them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from worker.engine import Engine, Request
from worker.imaging import Place, Region
from worker.intake import Prepared
from worker.options import Telling
from worker.passes import Outcome
from worker.results import Found
from worker.teller import Teller


@dataclass(frozen=True, slots=True)
class Inference:
    """What was found, and the passes it took: of tiles their shares of passes, added up, and the
    longest wait. `device_s`: the request's share of the device; `tiles` 0: it was run as one.
    """

    found: Found
    outcome: Outcome
    device_s: float
    tiles: int


async def infer(
    engine: Engine,
    teller: Teller,
    request: Request,
    prepared: Prepared,
    telling: Telling,
    clock: Callable[[], float] = time.perf_counter,
) -> Inference:
    """Runs what was prepared; `request` has the image of it all. Raises as Engine.submit, and
    InvalidOption for too large an answer. When one tile fails, or the caller leaves, all end.
    """
    places = prepared.places(telling.tiling)
    if telling.tiling is None:
        outcome = await engine.submit(request)
        began = clock()
        found = await teller.tell(outcome.candidates, places[0], telling.masks, request.deadline)
        told = replace(outcome, postprocess_s=outcome.postprocess_s + clock() - began)
        return Inference(found, told, _device_s(outcome), 0)

    # As many at a time as keep the device busy, so that one request does not fill the queue.
    room = asyncio.Semaphore(2 * max(1, request.batching.max_batch))

    async def run(number: int, place: Place) -> tuple[Outcome, Found]:
        async with room:
            image = place.letterboxed.image
            # The first takes the place that was kept while the image was decoded.
            ask = replace(request, image=image, place=0 if number else request.place)
            outcome = await engine.submit(ask)
            found = await teller.tell(outcome.candidates, place, telling.masks, request.deadline)
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
    merged = await teller.merge(parts, prepared.part, request.options)
    outcome = _added_up(outcomes, clock() - began)
    return Inference(merged, outcome, sum(map(_device_s, outcomes)), len(places))


def _region(place: Place) -> Region:
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
