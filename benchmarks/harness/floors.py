"""What the steps of an answer cost bare: the product's own functions, or the least that anybody
has to do, in a process of its own with a worker's threads, environment and nothing else.

`async with Floors(...)` keeps the process; `measure(seconds)` asks it for all steps once.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness.statistics import median
from worker.devices import Device

BATCHES = (1, 2, 4)
# Every step of one image after the other: each finds the caches as those before it left them, which
# is what an image alone meets. A step over and over is up to some times faster.
IN_TURN = "all in turn"
# Forward passes are most of an image and vary most: their time against that of another step.
FORWARD_SHARE = 6
READY_LIMIT_S = 60.0
# By name: images a call, and the call.
Steps = Mapping[str, tuple[int, Callable[[], object]]]


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
            *(f"--pack={pack}", f"--image={image}", f"--threads={threads_of(device)}"),
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
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n".encode())
        async with asyncio.timeout(READY_LIMIT_S + 2 * seconds):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the floors ended: see its words above")
        return {name: Floor(**floor) for name, floor in json.loads(line).items()}


def threads_of(device: Device) -> int:
    """Compute threads of a CPU device's worker."""
    return int(device.environment["OMP_NUM_THREADS"])


def steps(options: argparse.Namespace) -> Steps:
    """The functions of the worker, with the pack and the picture they are for."""
    import cv2
    import numpy as np
    import torch

    from worker import imaging
    from worker.backends import nms, skeleton
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
    picture = imaging.decode(encoded, limits)
    stride = max(32, pack.manifest.stride)
    framed = imaging.letterbox(picture, options.image_size, stride, imaging.ShapePolicy.RECT).image
    asked = NmsOptions((0.25,) * len(pack.manifest.class_names), 0.7, 300, agnostic=False)

    built = skeleton.Skeleton(pack.skeleton)
    flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
    built.bind(built.views(pack.places, flat))
    module: Any = built.module
    module.model[-1].export = True

    def tensor(images: Sequence[Any]) -> Any:
        pixels = torch.from_numpy(np.stack(images))
        return pixels.permute(0, 3, 1, 2).contiguous().flip(1).float().div_(255)

    half = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16")

    def forward(batch: Any) -> Any:
        with torch.inference_mode(), half:
            return module(batch)

    found: dict[str, tuple[int, Callable[[], object]]] = {
        "decode": (1, lambda: imaging.decode(encoded, limits)),
        "letterbox": (
            1,
            lambda: imaging.letterbox(
                picture, options.image_size, stride, imaging.ShapePolicy.RECT
            ),
        ),
        "tensor": (1, lambda: tensor([framed])),
    }
    for count in BATCHES:
        # The layout that the worker's tensors have; the other one takes as long.
        batch = tensor([framed] * count).contiguous(memory_format=torch.channels_last)
        found[f"forward of {count}"] = (count, partial(forward, batch))
    prediction = forward(tensor([framed])).float()
    boxes, scores = prediction[:, :4].numpy(), prediction[:, 4:].numpy()
    best = prediction[:, 4:].amax(1).numpy()

    def classes(image: int, rows: Any) -> Any:
        return scores[image][:, rows].argmax(0)

    found["nms"] = (1, lambda: nms.one_to_many(boxes, best, classes, [asked]))
    calls = [found[name][1] for name in ("decode", "letterbox", "tensor", "forward of 1", "nms")]

    def in_turn() -> None:
        for call in calls:
            call()

    found[IN_TURN] = (1, in_turn)
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
    """A line of results for each line of seconds."""
    found = steps(options)
    long = {name for name in found if name.startswith("forward")} | {IN_TURN}
    shares = {name: FORWARD_SHARE if name in long else 1 for name in found}
    for line in asked:
        share_s = float(line) / sum(shares.values())
        floors = {
            name: cost(images, call, share_s * shares[name])
            for name, (images, call) in found.items()
        }
        told = {name: {"cpu_s": one.cpu_s, "wall_s": one.wall_s} for name, one in floors.items()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", default="fp32")
    serve(parser.parse_args(), iter(sys.stdin.readline, ""))
