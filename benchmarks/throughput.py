"""The whole pool against the sum of its parts: JPEG in and boxes out, saturated and one at a time.

    python -m benchmarks.throughput --rounds 5 --seconds 20

A floor is what a step costs bare, in a process of its own that does one batch after the other; that
of the way through client, control plane and worker is the same pool with workers that answer at
once. If no core ever waited, and nothing were done beside the floors, a second would give cores /
(CPU seconds an image of all), less what that other pool takes of them while it has nothing to do.

As many processes measure floors at once as there are workers, each on the cores of one, since a
busy core slows the other. Every round has processes of its own: where their memory happens to lie
makes them faster or slower. One at a time, the floor is all steps of one image, on the cores of the
worker that answers, and the way of the pool whose workers sleep as long as a forward pass, which
is taken off. These two and the real pool take turns by the image, there and back.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.floors import BATCHES, STEPS, Floor, Floors, Table, threads_of
from benchmarks.harness.loadgen import Edge, Load, closed_loop
from benchmarks.harness.measure import (
    Begin,
    Measured,
    detecting,
    errors_of,
    joined,
    load_row,
    measured,
    stage_row,
)
from benchmarks.harness.one_model import ECHO, TIMEOUT_S, environment, jpeg, started
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.processes import CpuMeter
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median, quantile, spread
from worker.hardware.devices import Device, discover
from worker.hardware.host import Host
from yolopool.client.async_client import AsyncClient
from yolopool.client.detections import Detections
from yolopool.client.requests import PriorityName

LEAST_RATIO = 0.9
MOST_BEYOND_MS = 2.0
# Longer than a pass.
PHASES_S = 0.5
# One image: seconds by the clock, and what was answered.
Ask = Callable[[], Awaitable[tuple[float, Detections]]]


@dataclass(frozen=True, slots=True)
class Alone:
    """Seconds of an image through the pool and of its floors, in turns there and back: each is the
    mean of one right behind another of its kind, whose traces the caches still hold, and of one
    that is not.
    """

    steps_s: float
    way_s: float
    pool_s: float

    @property
    def floor_s(self) -> float:
        return self.steps_s + self.way_s


@dataclass(slots=True)
class Rounds:
    """What each round measured, or each part of one. The machine drifts, so a round is compared
    with its own floors.
    """

    floors: list[Table] = field(default_factory=list)
    echo_busy: list[Measured] = field(default_factory=list)
    busy: list[Measured] = field(default_factory=list)
    # CPU seconds of the pool that answers at once, idle beside `busy`.
    beside_s: list[float] = field(default_factory=list)
    alone: list[Measured] = field(default_factory=list)
    # Of all rounds.
    image_by_image: list[Alone] = field(default_factory=list)

    def add(self, parts: "Rounds") -> None:
        """A round that was measured in parts."""
        self.floors.append(
            {
                size: {
                    step: Floor.joined([one[size][step] for one in parts.floors]) for step in STEPS
                }
                for size in BATCHES
            }
        )
        self.echo_busy.append(joined(parts.echo_busy))
        self.busy.append(joined(parts.busy))
        self.beside_s.append(sum(parts.beside_s))
        self.alone.append(joined(parts.alone))
        self.image_by_image += parts.image_by_image

    @property
    def numbers(self) -> range:
        return range(len(self.busy))

    @property
    def batch(self) -> int:
        """The size of a batch whose images take the least CPU."""
        return min(BATCHES, key=lambda size: median([_cpu_s(one[size]) for one in self.floors]))

    def cpu_s(self, number: int) -> float:
        """The CPU that an image of a round takes by its floors."""
        of_steps = _cpu_s(self.floors[number][self.batch])
        return of_steps + sum(way_cpu_s(self.echo_busy[number]).values())

    def cores(self, number: int) -> float:
        """What the pool had of the machine's cores in a round."""
        return Host().cores() - self.beside_s[number] / self.busy[number].load.window.length_s

    def bound(self, number: int) -> float:
        """Images a second in a round if nothing were done beside the floors."""
        return self.cores(number) / self.cpu_s(number)


