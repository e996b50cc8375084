"""What loads beside it cost a resident model: its p99 alone, and while others come and go.

    python -m benchmarks.resident_p99 --rounds 4 --seconds 30

One pinned model is asked by the clock; beside it two more are loaded and unloaded without a pause,
of its own architecture and of another. Phases take turns within one worker process.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.loadgen import Load, constant_arrivals, open_loop
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import summarize
from benchmarks.harness.worker import Worker

LIMIT = 1.3


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.resident_p99", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--device", default="cpu", help="cpu or sim:1")
    parser.add_argument("--architecture", default="yolo11n.yaml", help="of the resident model")
    parser.add_argument("--other", default="yolov8n.yaml", help="the other architecture beside it")
    parser.add_argument("--image-size", type=int, default=320, help="square, pixels")
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--rounds", type=int, default=4, help="of both phases")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    return parser


async def come_and_go(
    worker: Worker, packs: Sequence[Path], options: argparse.Namespace, loads: list[str]
) -> None:
    """Loads and unloads until cancelled; notes each in `loads`."""
    number = 0
    while True:
        name = f"other{number % len(packs)}"
        await worker.assign(name, packs[number % len(packs)], options.image_size)
        await worker.release(name)
        loads.append(name)
        number += 1


async def phase(worker: Worker, options: argparse.Namespace) -> Load:
    image = dataset.encoded()[0]

    async def call(number: int) -> Mapping[str, float]:
        await worker.infer("resident", image)
        return {}

    arrivals = constant_arrivals(options.rate, options.seconds)
    return await open_loop(call, arrivals, 1.0, options.seconds - 1.0)


async def run(options: argparse.Namespace) -> Result:
    """Makes the models, then both phases in turns."""
    machine, started_at = hardware.describe(), results.now()
    phases: dict[str, list[Load]] = {"alone": [], "others come and go": []}
    loads: list[str] = []
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        made = [
            weights.make(architecture, seed, folder / f"{seed}.pt")
            for seed, architecture in enumerate((options.architecture,) * 2 + (options.other,))
        ]
        packs = [weights.pack(checkpoint, folder / "packs") for checkpoint in made]
        async with Worker(options.device) as worker:
            await worker.assign("resident", packs[0], options.image_size, pin=True)
            await phase(worker, options)  # the process' own first requests
            for number in range(2 * options.rounds):
                # alone, beside, beside, alone, ...: a drift of the machine is in both.
                beside = number % 4 in (1, 2)
                task = asyncio.create_task(asyncio.sleep(0))
                if beside:
                    task = asyncio.create_task(come_and_go(worker, packs[1:], options, loads))
                phases["others come and go" if beside else "alone"].append(
                    await phase(worker, options)
                )
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    rows = [row(name, runs) for name, runs in phases.items()]
    ratio = float(rows[1]["p99_ms"] or 0) / float(rows[0]["p99_ms"] or 1)
    errors = sum(int(one["errors"] or 0) for one in rows)
    words = f"{ratio:.2f} over {rows[1]['requests']} requests and {len(loads)} loads"
    return Result(
        scenario="resident_p99",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"requests of the resident model": tuple(rows)},
        checks=(
            Check("no request failed", errors == 0, f"{errors} errors"),
            Check(f"p99 beside loads at most {LIMIT} x alone", ratio <= LIMIT, words),
        ),
    )


def row(name: str, runs: Sequence[Load]) -> Row:
    """All requests of the phases of a kind, as one."""
    measured = [one for run in runs for one in run.measured()]
    latency = summarize([one.latency_s * 1e3 for one in measured if not one.reason])
    return {
        "phase": name,
        "requests": len(measured),
        "errors": sum(sum(run.errors.values()) for run in runs),
        "p50_ms": latency.p50,
        "p90_ms": latency.p90,
        "p99_ms": latency.p99,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
