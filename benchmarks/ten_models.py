"""Ten models and room for three: what turns on the device save in memory, and cost in throughput.

    python -m benchmarks.ten_models --rounds 2 --seconds 120

The other sides are the same worker process where what was used last stays (plain LRU), and with
all ten resident; the sides take turns. Requests choose their model by Zipf's law. Memory is the
worker process' peak, read from outside all along.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.loadgen import Load, closed_loop, zipf_choices
from benchmarks.harness.processes import memory
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from benchmarks.harness.worker import Worker
from benchmarks.simulation.predict import Costs, predict

MIB = 2**20
MODELS, ROOM = 10, 3
# Of the weights of those that there is no room for; of the throughput of all resident.
OF_WEIGHTS, OF_THROUGHPUT = 0.95, 0.85
WATCH_S = 0.02
# Of what was measured.
WITHIN = 0.20
# Beyond three models and their working memory: not enough for a fourth.
SLACK = 0.5


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.ten_models", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--device", default="cpu", help="cpu or sim:1")
    parser.add_argument("--architecture", default="yolov8x6.yaml", help="weights should dominate")
    parser.add_argument("--image-size", type=int, default=320, help="square, pixels")
    parser.add_argument("--clients", type=int, default=16, help="of the closed loop")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of the popularity")
    parser.add_argument("--rounds", type=int, default=2, help="of both sides")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured time of each run")
    parser.add_argument("--warmup", type=float, default=10.0, help="seconds before")
    return parser


@dataclass(slots=True)
class Side:
    """One way to hold ten models, over all rounds."""

    name: str
    budget_bytes: int
    plain_lru: bool = False
    peaks_bytes: list[int] = field(default_factory=list)
    ledgers_bytes: list[int] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    swapper: list[int] = field(default_factory=list)
    hit_rates: list[float] = field(default_factory=list)
    swaps_ms: list[float] = field(default_factory=list)


async def learn(packs: Sequence[Path], options: argparse.Namespace) -> tuple[int, int, int]:
    """Budgets with room for three of the models, and for all; bytes of one."""
    async with Worker(options.device) as worker:
        ledger = (await worker.assign("m0", packs[0], options.image_size)).ledger
    fixed = ledger.context_bytes + ledger.workspace_bytes
    return (
        fixed + round(ledger.weights_bytes * (ROOM + SLACK)),
        fixed + round(ledger.weights_bytes * (MODELS + SLACK)),
        ledger.weights_bytes,
    )


async def one_run(
    side: Side, packs: Sequence[Path], options: argparse.Namespace, seed: int
) -> None:
    """A fresh worker with all models assigned, under the mix."""
    image = dataset.encoded()[0]
    choices = zipf_choices(100_000, MODELS, options.zipf, seed)

    async def call(number: int) -> Mapping[str, float]:
        answer = await worker.infer(f"m{choices[number]}", image)
        if answer.ledger_used_bytes > side.budget_bytes:
            raise RuntimeError("the ledger is over its budget")
        timing = answer.result.timing
        return {
            "queue_ms": timing.queue_ms,
            "inference_ms": timing.inference_ms,
            "batch": float(answer.result.batch_size),
        }

    flags = [f"--memory-budget={side.budget_bytes}"]
    async with Worker(options.device, flags, plain_lru=side.plain_lru) as worker:
        for number, pack in enumerate(packs):
            await worker.assign(f"m{number}", pack, options.image_size)
        watch = asyncio.create_task(peak(worker.pid))
        await closed_loop(call, options.clients, 0.0, options.warmup)
        before = (await worker.inventory()).replicas
        load = await closed_loop(call, options.clients, 0.0, options.seconds)
        watch.cancel()
        side.peaks_bytes.append(await watch)
        inventory = await worker.inventory()
        side.ledgers_bytes.append(inventory.ledger.weights_bytes)
        side.swapper.append(_more(inventory.replicas, before, "swaps_total"))
        requests = _more(inventory.replicas, before, "requests_total")
        side.hit_rates.append(_more(inventory.replicas, before, "hits_total") / requests)
        side.swaps_ms += [one.footprint.swap_ms for one in inventory.replicas]
        side.loads.append(load)


def _more(now: Sequence[Any], before: Sequence[Any], count: str) -> int:
    """How much a count of all replicas grew."""
    grown: int = sum(getattr(one, count) for one in now)
    for one in before:
        grown -= getattr(one, count)
    return grown


async def peak(pid: int) -> int:
    """Highest RSS of a process until cancelled, bytes."""
    highest = 0
    try:
        while True:
            highest = max(highest, memory(pid).rss_bytes)
            await asyncio.sleep(WATCH_S)
    except asyncio.CancelledError:
        return highest


async def run(options: argparse.Namespace) -> Result:
    """Makes ten models, learns the budgets, then both sides in turns."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        packs = []
        for seed in range(MODELS):
            checkpoint = weights.make(options.architecture, seed, folder / f"{seed}.pt")
            packs.append(weights.pack(checkpoint, folder / "packs"))
            checkpoint.unlink()
        three, ten, weights_bytes = await learn(packs, options)
        sides = [
            Side("room for three", three),
            Side("room for three, plain LRU", three, plain_lru=True),
            Side("all ten resident", ten),
        ]
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                began = time.monotonic()
                await one_run(side, packs, options, number)
                print(f"{side.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    costs = measured_costs(sides, weights_bytes, options.device)
    # On a thread: it has an event loop, and a clock, of its own.
    foretold = [await asyncio.to_thread(prediction, one, costs, options) for one in sides[:2]]
    return Result(
        scenario="ten_models",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "sides": tuple(row(side) for side in sides),
            "costs": (asdict(costs),),
            "predicted": tuple(foretold),
        },
        checks=(
            *verdicts(sides[0], sides[1], sides[2], options.device),
            *(
                check
                for side, told in zip(sides, foretold, strict=False)
                for check in honest(side, told)
            ),
        ),
    )


