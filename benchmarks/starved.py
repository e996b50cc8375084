"""A worker on a host that starves it: one that works is not ended as hung, and one that hangs is.

    python -m benchmarks.starved --seconds 300 --hang-floor-s 5

Ten times as many busy processes as cores run beside a worker on the CPU, which is asked all the
time, and then beside a simulated device that hangs for good. The model is chosen so that a starved
pass takes longer than the bound.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import psutil

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import quantile
from benchmarks.harness.worker import Worker
from yolopool.errors import YolopoolError

# The mean of an image at which the simulated device hangs.
HANGS_AT = 7
# Between the end of the bound and that of the process: open requests are answered first.
LAST_WORDS_S = 3.0


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.starved", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--architecture", default="yolo11x.yaml", help="slow: of one long pass")
    parser.add_argument("--image-size", type=int, default=640, help="square, pixels")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the starved worker")
    parser.add_argument("--hang-floor-s", type=float, default=5.0, help="the bound of a pass")
    parser.add_argument("--busy", type=int, default=0, help="processes; 0: ten times the cores")
    return parser


def spin() -> None:
    """Keeps a core busy."""
    while True:
        pass


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Busy processes, of the same priority as the worker."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=spin, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.join()


async def ask(worker: Worker, name: str, image: bytes, timeout_s: float) -> str:
    """One request; what came of it."""
    try:
        await worker.infer(name, image, timeout_s=timeout_s)
    except YolopoolError as error:
        return error.reason
    return ""


async def starve(options: argparse.Namespace, folder: Path, processes: int) -> tuple[Row, bool]:
    """Asks a worker one image at a time; whether its process lived."""
    model = weights.make(options.architecture, 0, folder / "slow.pt")
    pack = weights.pack(model, folder / "packs")
    image = dataset.encoded()[0]
    times: list[float] = []
    failed: list[str] = []
    async with Worker("cpu", [f"--hang-floor-s={options.hang_floor_s}"]) as worker:
        await worker.assign("slow", pack, options.image_size, pin=True)
        for _ in range(3):
            began = time.monotonic()
            await ask(worker, "slow", image, 600)
            alone_s = time.monotonic() - began
        process = psutil.Process(worker.pid)
        with busy(processes):
            until = time.monotonic() + options.seconds
            while time.monotonic() < until:
                began = time.monotonic()
                if reason := await ask(worker, "slow", image, 600):
                    failed.append(reason)
                    await asyncio.sleep(1)
                times.append(time.monotonic() - began)
        lived = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    found: Row = {
        "what": "a worker that is starved",
        "busy processes": processes,
        "requests": len(times),
        "errors": len(failed),
        "alone_s": alone_s,
        "p50_s": quantile(times, 0.5),
        "longest_s": max(times),
    }
    return found, lived and not failed


async def hang(options: argparse.Namespace, folder: Path, processes: int) -> float:
    """Seconds until a worker whose device hangs has ended."""
    pack = weights.pack(dataset.DEMO_WEIGHTS, folder / "packs")
    _, encoded = cv2.imencode(".png", np.full((320, 320, 3), HANGS_AT, np.uint8))
    harmless = dataset.encoded()[0]
    extra = [f"--hang-floor-s={options.hang_floor_s}", f"--sim-faults=hang={HANGS_AT}"]
    async with Worker("sim:1", extra) as worker:
        await worker.assign("demo", pack, 320, pin=True)
        for _ in range(3):  # so that its passes have an estimate
            await ask(worker, "demo", harmless, 60)
        process = psutil.Process(worker.pid)
        with busy(processes):
            await ask(worker, "demo", harmless, 60)
            began = time.monotonic()
            hung = asyncio.create_task(ask(worker, "demo", encoded.tobytes(), 600))
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            took_s = time.monotonic() - began
            await hung
    return took_s


async def run(options: argparse.Namespace) -> Result:
    """Both parts."""
    machine, started_at = hardware.describe(), results.now()
    processes = options.busy or 10 * (os.cpu_count() or 1)
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        row, lived = await starve(options, Path(name), processes)
        hung_s = await hang(options, Path(name), processes)
    limit_s = 2 * options.hang_floor_s + LAST_WORDS_S
    longest_s = float(row["longest_s"] or 0)
    return Result(
        scenario="starved",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"requests of the starved worker": (row,)},
        checks=(
            Check(
                "a pass took longer than the bound",
                longest_s > options.hang_floor_s,
                f"{longest_s:.1f} s",
            ),
            Check("the starved worker lived, and answered all", lived, f"{row['errors']} errors"),
            Check(
                f"a hung one ended within {limit_s:g} s", hung_s <= limit_s, f"in {hung_s:.1f} s"
            ),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
