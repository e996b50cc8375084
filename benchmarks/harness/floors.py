"""What the steps of an answer cost bare: the product's own functions, or the least that anybody
has to do, in a process of its own with a worker's threads, cores, environment and nothing else.

The steps of a batch follow each other, as in a loop written by hand: one step over and over would
find its caches warm, as no image does. `async with Floors(...)` keeps the process;
`measure(seconds)` asks it for batches of every size, and `one_image()` for one of one.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.statistics import median
from worker.hardware.devices import Device, host_of

BATCHES = (1, 2, 4)
STEPS = ("decode", "letterbox", "tensor", "forward", "nms")
READY_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Floor:
    """One step, for one image of its batch: CPU seconds of all threads (mean), and seconds by the
    clock (median).
    """

    cpu_s: float
    wall_s: float

    @staticmethod
    def joined(parts: "Sequence[Floor]") -> "Floor":
        """That of several measurements: the mean of what it costs, the median of what it takes."""
        cpu_s = sum(one.cpu_s for one in parts) / len(parts)
        return Floor(cpu_s, median([one.wall_s for one in parts]))


# By the images of a batch and the name of the step.
Table = Mapping[int, Mapping[str, Floor]]


class Floors:
    """The process that measures. Raises RuntimeError with its words where it can't."""

    def __init__(
        self, device: Device, pack: Path, image: Path, image_size: int, precision: str
    ) -> None:
        self._environment = {**os.environ, **device.environment}
        self._arguments = (
            *(f"--device={device.id}", f"--threads={threads_of(device)}"),
            *(f"--pack={pack}", f"--image={image}"),
            *(f"--image-size={image_size}", f"--precision={precision}"),
        )
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Floors":
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.harness.floors", *self._arguments),
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        await self.measure(0.5)  # warm
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def measure(self, seconds: float) -> Table:
        """Batches of all sizes by turns, for so long and once at least."""
        return await self._ask(seconds, BATCHES)

    async def one_image(self) -> float:
        """All steps of one image, once: seconds by the clock."""
        told = await self._ask(0.0, (1,))
        return sum(step.wall_s for step in told[1].values())

    async def _ask(self, seconds: float, batches: Sequence[int]) -> Table:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([seconds, batches])}\n".encode())
        async with asyncio.timeout(READY_LIMIT_S + 2 * seconds):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the floors ended: see its words above")
        told = json.loads(line)
        return {
            int(size): {name: Floor(**floor) for name, floor in steps.items()}
            for size, steps in told.items()
        }


def threads_of(device: Device) -> int:
    """Compute threads of a CPU device's worker."""
    return int(device.environment["OMP_NUM_THREADS"])


def steps(options: argparse.Namespace) -> Sequence[Callable[[Any], Any]]:
    """Functions of the worker in the order of STEPS, each of a batch: the first takes its encoded
    images, any other what the one before it answers.
    """
    import cv2
    import torch

    from worker.backends.pytorch.backend import TorchBackend
    from worker.packs.pack_store import PackStore
    from worker.postprocess import nms
    from worker.postprocess.outputs import NmsOptions
    from worker.preprocess import decode as decoding
    from worker.preprocess import letterbox as letterboxing
    from yolopool.v1.worker_pb2 import PackLocation
    from yolopool.vocabulary import ShapePolicy

    cv2.setNumThreads(1)
    backend = TorchBackend("cpu", options.threads)
    backend.open()
    folder = Path(options.pack)
    location = PackLocation(uri=folder.as_uri(), digest=folder.name)
    pack = PackStore(folder.parent).fetch(location)
    limits = decoding.ImageLimits(2**25, 10**8)
    stride = max(32, pack.manifest.stride)
    asked = NmsOptions((0.25,) * len(pack.manifest.class_names), 0.7, 300, agnostic=False)

    model = backend.load(pack, options.precision)
    model.shared.bind(model, model.tensors)

    def decode(encoded: Sequence[bytes]) -> Any:
        return [decoding.decode(one, limits).pixels for one in encoded]

    def letterbox(images: Sequence[Any]) -> Any:
        policy = ShapePolicy.RECT
        return [
            letterboxing.letterbox(one, options.image_size, stride, policy).image for one in images
        ]

    def tensor(images: Sequence[Any]) -> Any:
        pixels = torch.empty((len(images), *images[0].shape), dtype=torch.uint8)
        for row, image in zip(pixels.numpy(), images, strict=True):
            cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=row)
        return pixels.permute(0, 3, 1, 2).to(model.dtype).div_(255)

    def forward(batch: Any) -> Any:
        with torch.inference_mode():
            return model.shared.module(batch)

    def suppress(prediction: Any) -> None:
        boxes, scores = prediction[:, :4].numpy(), prediction[:, 4:].numpy()
        best = prediction[:, 4:].amax(1).numpy()

        def classes(image: int, rows: Any) -> Any:
            return scores[image][:, rows].argmax(0)

        nms.one_to_many(boxes, best, classes, [asked] * len(prediction))

    return decode, letterbox, tensor, forward, suppress


def measure(
    found: Sequence[Callable[[Any], Any]], encoded: bytes, batches: Sequence[int], seconds: float
) -> Table:
    """Batches of these sizes by turns, for so long and once at least."""
    parts: dict[int, list[list[Floor]]] = {size: [[] for _ in found] for size in batches}
    until = time.perf_counter() + seconds
    while True:
        for size, so_far in parts.items():
            value: Any = [encoded] * size
            cpu_s, began = time.process_time(), time.perf_counter()
            for step, floors in zip(found, so_far, strict=True):
                value = step(value)
                cpu_now_s, now = time.process_time(), time.perf_counter()
                floors.append(Floor((cpu_now_s - cpu_s) / size, (now - began) / size))
                cpu_s, began = cpu_now_s, now
        if time.perf_counter() >= until:
            return {
                size: dict(zip(STEPS, map(Floor.joined, so_far), strict=True))
                for size, so_far in parts.items()
            }


def serve(options: argparse.Namespace, asked: Iterator[str]) -> None:
    """A line of results for each line of seconds and sizes."""
    found, encoded = steps(options), options.image.read_bytes()
    for line in asked:
        seconds, batches = json.loads(line)
        table = measure(found, encoded, batches, seconds)
        told = {
            size: {name: asdict(floor) for name, floor in of.items()} for size, of in table.items()
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    # Its cores alone, before torch is imported.
    host_of(arguments.device)
    serve(arguments, iter(sys.stdin.readline, ""))
