"""What the steps of an answer cost bare: the product's own functions, or the least that anybody
has to do, in a process of its own with a worker's threads, cores, environment and nothing else.

`async with Floors(...)` keeps the process; `measure(seconds)` asks it for all steps once, and
`one_image()` for those of one image, each once.
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
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.statistics import median
from worker.devices import Device, host_of

BATCHES = (1, 2, 4)
# Every step of one image, each with what the one before it made, as an image alone meets them: a
# step over and over finds its caches warm.
ONE_IMAGE = "one image"
# Forward passes are most of an image and vary most: their time against that of another step.
FORWARD_SHARE = 6
READY_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Floor:
    """One step, for one image: CPU seconds of all threads, and seconds by the clock (median)."""

    cpu_s: float
    wall_s: float

    @staticmethod
    def joined(parts: "Sequence[Floor]") -> "Floor":
        """That of several measurements: the mean of what it costs, the median of what it takes."""
        cpu_s = sum(one.cpu_s for one in parts) / len(parts)
        return Floor(cpu_s, median([one.wall_s for one in parts]))


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

    async def measure(self, seconds: float) -> Mapping[str, Floor]:
        """All steps by name, `seconds` in all."""
        told = await self._ask(str(seconds), READY_LIMIT_S + 2 * seconds)
        return {name: Floor(**floor) for name, floor in told.items()}

    async def one_image(self) -> float:
        """All steps of one image, once: seconds by the clock."""
        return float((await self._ask(ONE_IMAGE, READY_LIMIT_S))["wall_s"])

    async def _ask(self, what: str, limit_s: float) -> Mapping[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        async with asyncio.timeout(limit_s):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the floors ended: see its words above")
        told: Mapping[str, Any] = json.loads(line)
        return told


def threads_of(device: Device) -> int:
    """Compute threads of a CPU device's worker."""
    return int(device.environment["OMP_NUM_THREADS"])


def steps(options: argparse.Namespace) -> dict[str, tuple[int, Callable[[], object]]]:
    """By name images a call and the call: functions of the worker on the pack and the picture."""
    import cv2
    import torch

    from worker import imaging
    from worker.backends import nms
    from worker.backends.base import NmsOptions
    from worker.backends.torch_backend import TorchBackend
    from worker.packs import PackDoor
    from yolopool.v1.worker_pb2 import PackLocation

    cv2.setNumThreads(1)
    backend = TorchBackend("cpu", options.threads)
    backend.open()
    folder = Path(options.pack)
    location = PackLocation(uri=folder.as_uri(), digest=folder.name)
    pack = PackDoor(folder.parent).fetch(location)
    limits = imaging.ImageLimits(2**25, 10**8)
    encoded = Path(options.image).read_bytes()
    stride = max(32, pack.manifest.stride)
    asked = NmsOptions((0.25,) * len(pack.manifest.class_names), 0.7, 300, agnostic=False)

    model = backend.load(pack, options.precision)
    model.shared.bind(model, model.tensors)

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
        nms.one_to_many(boxes, best, lambda image, rows: scores[image][:, rows].argmax(0), [asked])

    def letterbox(image: Any) -> Any:
        return imaging.letterbox(image, options.image_size, stride, imaging.ShapePolicy.RECT).image

    def decode() -> Any:
        return imaging.decode(encoded, limits)

    framed = letterbox(decode())
    prediction = forward(tensor([framed]))
    found: dict[str, tuple[int, Callable[[], object]]] = {
        "decode": (1, decode),
        "letterbox": (1, partial(letterbox, decode())),
        "tensor": (1, partial(tensor, [framed])),
        "nms": (1, partial(suppress, prediction)),
    }
    for count in BATCHES:
        found[f"forward of {count}"] = (count, partial(forward, tensor([framed] * count)))
    found[ONE_IMAGE] = (1, lambda: suppress(forward(tensor([letterbox(decode())]))))
    return found


def cost(images: int, call: Callable[[], object], seconds: float) -> Floor:
    """Calls for so long, once at least."""
    walls: list[float] = []
    cpu_s, until = time.process_time(), time.perf_counter() + seconds
    while not walls or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        walls.append(time.perf_counter() - began)
    cpu_s = time.process_time() - cpu_s
    return Floor(cpu_s / len(walls) / images, median(walls) / images)


def serve(options: argparse.Namespace, asked: Iterator[str]) -> None:
    """A line of results for each line of seconds, or of ONE_IMAGE."""
    found = steps(options)
    one_image = found.pop(ONE_IMAGE)
    shares = {name: FORWARD_SHARE if name.startswith("forward") else 1 for name in found}
    for line in asked:
        told: dict[str, object] = {}
        if line.strip() == ONE_IMAGE:
            told = asdict(cost(*one_image, seconds=0.0))
        else:
            share_s = float(line) / sum(shares.values())
            for name, (images, call) in found.items():
                told[name] = asdict(cost(images, call, share_s * shares[name]))
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