def measured_costs(sides: Sequence[Side], weights_bytes: int, device: str) -> Costs:
    """Of passes and of all beside them as measured where all are resident, of swaps where not.

    A pass is fitted by least squares over all requests; what is beside it is the median of what
    neither queue nor pass explains. A CPU binds weights that were read, with no copy of them.
    """
    answered = [one for load in sides[-1].loads for one in load.measured() if not one.reason]
    batch = np.array([one.stages_ms["batch"] for one in answered])
    passes_s = np.array([one.stages_ms["inference_ms"] for one in answered]) / 1e3
    queues_s = np.array([one.stages_ms["queue_ms"] for one in answered]) / 1e3
    latencies_s = np.array([one.latency_s for one in answered])
    slope, fixed = np.polyfit(batch, passes_s, 1) if len(set(batch)) > 1 else (0.0, passes_s.mean())
    swap_s = median(sides[0].swaps_ms) / 1e3
    # From one pass to the next while requests wait: threads and event loop of the worker.
    seconds = sum(load.window.length_s for load in sides[-1].loads)
    waits = float(np.median(queues_s)) > float(passes_s.mean())
    mean_s = float((passes_s / batch).sum() / (1 / batch).sum())
    between_s = max(0.0, seconds / float((1 / batch).sum()) - mean_s) if waits else 0.0
    return Costs(
        pass_fixed_s=float(max(0.0, fixed)) + between_s,
        pass_image_s=float(max(0.0, slope)),
        swap_s=swap_s + 2 * between_s,
        # One job takes a model off the device, another brings the next.
        copy_s=(0.0 if device == "cpu" else swap_s) + 2 * between_s,
        beside_s=float(np.median(latencies_s - queues_s - passes_s)) - between_s,
        weights_bytes=weights_bytes,
        max_batch=4 if device == "cpu" else 16,
    )