def _cpu_s(steps: Mapping[str, Floor]) -> float:
    return sum(floor.cpu_s for floor in steps.values())


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.throughput", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--rounds", type=int, default=5, help="each with figures of its own")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round's busy load")
    parser.add_argument("--slice", type=float, default=4.0, help="of it at a time, in turns, s")
    parser.add_argument("--warmup", type=float, default=1.0, help="before each load, not counted")
    parser.add_argument("--clients", type=int, default=32, help="requests in flight when busy")
    parser.add_argument("--image-size", type=int, default=640, help="of the version, pixels")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    return parser


@dataclass(frozen=True, slots=True)
class Setting:
    """What a round has of its own, each part of it for a few seconds at a time."""

    options: argparse.Namespace
    image: bytes
    phases: random.Random
    floors: Mapping[str, Floors]
    echo: Pool
    echo_client: AsyncClient
    real: Pool
    client: AsyncClient

    async def floor(self, parts: Rounds) -> None:
        """Of each device, at the same time."""
        parts.floors += await asyncio.gather(
            *(one.measure(self.options.slice) for one in self.floors.values())
        )

    async def way(self, parts: Rounds) -> None:
        """The pool that answers at once, saturated."""
        begin = self._load(self.echo_client, self.options.clients, self.options.slice / 4)
        parts.echo_busy.append(await measured(self.echo, begin))

    async def busy(self, parts: Rounds) -> None:
        """The real one, saturated."""
        beside = CpuMeter(process.pid for process in self.echo.processes())
        begin = self._load(self.client, self.options.clients, self.options.slice, beside)
        parts.busy.append(await measured(self.real, begin))
        parts.beside_s.append(sum(beside.used_s().values()))

    async def alone(self, parts: Rounds) -> None:
        """The real one, one at a time: by itself, and by turns with its floors."""
        begin = self._load(self.client, 1, self.options.slice / 4)
        parts.alone.append(await measured(self.real, begin))
        way = partial(asked, self.echo_client, self.image, "bulk")
        pool = partial(asked, self.client, self.image, "normal")
        parts.image_by_image += await image_by_image(self.floors, way, pool, self.options.slice)

    def _load(
        self, of: AsyncClient, clients: int, seconds: float, meter: CpuMeter | None = None
    ) -> Begin:
        call = detecting(of, [self.image], ["shapes"], TIMEOUT_S)
        # Answers come a pass at a time: windows of one phase would all miss the same one.
        warmup_s = self.options.warmup + self.phases.uniform(0.0, PHASES_S)

        def begin(edge: Edge) -> Awaitable[Load]:
            def read() -> None:
                edge()
                if meter is not None:
                    meter.read()

            return closed_loop(call, clients, warmup_s, seconds, read)

        return begin


@contextlib.asynccontextmanager
async def setting(
    options: argparse.Namespace, phases: random.Random, pack: Path, file: Path
) -> AsyncIterator[Setting]:
    """Starts the processes of a round, and ends them."""
    image = jpeg()
    async with contextlib.AsyncExitStack() as stack:
        pool_flags = PoolFlags(options.devices, options.memory_budget, demo=False)
        with environment(YOLOPOOL_WORKER_PRECISION=options.precision):
            real = await started(stack, pool_flags, options.image_size, options.pool_log)
        client = await stack.enter_async_context(AsyncClient(real.address))
        boxes = len(await client.detect(image, model="shapes"))
        floors = {
            device.id: await stack.enter_async_context(
                Floors(device, pack, file, options.image_size, options.precision)
            )
            for device in discover(options.devices, os.environ)
        }

        first, *_ = floors.values()
        sleep_s = (await first.measure(options.slice))[1]["forward"].wall_s
        path = os.pathsep.join(filter(None, (ECHO, os.environ.get("PYTHONPATH", ""))))
        with environment(
            PYTHONPATH=path, YOLOPOOL_ECHO_BOXES=str(boxes), YOLOPOOL_ECHO_SLEEP_S=str(sleep_s)
        ):
            # The same pool but for what its workers do: as many, on the same cores.
            echo = await started(stack, pool_flags, options.image_size, options.pool_log)
        echo_client = await stack.enter_async_context(AsyncClient(echo.address))
        yield Setting(options, image, phases, floors, echo, echo_client, real, client)


