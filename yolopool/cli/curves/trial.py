"""Requests to a real pool, to see what they take: one by one, and at random at a rate."""

import asyncio
import random
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from yolopool.client.async_client import AsyncClient
from yolopool.client.client import Client
from yolopool.client.fleet_records import BenchPoint
from yolopool.errors import YolopoolError
from yolopool.tuning.pass_curve import PassCurve

# Requests sent one by one, after some that are not counted.
ALONE, FIRST = 30, 5
# Arrivals are the same in every trial.
SEED = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """`requests` sent at `rate` a second, of which so many `failed` (`reason`: of the first)."""

    requests: int
    failed: int
    reason: str
    rate: float
    p50_s: float
    p99_s: float

    def says(self) -> str:
        failed = f", {self.failed} failed ({self.reason})" if self.failed else ""
        return (
            f"tried: {self.requests} requests at {self.rate:.3g}/s: "
            f"p50 {self.p50_s * 1000:.3g} ms, p99 {self.p99_s * 1000:.3g} ms{failed}"
        )


def beside_s(
    client: Client,
    model: str,
    image: Path | None,
    shape: tuple[int, int],
    curve: PassCurve,
) -> float:
    """What a request takes beside its pass, seen from here: nine of ten took no more."""
    sent, took = _image(image, shape), []
    for _ in range(FIRST + ALONE):
        began = time.perf_counter()
        client.detect(sent, model=model, channel_order="bgr")
        took.append(time.perf_counter() - began)
    return max(0.0, sorted(took[FIRST:])[ceil(0.9 * ALONE) - 1] - curve.usual_of(1))


def try_out(
    address: str, point: BenchPoint, rate: float, seconds: float, image: Path | None
) -> Trial:
    """Sends requests at random moments (Poisson), whether or not earlier ones were answered."""
    sent = _image(image, (point.height, point.width))
    return asyncio.run(_try_out(address, point.model, sent, rate, seconds))


async def _try_out(
    address: str, model: str, sent: bytes | NDArray[np.uint8], rate: float, seconds: float
) -> Trial:
    moments, took, reasons, tasks = random.Random(SEED), [], [], []

    async with AsyncClient(address) as client:

        async def one() -> None:
            began = time.perf_counter()
            try:
                await client.detect(sent, model=model, channel_order="bgr")
            except YolopoolError as error:
                reasons.append(error.reason)
            else:
                took.append(time.perf_counter() - began)

        for _ in range(FIRST):
            await client.detect(sent, model=model, channel_order="bgr")
        begins = due = time.perf_counter()
        while due - begins < seconds:
            await asyncio.sleep(due - time.perf_counter())
            tasks.append(asyncio.create_task(one()))
            due += moments.expovariate(rate)
        await asyncio.gather(*tasks)
    took.sort()
    p50_s, p99_s = (took[ceil(s * len(took)) - 1] if took else 0.0 for s in (0.5, 0.99))
    return Trial(len(tasks), len(reasons), next(iter(reasons), ""), rate, p50_s, p99_s)


def _image(file: Path | None, shape: tuple[int, int]) -> bytes | NDArray[np.uint8]:
    """The file's bytes, else grey pixels of (height, width)."""
    if file is not None:
        return file.read_bytes()
    return np.full((*shape, 3), 114, np.uint8)
