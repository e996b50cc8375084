"""What a closed loop of callers gets of one device, foretold from costs that were measured.

The worker's own shells run on virtual time, as in every simulation; the control plane is left out,
since nothing is asked of it while all models are assigned to one worker.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.harness.statistics import quantile
from benchmarks.simulation import clock
from benchmarks.simulation.clock import VirtualLoop
from benchmarks.simulation.fleet import Fleet
from benchmarks.simulation.shells import Shape, raising_shell_bugs
from benchmarks.simulation.sizes import Model
from worker.backends.simulated import TimeCurve


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one model on one device, in seconds: a pass of n images takes pass_fixed_s + n x
    pass_image_s, bringing it to the device swap_s, of which the device is busy for copy_s; a
    request takes `beside_s` more, in which the device may work for others.
    """

    pass_fixed_s: float
    pass_image_s: float
    swap_s: float
    copy_s: float
    beside_s: float
    weights_bytes: int
    max_batch: int


@dataclass(frozen=True, slots=True)
class Prediction:
    hit_rate: float
    swaps_a_minute: float
    throughput: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class MeasuredCurve(TimeCurve):
    """Passes and copies as they were measured, whatever the shape and size."""

    costs: Costs | None = None

    def pass_s(self, shape: tuple[int, int], images: int, parameters: int) -> float:
        assert self.costs is not None
        return self.costs.pass_fixed_s + images * self.costs.pass_image_s

    def load_s(self, size_bytes: int) -> float:
        assert self.costs is not None
        return self.costs.copy_s


@dataclass(frozen=True, slots=True)
class MeasuredModel(Model):
    """Reading it takes what of its swap is not copying."""

    swap: float = 0.0
    copy: float = 0.0

    @property
    def copy_s(self) -> float:
        return self.copy

    @property
    def swap_s(self) -> float:
        return self.swap

    @property
    def fetch_s(self) -> float:
        return 0.0


def predict(
    costs: Costs,
    choices: Sequence[int],
    models: int,
    room: float,
    callers: int,
    warmup_s: float,
    seconds: float,
) -> Prediction:
    """`room`: so many of `models` fit; the requests of `choices`, by `callers`, in order."""

    async def main(loop: VirtualLoop) -> Prediction:
        with raising_shell_bugs():
            return await _play(loop, costs, choices, models, room, callers, warmup_s, seconds)

    return clock.run(main)


async def _play(
    loop: VirtualLoop,
    costs: Costs,
    choices: Sequence[int],
    models: int,
    room: float,
    callers: int,
    warmup_s: float,
    seconds: float,
) -> Prediction:
    one = MeasuredModel("n", costs.weights_bytes, costs.swap_s, costs.copy_s)
    shape = Shape(
        int(room * costs.weights_bytes), True, MeasuredCurve(costs=costs), costs.max_batch
    )
    fleet = Fleet(loop, [one] * models, [shape])
    await fleet.start()
    for id_ in range(models):  # all assigned, as the real run begins
        await fleet.request(-1 - id_, id_)
    begin_s = loop.time() + warmup_s
    end_s = begin_s + seconds
    numbers = iter(range(len(choices)))
    latencies_s: list[float] = []
    counted: list[tuple[int, int]] = []

    def count() -> None:
        """Requests and hits so far, as the workers count them."""
        held = [one for worker in fleet.workers.values() for one in worker.hands.held.values()]
        counted.append(
            (sum(one.requests_total for one in held), sum(one.hits_total for one in held))
        )

    async def caller() -> None:
        for number in numbers:
            sent_s = loop.time()
            if sent_s >= end_s:
                return
            await asyncio.sleep(costs.beside_s / 2)
            await fleet.request(number, choices[number])
            await asyncio.sleep(costs.beside_s / 2)
            if sent_s >= begin_s:
                latencies_s.append(loop.time() - sent_s)

    loop.call_at(begin_s, count)
    loop.call_at(end_s, count)
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    (requests_before, hits_before), (requests, hits) = counted
    swapper = sum(begin_s <= load.at < end_s for load in fleet.loads)
    return Prediction(
        hit_rate=(hits - hits_before) / (requests - requests_before),
        swaps_a_minute=60 * swapper / seconds,
        throughput=len(latencies_s) / seconds,
        p50_ms=1e3 * quantile(latencies_s, 0.5),
        p99_ms=1e3 * quantile(latencies_s, 0.99),
    )
