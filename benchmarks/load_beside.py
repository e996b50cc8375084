"""What loads by each runtime cost a model that is served meanwhile, and how long they take.

    python -m benchmarks.load_beside --rounds 3 --seconds 30

One pinned model is asked by the clock. Beside it another is loaded and unloaded without a pause, by
one runtime after the other; phases take turns within one worker process. Loads alone come last.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import hardware, results, weights
from benchmarks.harness.loadgen import Load
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills, undisturbed
from benchmarks.harness.statistics import median, quantile
from benchmarks.harness.worker import Worker
from benchmarks.resident_p99 import phase, row

LIMIT = 1.5
RUNTIMES = ("torch", "onnx", "openvino")
ALONE = "alone"
LOADS_ALONE = 5


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_beside", description=__doc__)
    results.add_flags(parser)
    parser.add_argument(
        "--architecture", default="yolo11s.yaml", help="of the model that is served"
    )
    parser.add_argument("--loading", default="yolo11s.yaml", help="of the one that is loaded")
    parser.add_argument("--image-size", type=int, default=320, help="square, pixels")
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=3, help="of all phases")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    return parser


async def load_once(worker: Worker, name: str, pack: Path, image_size: int) -> float:
    """Loads and unloads a model; returns the milliseconds of the load."""
    began = time.monotonic()
    await worker.assign(name, pack, image_size)
    took_ms = 1e3 * (time.monotonic() - began)
    await worker.release(name)
    return took_ms


async def beside(
    worker: Worker, options: argparse.Namespace, name: str, pack: Path, took_ms: list[float]
) -> Load:
    """A phase in which a model comes and goes; adds how long its loads took."""

    async def come_and_go() -> None:
        while True:
            took_ms.append(await load_once(worker, name, pack, options.image_size))

    loads = asyncio.create_task(come_and_go())
    try:
        return await phase(worker, options)
    finally:
        loads.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loads
        await worker.release(name)


async def run(options: argparse.Namespace) -> Result:
    """Makes the models, then all phases in turns."""
    machine, started_at = hardware.describe(), results.now()
    phases: dict[str, list[Load]] = {name: [] for name in (ALONE, *RUNTIMES)}
    took_ms: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    alone_ms: dict[str, list[float]] = {name: [] for name in RUNTIMES}
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        served = weights.make(options.architecture, 0, folder / "served.pt")
        other = weights.make(options.loading, 1, folder / "other.pt")
        resident = weights.pack(served, folder / "packs")
        packs = {
            name: weights.pack(other, folder / "packs", f"--backend={name}", "--precision=fp32")
            for name in RUNTIMES[1:]
        }
        packs["torch"] = weights.pack(other, folder / "packs")
        async with Standstills() as stood, Worker("cpu") as worker:
            await worker.assign("resident", resident, options.image_size, pin=True)
            await phase(worker, options)  # the process' own first requests
            for name in RUNTIMES:  # imports the library, and warms up the kind of pass
                await load_once(worker, name, packs[name], options.image_size)
            for number in range(options.rounds):
                # There and back: a drift of the machine is in all.
                order = (ALONE, *RUNTIMES) if number % 2 == 0 else (*RUNTIMES[::-1], ALONE)
                for name in order:
                    if name == ALONE:
                        phases[name].append(await phase(worker, options))
                    else:
                        load = await beside(worker, options, name, packs[name], took_ms[name])
                        phases[name].append(load)
            for name in RUNTIMES:
                for _ in range(LOADS_ALONE):
                    took = await load_once(worker, name, packs[name], options.image_size)
                    alone_ms[name].append(took)
    rows: dict[str, Row] = {
        name: {**row(name, runs), "p99_while_it_ran_ms": running_p99_ms(runs, stood)}
        for name, runs in phases.items()
    }
    return Result(
        scenario="load_beside",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "requests of the model that is served": tuple(rows.values()),
            "loads": tuple(loads_row(name, took_ms[name], alone_ms[name]) for name in RUNTIMES),
        },
        checks=tuple(checks(rows, took_ms)),
    )


def running_p99_ms(runs: Sequence[Load], stood: Standstills) -> float:
    """Of the requests during which the machine itself did not stand still."""
    left = [one for load in runs for one in undisturbed(load, stood.spans) if not one.reason]
    return quantile([one.latency_s * 1e3 for one in left], 0.99)


def loads_row(name: str, beside_ms: Sequence[float], alone_ms: Sequence[float]) -> Row:
    """How long the loads of a runtime took."""
    return {
        "runtime": name,
        "loads": len(beside_ms),
        "beside_passes_ms": median(beside_ms) if beside_ms else None,
        "slowest_ms": max(beside_ms, default=None),
        "alone_ms": median(alone_ms),
    }


def checks(rows: dict[str, Row], took_ms: dict[str, list[float]]) -> list[Check]:
    """What must hold."""
    errors = sum(int(one["errors"] or 0) for one in rows.values())
    found = [Check("no request failed", errors == 0, f"{errors} errors")]
    for name in RUNTIMES:
        beside_ms, alone_ms = (rows[one]["p99_while_it_ran_ms"] for one in (name, ALONE))
        ratio = float(beside_ms or 0) / float(alone_ms or 1)
        words = f"{ratio:.2f} over {rows[name]['requests']} requests, {len(took_ms[name])} loads"
        title = f"p99 beside loads by {name} at most {LIMIT} x alone"
        found.append(Check(title, ratio <= LIMIT and bool(took_ms[name]), words))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
