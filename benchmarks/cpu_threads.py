"""Compute threads and OpenMP waiting of a CPU worker: one pass, alone and beside a busy neighbour.

    python -m benchmarks.cpu_threads --rounds 3 --seconds 4

Each run is a process of its own, since OpenMP reads its environment once; the ways alternate.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from benchmarks.harness import dataset, hardware, results
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from worker.backends import base
from worker.hardware.host import Host

WAITING = {
    "spin": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
}
MODEL = dataset.FOLDER.parent / "models" / "shapes.pt"


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.cpu_threads", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--rounds", type=int, default=3, help="through all ways")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured time of each run")
    parser.add_argument("--image-size", type=int, default=640, help="square, pixels")
    parser.add_argument("--model", type=Path, default=MODEL, help="checkpoint that is run")
    parser.add_argument("--pack", default="", help=argparse.SUPPRESS)  # a run in its own process
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def measure(options: argparse.Namespace) -> list[float]:
    """Seconds of each pass, in this process, for the time given."""
    import numpy as np

    from worker.backends.pytorch.backend import TorchBackend
    from worker.packs.pack_store import PackStore
    from worker.postprocess.outputs import NmsOptions
    from yolopool.v1.worker_pb2 import PackLocation

    folder = Path(options.pack)
    location = PackLocation(uri=f"file://{folder}", digest=folder.name)
    backend = TorchBackend("cpu", options.threads)
    backend.open()
    pack = PackStore(folder.parent).fetch(location)
    model = backend.load(pack, "fp32")
    images = [np.full((options.image_size, options.image_size, 3), 114, np.uint8)]
    asked = [NmsOptions((0.25,) * len(pack.manifest.class_names), 0.7, 300, agnostic=False)]
    for _ in range(5):
        base.run(model, images, asked)
    times, until = [], time.perf_counter() + options.seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        base.run(model, images, asked)
        times.append(time.perf_counter() - began)
    return times


def run_in_process(options: argparse.Namespace, pack: Path, threads: int, waiting: str) -> float:
    """Median milliseconds of a pass with these threads and this way to wait."""
    command = [sys.executable, "-m", "benchmarks.cpu_threads", "--pack", str(pack)]
    command += ["--threads", str(threads), "--seconds", str(options.seconds)]
    command += ["--image-size", str(options.image_size)]
    names = set(WAITING["passive"]) | {"OMP_NUM_THREADS"}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        command,
        env={**inherited, **WAITING[waiting]},
        capture_output=True,
        text=True,
        check=True,
    )
    return median(json.loads(done.stdout.splitlines()[-1])) * 1000


@contextlib.contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A process that keeps one core busy, as another service on the host would."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run(options: argparse.Namespace) -> Result:
    """All ways in turns, `rounds` times."""
    machine, started_at = hardware.describe(), results.now()
    host = Host()
    chosen = (host.compute_threads(), "passive")  # as a worker is started
    counts = sorted({1, chosen[0], host.cores()})
    ways = list(product(counts, WAITING, (False, True)))
    runs: dict[tuple[int, str, bool], list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        importer = [sys.executable, "-m", "importer", str(options.model), "--out", folder]
        subprocess.run(importer, capture_output=True, check=True)
        pack = next(path.parent for path in Path(folder).rglob("manifest.json"))
        for number in range(options.rounds):
            for threads, waiting, busy in ways if number % 2 == 0 else ways[::-1]:
                with neighbour(busy):
                    took = run_in_process(options, pack, threads, waiting)
                runs[threads, waiting, busy].append(took)
    rows: list[Row] = [
        {
            "threads": threads,
            "waiting": waiting,
            "neighbour": "one busy core" if busy else "none",
            "pass_ms": median(times),
            "lowest_ms": min(times),
            "highest_ms": max(times),
        }
        for (threads, waiting, busy), times in runs.items()
    ]
    return Result(
        scenario="cpu_threads",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"passes": tuple(rows)},
        checks=(verdict(chosen, {way: median(times) for way, times in runs.items()}),),
    )


def verdict(chosen: tuple[int, str], medians: dict[tuple[int, str, bool], float]) -> Check:
    """The chosen way is to lose least where the host is shared, which it is unless said."""
    worst = {(threads, waiting): medians[threads, waiting, True] for threads, waiting, _ in medians}
    detail = ", ".join(
        f"{threads} {waiting}: {ms:.0f} ms" for (threads, waiting), ms in worst.items()
    )
    # Within the noise of this machine.
    passed = worst[chosen] <= 1.2 * min(worst.values())
    return Check("the chosen way is within 20 % of the best beside a neighbour", passed, detail)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario, or one run of it in a process of its own; answers the exit status."""
    options = flags().parse_args(arguments)
    if options.pack:
        sys.stdout.write(json.dumps(measure(options)) + "\n")
        return 0
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