def prediction(side: Side, costs: Costs, options: argparse.Namespace) -> Row:
    """What the simulator says of a side, from those costs alone: the mean of its rounds."""
    told = []
    for seed in range(len(side.loads)):
        choices = zipf_choices(100_000, MODELS, options.zipf, seed)
        with plain_lru() if side.plain_lru else contextlib.nullcontext():
            told.append(
                predict(
                    costs,
                    choices,
                    MODELS,
                    ROOM + SLACK,
                    options.clients,
                    options.warmup,
                    options.seconds,
                )
            )
    names = ("hit_rate", "swaps_a_minute", "throughput", "p50_ms", "p99_ms")
    return {
        "side": side.name,
        **{name: median([getattr(one, name) for one in told]) for name in names},
    }


@contextlib.contextmanager
def plain_lru() -> Iterator[None]:
    """In this process what `Worker(plain_lru=True)` is in another."""
    with mock.patch("worker.packs.eviction.gdsf_value", return_value=0.0):
        yield


def honest(side: Side, told: Row) -> list[Check]:
    """Whether the simulator foretold the real run."""
    real = row(side)
    found = []
    for name in ("hit_rate", "swaps_a_minute", "p99_ms"):
        foretold, measured = float(told[name] or 0), float(real[name] or 0)
        off = abs(foretold - measured) / max(measured, 1e-9)
        found.append(
            Check(
                f"{side.name}: {name} foretold within {WITHIN:.0%}",
                off <= WITHIN,
                f"{foretold:,.3g} foretold, {measured:,.3g} measured",
            )
        )
    return found


def row(side: Side) -> Row:
    latencies = [load.latency_ms() for load in side.loads]
    return {
        "side": side.name,
        "runs": len(side.loads),
        "requests": sum(len(load.measured()) for load in side.loads),
        "errors": sum(sum(load.errors.values()) for load in side.loads),
        "images_per_s": median([load.throughput for load in side.loads]),
        "p50_ms": median([one.p50 for one in latencies]),
        "p99_ms": median([one.p99 for one in latencies]),
        "hit_rate": median(side.hit_rates),
        "swaps_a_minute": 60 * sum(side.swapper) / sum(load.window.length_s for load in side.loads),
        "budget_mib": side.budget_bytes / MIB,
        "ledger_weights_mib": median([size / MIB for size in side.ledgers_bytes]),
        "peak_rss_mib": max(side.peaks_bytes) / MIB,
    }


def verdicts(three: Side, lru: Side, ten: Side, device: str) -> list[Check]:
    """What must hold. A simulated device copies weights between passes, not beside them, and
    keeps no bytes in the process: memory and throughput are told of it, and demanded of a CPU.
    """
    errors = sum(sum(load.errors.values()) for side in (three, lru, ten) for load in side.loads)
    found = [
        Check("no request failed", errors == 0, f"{errors} errors"),
        Check(
            "as many requests find their model as under plain LRU, or more",
            median(three.hit_rates) >= median(lru.hit_rates),
            f"{median(three.hit_rates):.3f} and {median(lru.hit_rates):.3f}",
        ),
    ]
    return found if device != "cpu" else [*found, *_cost(three, ten)]


def _cost(three: Side, ten: Side) -> list[Check]:
    saved_bytes = max(ten.peaks_bytes) - max(three.peaks_bytes)
    absent_bytes = (MODELS - ROOM) * ten.ledgers_bytes[0] / MODELS
    sizes = f"{max(three.peaks_bytes) / MIB:,.0f} to {max(ten.peaks_bytes) / MIB:,.0f} MiB"
    ratios = [a.throughput / b.throughput for a, b in zip(three.loads, ten.loads, strict=True)]
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return [
        Check(
            f"{OF_WEIGHTS:.0%} of the weights of the other seven are saved at the peak",
            saved_bytes >= OF_WEIGHTS * absent_bytes,
            f"{saved_bytes / absent_bytes:.1%} ({sizes})",
        ),
        Check(
            f"throughput at least {OF_THROUGHPUT:.0%} of all resident",
            median(ratios) >= OF_THROUGHPUT,
            f"{median(ratios):.1%}; rounds {rounds}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
