"""Pools with one model, asked for one JPEG again and again: what scenarios about the cost of a step
begin with.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.harness import dataset, fleet
from benchmarks.harness.hardware import ROOT
from benchmarks.harness.pool import Pool, PoolFlags
from yolopool.client.async_client import AsyncClient

# On PYTHONPATH, a pool's workers answer at once.
ECHO = str(ROOT / "benchmarks" / "harness" / "echo")
SIZE = (640, 480)
TIMEOUT_S = 30.0


def jpeg() -> bytes:
    """A labelled image of 640x480 as a camera would send it."""
    picture = Image.open(io.BytesIO(dataset.encoded()[0])).convert("RGB").resize(SIZE)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return file.getvalue()


@contextlib.contextmanager
def environment(**changes: str) -> Iterator[None]:
    """For the processes that are started inside."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


async def started(
    stack: contextlib.AsyncExitStack,
    pool_flags: PoolFlags,
    image_size: int,
    log: Path | None,
    weights: Path = dataset.DEMO_WEIGHTS,
) -> Pool:
    """A pool with one model at this size, `shapes`, on every worker."""
    pool = await stack.enter_async_context(Pool(pool_flags, log))
    async with AsyncClient(pool.address) as client:
        await fleet.register(client, "shapes", weights, image_size)
        await client.load("shapes", replicas=pool_flags.expected_workers, pin=True)
    return pool