async def measure(options: argparse.Namespace) -> Rounds:
    """All rounds; the parts of one go back and forth, so that each is early as often as late."""
    rounds, phases = Rounds(), random.Random(0)
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        file = Path(folder) / "image.jpg"
        file.write_bytes(jpeg())
        pack = weights.pack(dataset.DEMO_WEIGHTS, Path(folder) / "packs")
        for _ in range(options.rounds):
            parts = Rounds()
            async with setting(options, phases, pack, file) as one:
                for number in range(max(1, round(options.seconds / options.slice))):
                    forth = (one.floor, one.way, one.busy, one.alone)
                    for part in forth if number % 2 == 0 else forth[::-1]:
                        await part(parts)
            rounds.add(parts)
    return rounds


def way_cpu_s(run: Measured) -> dict[str, float]:
    """CPU seconds a request of everybody on the way, the load generator's own included."""
    finished = max(1, run.load.finished)
    return {**run.cpu_s_per_request, "generator": run.load.generator_cpu_s / finished}


async def image_by_image(
    floors: Mapping[str, Floors], way: Ask, pool: Ask, seconds: float
) -> list[Alone]:
    """The steps, the way and the pool by turns there and back for so long. The steps are those on
    the device that answered last; where another answers, whose cores may be slower, it does not
    count.
    """
    found: list[Alone] = []
    device = (await pool())[1].device
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        steps = [await floors[device].one_image()]
        ways = [await way()]
        pools = [await pool(), await pool()]
        ways.append(await way())
        steps.append(await floors[device].one_image())
        if {answer.device for _, answer in pools} == {device}:
            way_s = [took_s - echo.timing.inference_ms / 1e3 for took_s, echo in ways]
            found.append(Alone(mean(steps), mean(way_s), mean([took_s for took_s, _ in pools])))
        device = pools[-1][1].device
    return found


async def asked(
    client: AsyncClient, image: bytes, priority: PriorityName
) -> tuple[float, Detections]:
    """One call; the echo sleeps for one of bulk, and says so as the device's time."""
    began = time.perf_counter()
    answer = await client.detect(image, model="shapes", priority=priority, timeout_s=TIMEOUT_S)
    return time.perf_counter() - began, answer


def floor_rows(rounds: Rounds) -> tuple[Row, ...]:
    """The table of floors, medians over the rounds, with the sums of those that count."""
    rows: list[Row] = [
        {
            "step": f"{step}, batch of {size}",
            "cpu_ms_per_image": 1e3 * median([one[size][step].cpu_s for one in rounds.floors]),
            "wall_ms_per_image": 1e3 * median([one[size][step].wall_s for one in rounds.floors]),
            "counts_when_busy": size == rounds.batch,
            "counts_alone": False,
        }
        for size in BATCHES
        for step in STEPS
    ]
    for role in way_cpu_s(rounds.echo_busy[0]):
        used_s = median([way_cpu_s(one)[role] for one in rounds.echo_busy])
        rows.append(_row(f"rpc: {role}", cpu_s=used_s))
    rows.append(
        _row("image by image", wall_s=median([one.steps_s for one in rounds.image_by_image]))
    )
    rows.append(
        _row("rpc: there and back", wall_s=median([one.way_s for one in rounds.image_by_image]))
    )
    cpu_s = median([rounds.cpu_s(number) for number in rounds.numbers])
    wall_s = median([one.floor_s for one in rounds.image_by_image])
    return (*rows, _row("sum", cpu_s=cpu_s, wall_s=wall_s))


def _row(step: str, *, cpu_s: float | None = None, wall_s: float | None = None) -> Row:
    return {
        "step": step,
        "cpu_ms_per_image": None if cpu_s is None else 1e3 * cpu_s,
        "wall_ms_per_image": None if wall_s is None else 1e3 * wall_s,
        "counts_when_busy": cpu_s is not None,
        "counts_alone": wall_s is not None,
    }


