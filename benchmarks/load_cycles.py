"""Does memory come back? A thousand loads and unloads on one worker process, read from outside.

    python -m benchmarks.load_cycles --cycles 1000

Each cycle loads one of six models of three architectures, asks it once and releases it. The curve
of the process' memory is kept as a picture beside the figures.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.processes import memory
from benchmarks.harness.results import Check, Result
from benchmarks.harness.statistics import median
from benchmarks.harness.worker import Worker
from yolopool.cli.svg_chart import line_chart

MIB = 2**20
SETTLED = 50  # cycles until allocators, threads and libraries have what they keep
LIMIT_MIB = 20.0
ARCHITECTURES = ("yolo11n.yaml", "yolov8n.yaml", "yolo26n.yaml")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_cycles", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--cycles", type=int, default=1000, help="loads and unloads")
    parser.add_argument("--image-size", type=int, default=320, help="square, pixels")
    return parser


async def cycle(packs: Sequence[Path], options: argparse.Namespace) -> list[float]:
    """RSS in MiB after each cycle."""
    image = dataset.encoded()[0]
    curve = []
    async with Worker("cpu") as worker:
        for number in range(options.cycles):
            name = f"m{number % len(packs)}"
            await worker.assign(name, packs[number % len(packs)], options.image_size)
            await worker.infer(name, image)
            await worker.release(name)
            curve.append(memory(worker.pid).rss_bytes / MIB)
    return curve


def run(options: argparse.Namespace) -> Result:
    """Makes the models, then all cycles."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        packs = [
            weights.pack(weights.make(one, seed, folder / f"{one}-{seed}.pt"), folder / "packs")
            for seed, one in product((0, 1), ARCHITECTURES)
        ]
        curve = asyncio.run(cycle(packs, options))
    settled = median(curve[SETTLED : 2 * SETTLED])
    last, highest = median(curve[-SETTLED:]), max(curve[SETTLED:])
    words = f"{last - settled:+.1f} MiB at the end, {highest - settled:+.1f} MiB at most"
    grown = max(last, highest) - settled
    what = f"memory grows less than {LIMIT_MIB:g} MB after the first {SETTLED} cycles"
    title = f"RSS of a worker over {options.cycles} loads and unloads of 6 models"
    options.results.mkdir(parents=True, exist_ok=True)
    picture = options.results / f"load_cycles-{started_at[:10]}.svg"
    picture.write_text(line_chart(curve, title, "cycle", "RSS, MiB"))
    every = max(1, len(curve) // 20)
    return Result(
        scenario="load_cycles",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "memory": tuple(
                {"cycle": number + 1, "rss_mib": curve[number]}
                for number in range(every - 1, len(curve), every)
            )
        },
        checks=(Check(what, len(curve) > 2 * SETTLED and grown * MIB < LIMIT_MIB * 1e6, words),),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
