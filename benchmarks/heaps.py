"""The heap of a CPU worker: what a pass costs with jemalloc and with the C library's own.

    python -m benchmarks.heaps --rounds 5 --seconds 2

Both are told to keep what is freed, as a worker does. A process each, on one core, with batches of
several sizes in between, as under load; they take turns. New processes every round: where their
memory happens to lie makes them faster or slower.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.floors import BATCHES, Floor, Floors
from benchmarks.harness.one_model import jpeg
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median, spread
from worker.hardware.devices import Device, discover

GLIBC, JEMALLOC = "glibc", "jemalloc"
PRELOADED = {"LD_PRELOAD", "MALLOC_CONF"}
# What belongs to a pass.
STEPS = ("tensor", "forward")
# CPU seconds an image of a round, by precision, heap and images of a pass.
Way = tuple[str, str, int]


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.heaps", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--rounds", type=int, default=5, help="each with new processes")
    parser.add_argument("--turns", type=int, default=3, help="there and back, of a round")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each at a time")
    parser.add_argument("--precision", default="fp32,bf16", help="one, or both with a comma")
    parser.add_argument("--image-size", type=int, default=640, help="of the version, pixels")
    return parser


def with_heap(device: Device, library: str) -> Device:
    """The device as its worker would be started. Raises RuntimeError without jemalloc."""
    own = device.environment
    if not own.keys() >= PRELOADED:
        raise RuntimeError("no jemalloc here, or LD_PRELOAD is set: install libjemalloc2, unset it")
    if library == JEMALLOC:
        return device
    rest = {name: text for name, text in own.items() if name not in PRELOADED}
    return replace(device, environment=rest)


async def one_round(options: argparse.Namespace, pack: Path, file: Path) -> dict[Way, float]:
    """Of new processes, in turns."""
    device = discover("cpu:1x1", os.environ)[0]
    kinds = [
        (precision, library)
        for precision in options.precision.split(",")
        for library in (GLIBC, JEMALLOC)
    ]
    found: dict[Way, list[Floor]] = {}
    async with contextlib.AsyncExitStack() as stack:
        floors = {
            (precision, library): await stack.enter_async_context(
                Floors(with_heap(device, library), pack, file, options.image_size, precision)
            )
            for precision, library in kinds
        }
        for _ in range(options.turns):
            for kind in (*kinds, *reversed(kinds)):
                for size, steps in (await floors[kind].measure(options.seconds)).items():
                    found.setdefault((*kind, size), []).extend(steps[name] for name in STEPS)
    # A mean of turns, and a sum of steps.
    return {way: len(STEPS) * Floor.joined(parts).cpu_s for way, parts in found.items()}


async def run(options: argparse.Namespace) -> Result:
    """All rounds."""
    machine, started_at = hardware.describe(), results.now()
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        file = Path(folder) / "image.jpg"
        file.write_bytes(jpeg())
        pack = weights.pack(dataset.DEMO_WEIGHTS, Path(folder) / "packs")
        rounds = [await one_round(options, pack, file) for _ in range(options.rounds)]
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for precision in options.precision.split(","):
        for size in BATCHES:
            glibc, jemalloc = (
                [one[precision, library, size] for one in rounds] for library in (GLIBC, JEMALLOC)
            )
            ratio = spread([b / a for a, b in zip(glibc, jemalloc, strict=True)])
            ratios[f"{precision}, {size}"] = ratio.median
            rows.append(
                {
                    "precision": precision,
                    "images_of_a_pass": size,
                    "glibc_cpu_ms_per_image": 1e3 * median(glibc),
                    "jemalloc_cpu_ms_per_image": 1e3 * median(jemalloc),
                    "ratio": ratio.median,
                    "ratio_min": ratio.minimum,
                    "ratio_max": ratio.maximum,
                }
            )
    worst = max(ratios, key=ratios.__getitem__)
    return Result(
        scenario="heaps",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"passes": tuple(rows)},
        checks=(
            Check(
                "jemalloc costs no pass more", ratios[worst] <= 1.0, f"{ratios[worst]:.3f}: {worst}"
            ),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