def role_rows(rounds: Rounds) -> tuple[Row, ...]:
    """Where the CPU of an image went in the real pool, beside what its way alone costs."""
    return tuple(
        {
            "role": role,
            "cpu_ms_per_image": 1e3 * median([way_cpu_s(one)[role] for one in rounds.busy]),
            "of_which_rpc_floor_ms": 1e3
            * median([way_cpu_s(one).get(role, 0.0) for one in rounds.echo_busy]),
        }
        for role in way_cpu_s(rounds.busy[0])
    )


def summary(rounds: Rounds, workers: Sequence[Device]) -> tuple[tuple[Row, ...], list[Check]]:
    """Throughput over its bound and latency beyond its floor, round by round, with what must
    hold of their medians.
    """
    bounds = [rounds.bound(number) for number in rounds.numbers]
    rate = spread([one.load.throughput for one in rounds.busy])
    ratio = spread(
        [one.load.throughput / bound for one, bound in zip(rounds.busy, bounds, strict=True)]
    )
    used_s = [sum(way_cpu_s(one).values()) for one in rounds.busy]
    used_cores = median(
        [
            s * one.load.finished / one.load.window.length_s
            for s, one in zip(used_s, rounds.busy, strict=True)
        ]
    )
    floor_ms = 1e3 * median([one.floor_s for one in rounds.image_by_image])
    alone_ms = 1e3 * median([one.pool_s for one in rounds.image_by_image])
    beyond_ms = [1e3 * (one.pool_s - one.floor_s) for one in rounds.image_by_image]
    beyond = [quantile(beyond_ms, share) for share in (0.25, 0.5, 0.75)]
    rows: tuple[Row, ...] = (
        {
            "cores": Host().cores(),
            "cores_for_the_pool": median([rounds.cores(number) for number in rounds.numbers]),
            "workers": len(workers),
            "compute_threads": threads_of(workers[0]),
            "bound_images_per_s": median(bounds),
            "images_per_s": rate.median,
            "images_per_s_min": rate.minimum,
            "images_per_s_max": rate.maximum,
            "ratio": ratio.median,
            "ratio_min": ratio.minimum,
            "ratio_max": ratio.maximum,
            "cores_used": used_cores,
            "cpu_ms_per_image": 1e3 * median(used_s),
            "alone_p50_ms": alone_ms,
            "alone_floor_ms": floor_ms,
            "alone_beyond_q1_ms": beyond[0],
            "alone_beyond_ms": beyond[1],
            "alone_beyond_q3_ms": beyond[2],
        },
    )
    errors = errors_of([one.load for one in (*rounds.busy, *rounds.alone, *rounds.echo_busy)])
    return rows, [
        Check("every request was answered", not errors, str(errors or "no error")),
        Check(
            f"saturated, {LEAST_RATIO:.0%} or more of the bound",
            ratio.median >= LEAST_RATIO,
            f"{rate} images/s of {median(bounds):.4g}, round by round {ratio}",
        ),
        Check(
            f"alone, the median is {MOST_BEYOND_MS:g} ms or less beyond the floors",
            beyond[1] <= MOST_BEYOND_MS,
            f"{alone_ms:.2f} ms of {floor_ms:.2f}, turn by turn {beyond[1]:.2f} beyond "
            f"(quartiles {beyond[0]:.2f} and {beyond[2]:.2f} of {len(beyond_ms)})",
        ),
    ]


async def run(options: argparse.Namespace) -> Result:
    """Measures everything in turns and puts it together."""
    machine, started_at = hardware.describe(), results.now()
    rounds = await measure(options)
    rows, checks = summary(rounds, discover(options.devices, os.environ))
    loads = {"busy": rounds.busy, "alone": rounds.alone}
    return Result(
        scenario="throughput" if options.precision == "fp32" else f"throughput-{options.precision}",
        started_at=started_at,
        settings=results.settings_of(options) | {"jpeg_bytes": len(jpeg())},
        hardware=machine,
        tables={
            "floors": floor_rows(rounds),
            "throughput": rows,
            "processes, busy": role_rows(rounds),
            "stages, median ms": tuple(stage_row(name, of) for name, of in loads.items()),
            "runs": tuple(load_row(name, one) for name, of in loads.items() for one in of),
        },
        checks=tuple(checks),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
