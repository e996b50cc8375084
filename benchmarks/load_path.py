"""What a load costs beyond the pass that anyone pays, against the library's own ways.

    python -m benchmarks.load_path --loads 40

In one process, on one thread, all ways in turns: from the decision to the first answer (checked
against the expected one), less one warm pass; from host memory, and from the local pack cache.
Then through a worker process: the first request after READY against those that follow.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median, quantile
from benchmarks.harness.worker import Worker
from worker.backends import base

# Milliseconds beyond one warm pass, on a CPU where a load is a bind; by size.
LIMITS_MS = {"n": 3.0, "x": 5.0}
FIRST_OVER_WARM = 1.2
WARM_AFTER_FIRST = 4
BOXES = 30


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.load_path", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--small", default="yolo11n.yaml", help="architecture of the n size")
    parser.add_argument("--large", default="yolov8x.yaml", help="architecture of the x size")
    parser.add_argument("--image-size", type=int, default=320, help="square, pixels")
    parser.add_argument("--loads", type=int, default=40, help="of each way; 30 at least count")
    parser.add_argument("--threads", type=int, default=0, help="0: as a worker would choose")
    return parser


@dataclass(slots=True)
class Way:
    """Milliseconds of one way to a first answer: the whole, and what is beyond a warm pass."""

    whole: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)

    def add(self, whole_s: float, warm_s: float) -> None:
        self.whole.append(1e3 * whole_s)
        self.beyond.append(1e3 * (whole_s - warm_s))


class Loader:
    """One pack on this thread, with what its first answer must be."""

    def __init__(self, pack: Path, checkpoint: Path, image_size: int, threads: int) -> None:
        import numpy as np

        from worker.backends.pytorch.backend import TorchBackend
        from worker.packs.pack_store import PackStore
        from worker.postprocess.outputs import NmsOptions
        from yolopool.v1.worker_pb2 import PackLocation

        self.checkpoint = checkpoint
        self.image_size = image_size
        self.location = PackLocation(uri=pack.as_uri(), digest=pack.name)
        self.backend = TorchBackend("cpu", threads)
        self.backend.open()
        self.door = PackStore(pack.parent)
        self.pack = self.door.fetch(self.location)
        rng = np.random.default_rng(0)
        self.image = rng.integers(0, 255, (image_size, image_size, 3), np.uint8)
        classes = len(self.pack.manifest.class_names)
        model = self.backend.load(self.pack, "fp32")
        everything = [NmsOptions((0.0,) * classes, 0.7, 300, agnostic=False)]
        found = base.run(model, [self.image], everything).candidates[0]
        # So that random weights answer some boxes, as a trained model would.
        self.confidence = float(found.confidence[min(BOXES, len(found.confidence) - 1)])
        self.asked = [NmsOptions((self.confidence,) * classes, 0.7, 300, agnostic=False)]
        for _ in range(5):
            self.expected = base.run(model, [self.image], self.asked).candidates[0]
        model.close()

    def load(self, fetch: Callable[[], Any]) -> tuple[float, float]:
        """Seconds from the decision to the first answer, and of a warm pass: the mean of those
        right before and right after, so that what the machine does meanwhile is in both.
        """
        model = self.backend.load(self.pack, "fp32")
        base.run(model, [self.image], self.asked)
        before = self._timed(model)
        model.close()
        began = time.perf_counter()
        pack = fetch()
        model = self.backend.load(pack, "fp32")
        first = base.run(model, [self.image], self.asked).candidates[0]
        whole = time.perf_counter() - began
        warm = (before + self._timed(model)) / 2
        answers = (first.xyxy.tobytes(), first.confidence.tobytes())
        if answers != (self.expected.xyxy.tobytes(), self.expected.confidence.tobytes()):
            raise RuntimeError("a first answer differs from the expected one")
        model.close()
        if pack is not self.pack:
            pack.close()
        return whole, warm

    def from_host(self) -> tuple[float, float]:
        return self.load(lambda: self.pack)

    def from_cache(self) -> tuple[float, float]:
        return self.load(lambda: self.door.fetch(self.location))

    def copy(self) -> tuple[float, float]:
        """The copy of the same bytes into memory that is there."""
        import torch

        source = torch.frombuffer(self.pack.weights_buffer, dtype=torch.uint8)
        slot = torch.ones_like(source)
        began = time.perf_counter()
        slot.copy_(source)
        return time.perf_counter() - began, 0.0

    def library_fuse(self) -> tuple[float, float]:
        """`load_checkpoint` and fuse, without a pass."""
        from ultralytics.nn.tasks import load_checkpoint

        began = time.perf_counter()
        model, _ = load_checkpoint(str(self.checkpoint))
        model.fuse(verbose=False)
        return time.perf_counter() - began, 0.0

    def library_predict(self) -> tuple[float, float]:
        """`YOLO()` and its first predict, less a later one."""
        from ultralytics.models import YOLO
        from ultralytics.nn.autobackend import AutoBackend

        # It would only import torchvision; a cost that is not the load's.
        AutoBackend.warmup = lambda self, *_, **__: None

        def predict() -> None:
            model.predict(self.image, imgsz=self.image_size, conf=self.confidence, verbose=False)

        began = time.perf_counter()
        model = YOLO(str(self.checkpoint))
        predict()
        whole = time.perf_counter() - began
        began = time.perf_counter()
        predict()
        return whole, time.perf_counter() - began

    def _timed(self, model: Any) -> float:
        began = time.perf_counter()
        base.run(model, [self.image], self.asked)
        return time.perf_counter() - began


def in_process(loader: Loader, loads: int) -> dict[str, Way]:
    """All ways in turns, so that what disturbs the machine disturbs all alike."""
    import torch

    threads = torch.get_num_threads()
    kinds: dict[str, tuple[Callable[[], tuple[float, float]], int]] = {
        "host tier": (loader.from_host, 1),
        "local pack cache": (loader.from_cache, 1),
        "copy of the bytes": (loader.copy, 1),
        "library: load_checkpoint + fuse": (loader.library_fuse, 4),
        "library: YOLO() + predict": (loader.library_predict, 4),
    }
    ways = {name: Way() for name in kinds}
    for number in range(loads):
        for name, (run, every) in kinds.items():
            if number % every == 0:
                ways[name].add(*run())
                torch.set_num_threads(threads)  # the library sets its own
    return ways


async def first_requests(packs: Sequence[Path], image_size: int, loads: int) -> tuple[Way, Way]:
    """Through a worker process: the first request after READY, and those that follow."""
    image = dataset.encoded()[0]
    first, later = Way(), Way()

    async def timed(name: str) -> float:
        began = time.perf_counter()
        await worker.infer(name, image)
        return time.perf_counter() - began

    async with Worker("cpu") as worker:
        for number in range(loads + 2):
            name, pack = f"m{number % len(packs)}", packs[number % len(packs)]
            await worker.assign(name, pack, image_size)
            one = await timed(name)
            warm = [await timed(name) for _ in range(WARM_AFTER_FIRST)]
            await worker.release(name)
            if number >= 2:  # the process' own first ones are no load's
                first.add(one, 0.0)
                for seconds in warm:
                    later.add(seconds, 0.0)
    return first, later


def run(options: argparse.Namespace) -> Result:
    """Makes the models, then all ways."""
    from worker.hardware.host import Host

    machine, started_at = hardware.describe(), results.now()
    rows: list[Row] = []
    checks: list[Check] = []
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        folder = Path(name)
        os.environ.update(YOLO_CONFIG_DIR=name, YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0")  # as a worker has it
        small = []
        for size, architecture in (("n", options.small), ("x", options.large)):
            checkpoint = weights.make(architecture, 0, folder / f"{size}.pt")
            pack = weights.pack(checkpoint, folder / "packs")
            threads = options.threads or Host().compute_threads()
            loader = Loader(pack, checkpoint, options.image_size, threads)
            ways = in_process(loader, options.loads)
            rows += [a_row(size, architecture, way, ways[way]) for way in ways]
            beyond = median(ways["host tier"].beyond)
            limit = LIMITS_MS[size]
            words = f"{beyond:.2f} ms over {len(ways['host tier'].beyond)} loads"
            what = f"{size}: from host memory at most {limit:g} ms beyond a warm pass"
            checks.append(Check(what, beyond <= limit, words))
            loader.pack.close()
            if size == "n":
                other = weights.make(architecture, 1, folder / "other.pt")
                small = [pack, weights.pack(other, folder / "packs")]
        first, later = asyncio.run(first_requests(small, options.image_size, options.loads))
    ratio = median(first.whole) / median(later.whole)
    words = f"{ratio:.3f} ({median(first.whole):.1f} ms to {median(later.whole):.1f} ms)"
    what = f"the first request after READY at most {FIRST_OVER_WARM} x a later one"
    checks.append(Check(what, ratio <= FIRST_OVER_WARM and len(first.whole) >= 30, words))
    requests = [
        a_row("n", options.small, "first request after READY", first),
        a_row("n", options.small, "later requests", later),
    ]
    return Result(
        scenario="load_path",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"to the first answer": tuple(rows), "through a worker": tuple(requests)},
        checks=tuple(checks),
    )


def a_row(size: str, architecture: str, name: str, way: Way) -> Row:
    return {
        "size": size,
        "architecture": architecture,
        "way": name,
        "loads": len(way.whole),
        "whole_ms": median(way.whole),
        "whole_p90_ms": quantile(way.whole, 0.9),
        "beyond_warm_ms": median(way.beyond),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
