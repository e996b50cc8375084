"""Streams: does a slow reader make anything grow, and what do live cameras get of a busy device?

    python -m benchmarks.streams --frames 5000 --seconds 120

`slow reader`: a stream whose reader takes a tenth of what the device could answer, by the client
and by bare gRPC, which sends as fast as it is let. `cameras`: newest only, more frames than a
simulated device can answer, and a unary caller beside them.
"""

import argparse
import asyncio
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from benchmarks.harness import dataset, fleet, hardware, results, weights
from benchmarks.harness.loadgen import Edge, Load, closed_loop, constant_arrivals, open_loop
from benchmarks.harness.pool import Pool, PoolFlags
from benchmarks.harness.processes import CpuMeter, memory
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.standstill import Standstills, undisturbed
from benchmarks.harness.statistics import quantile
from yolopool import AsyncClient, Frame, FrameResult
from yolopool.client.model_records import Batching
from yolopool.transport import client_options
from yolopool.v1 import detection_pb2, detection_pb2_grpc

FAST, BUSY = "fast", "busy"
# What is demanded.
SLOWER, GROWN_BYTES = 10.0, 16 * 1024**2
AGE_MS, UNEQUAL, MORE = 300.0, 0.1, 1.2
WARMUP_S, CAPACITY_S, CAPACITY_CLIENTS, PROBE = 3.0, 5.0, 12, 300


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.streams", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--parts", default="slow reader,cameras", help="of the scenario")
    parser.add_argument("--frames", type=int, default=1000, help="of a slow reader's stream")
    parser.add_argument("--seconds", type=float, default=15.0, help="of cameras, and of the caller")
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--rate", type=float, default=25.0, help="frames/s of each camera")
    parser.add_argument("--unary", type=float, default=2.0, help="requests/s of the caller beside")
    parser.add_argument("--batches", default="1,16", help="largest batches of the busy device")
    parser.add_argument("--architecture", default="yolov8x.yaml", help="on the busy device")
    parser.add_argument("--image-size", type=int, default=1024, help="of it: 40 images/s")
    parser.add_argument("--pool-log", type=Path, help="keep the log of the pool's processes here")
    return parser


def pictures(count: int = 8) -> tuple[bytes, ...]:
    """JPEGs of some 100 KB, as cameras send them."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        coarse = rng.integers(0, 256, (160, 160, 3), np.uint8)
        scratch = io.BytesIO()
        Image.fromarray(coarse).resize((640, 640)).save(scratch, "JPEG", quality=92)
        found.append(scratch.getvalue())
    return tuple(found)


IMAGES = pictures()


# --- a slow reader ------------------------------------------------------------------------------


@dataclass(slots=True)
class Watched:
    """RSS of two processes while a stream is read slowly."""

    pids: Mapping[str, int]
    bytes_of: dict[str, list[int]] = field(default_factory=dict)

    def look(self) -> None:
        for role, pid in self.pids.items():
            self.bytes_of.setdefault(role, []).append(memory(pid).rss_bytes)

    def figures(self) -> dict[str, float]:
        """The first fifth is the warm-up: windows fill, and so do heaps."""
        row: dict[str, float] = {}
        for role, seen in self.bytes_of.items():
            early = seen[: max(1, len(seen) // 5)]
            row[f"{role}_mb"] = max(early) / 1e6
            row[f"{role}_most_mb"] = max(seen) / 1e6
            row[f"{role}_grown_mb"] = (max(seen) - max(early)) / 1e6
        return row


async def by_client(client: AsyncClient, frames: int, pause_s: float) -> AsyncIterator[int]:
    images = (IMAGES[number % len(IMAGES)] for number in range(frames))
    async for result in client.detect_stream(images, FAST):
        if result.error is not None:
            raise result.error
        yield result.id
        await asyncio.sleep(pause_s)


async def by_grpc(client: AsyncClient, frames: int, pause_s: float) -> AsyncIterator[int]:
    """Frames as fast as gRPC lets them go: only the server and the connection hold them back."""

    async def messages() -> AsyncIterator[Any]:
        opening = detection_pb2.StreamOpening(model=FAST)
        yield detection_pb2.DetectStreamRequest(opening=opening)
        for number in range(frames):
            encoded = IMAGES[number % len(IMAGES)]
            frame = detection_pb2.StreamFrame(frame_id=number, encoded=encoded)
            yield detection_pb2.DetectStreamRequest(frame=frame)

    options = client_options(client.address)
    async with grpc.aio.insecure_channel(client.address, options=options) as channel:
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        async for answer in stub.DetectStream(messages()):
            yield answer.frame_id
            await asyncio.sleep(pause_s)


async def slow_reader(
    pool: Pool, client: AsyncClient, options: argparse.Namespace
) -> tuple[list[Row], list[Check]]:
    """The rate of a reader who waits for every answer, then a tenth of it, by either way."""
    begun = time.monotonic()
    count = sum([1 async for _ in by_client(client, PROBE, 0.0)])
    rate = count / (time.monotonic() - begun)
    (control_plane,) = pool.roles()["control_plane"]
    rows: list[Row] = []
    checks: list[Check] = []
    for name, read in (("client", by_client), ("bare gRPC", by_grpc)):
        watched = Watched({"control_plane": control_plane, "client": os.getpid()})
        seen: list[int] = []
        async for number in read(client, options.frames, SLOWER / rate):
            seen.append(number)
            if len(seen) % max(1, options.frames // 200) == 0:
                watched.look()
        figures = watched.figures()
        grown = {role: figures[f"{role}_grown_mb"] for role in watched.pids}
        rows.append({"by": name, "frames": len(seen), "could_a_second": rate, **figures})
        checks.append(
            Check(
                f"{name}: {options.frames} answers in order",
                seen == list(range(options.frames)),
                f"{len(seen)} came",
            )
        )
        checks.append(
            Check(
                f"{name}: memory is flat",
                all(mb * 1e6 < GROWN_BYTES for mb in grown.values()),
                ", ".join(f"{role} {mb:+.1f} MB" for role, mb in grown.items()),
            )
        )
    return rows, checks


# --- cameras ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Footage:
    """What the cameras got in the measured time."""

    results: list[tuple[int, FrameResult]] = field(default_factory=list)

    @property
    def ages_ms(self) -> list[float]:
        return [one.age_s * 1e3 for _, one in self.results if one.error is None]

    @property
    def errors(self) -> dict[str, int]:
        failed = (one.error for _, one in self.results if one.error is not None)
        return dict(Counter(getattr(error, "reason", str(error)) for error in failed))

    def counts(self, cameras: int) -> list[int]:
        answered = Counter(camera for camera, one in self.results if one.error is None)
        return [answered[camera] for camera in range(cameras)]

    @property
    def longest_ms(self) -> float:
        """The longest pass."""
        found = (one.detections for _, one in self.results)
        return max(one.timing.inference_ms for one in found if one is not None)

    @property
    def mean_batch(self) -> float:
        sizes = [one.detections.batch_size for _, one in self.results if one.detections]
        return sum(sizes) / len(sizes)


async def film(rate: float, until_s: float, offset_s: float) -> AsyncIterator[Frame]:
    """By the clock, whatever becomes of the frames; cameras begin one after the other."""
    loop, number = asyncio.get_running_loop(), 0
    began = loop.time() + offset_s
    while (at := began + number / rate) < until_s:
        await asyncio.sleep(max(0.0, at - loop.time()))
        yield Frame(IMAGES[number % len(IMAGES)], id=number)
        number += 1


async def watch(
    client: AsyncClient, camera: int, options: argparse.Namespace, seconds: float, footage: Footage
) -> None:
    loop = asyncio.get_running_loop()
    begin_s, until_s = loop.time() + WARMUP_S, loop.time() + WARMUP_S + seconds
    frames = film(options.rate, until_s, camera / options.rate / options.cameras)
    async for result in client.detect_stream(frames, BUSY, newest_only=True):
        if begin_s <= loop.time() < until_s:
            footage.results.append((camera, result))


async def ask(client: AsyncClient, number: int) -> Mapping[str, float]:
    image = IMAGES[number % len(IMAGES)]
    return {"pass_ms": (await client.detect(image, model=BUSY)).timing.inference_ms}


async def unary(client: AsyncClient, options: argparse.Namespace, edge: Edge | None = None) -> Load:
    arrivals = constant_arrivals(options.unary, options.seconds + WARMUP_S)
    return await open_loop(partial(ask, client), arrivals, WARMUP_S, options.seconds, edge)


async def cameras(
    pool: Pool, client: AsyncClient, stood: Standstills, batch: int, options: argparse.Namespace
) -> tuple[Row, list[Check]]:
    """The caller alone, then beside the cameras, on a device with passes of at most `batch`."""
    await client.set_batching(BUSY, "sim", Batching(max_batch=batch))
    capacity = await closed_loop(partial(ask, client), CAPACITY_CLIENTS, WARMUP_S, CAPACITY_S)
    alone = await unary(client, options)
    footage = Footage()
    filming = (
        watch(client, camera, options, options.seconds, footage)
        for camera in range(options.cameras)
    )
    roles = pool.roles()
    meter = CpuMeter([*roles["control_plane"], *roles["worker"]])
    watching = asyncio.gather(*filming)
    beside = await unary(client, options, meter.read)
    await watching
    used_s, cores = meter.used_s(), {}
    for role in ("control_plane", "worker"):
        cores[f"{role}_cores"] = sum(used_s[pid] for pid in roles[role]) / options.seconds
    counts, ages_ms = footage.counts(options.cameras), footage.ages_ms
    mean = sum(counts) / len(counts)
    unequal = max(abs(count / mean - 1) for count in counts)
    alone_ms, beside_ms = (_running_p99_ms(load, stood) for load in (alone, beside))
    limit_ms = MORE * (alone_ms + footage.longest_ms)
    row: Row = {
        "largest_batch": batch,
        "capacity_a_second": capacity.throughput,
        "answered_a_second": sum(counts) / options.seconds,
        "of_each_least": min(counts) / options.seconds,
        "of_each_most": max(counts) / options.seconds,
        "age_p50_ms": quantile(ages_ms, 0.5),
        "age_p99_ms": quantile(ages_ms, 0.99),
        "age_most_ms": max(ages_ms),
        "mean_batch": footage.mean_batch,
        "longest_pass_ms": footage.longest_ms,
        "unary_alone_p99_ms": alone.latency_ms().p99,
        "unary_beside_p99_ms": beside.latency_ms().p99,
        "alone_p99_while_it_ran_ms": alone_ms,
        "beside_p99_while_it_ran_ms": beside_ms,
        "generator_cores": beside.generator_cores,
        **cores,
    }
    failed = {**footage.errors, **alone.errors, **beside.errors}
    of_device = f"passes of {batch}"
    return row, [
        Check(f"{of_device}: no error", not failed, str(failed or "none")),
        Check(
            f"{of_device}: answered frames are fresh",
            quantile(ages_ms, 0.99) < AGE_MS,
            f"p99 {quantile(ages_ms, 0.99):.0f} ms of {len(ages_ms)}, at most {AGE_MS:.0f}",
        ),
        Check(
            f"{of_device}: cameras get equally much",
            unequal <= UNEQUAL,
            f"{min(counts)} to {max(counts)} frames, {unequal:.1%} off the mean at most",
        ),
        Check(
            f"{of_device}: a unary caller beside waits for one pass more",
            beside_ms <= limit_ms,
            f"p99 {beside_ms:.0f} ms while the machine ran; alone {alone_ms:.0f} ms and a pass of "
            f"{footage.longest_ms:.0f} ms, x {MORE}, allow {limit_ms:.0f} ms",
        ),
    ]


def _running_p99_ms(load: Load, stood: Standstills) -> float:
    times_ms = [one.latency_s * 1e3 for one in undisturbed(load, stood.spans) if not one.reason]
    return quantile(times_ms, 0.99)


# --- the scenario -------------------------------------------------------------------------------


async def run(options: argparse.Namespace) -> Result:
    """Both parts on a pool with one simulated device."""
    machine, started_at = hardware.describe(), results.now()
    tables: dict[str, tuple[Row, ...]] = {}
    checks: list[Check] = []
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory(prefix="yolopool-") as name:
        pool_flags = PoolFlags("sim:1", demo=False)
        async with (
            Standstills() as stood,
            Pool(pool_flags, options.pool_log) as pool,
            AsyncClient(pool.address) as client,
        ):
            if "slow reader" in parts:
                await fleet.register(client, FAST, dataset.DEMO_WEIGHTS)
                await client.load(FAST, pin=True)
                rows, found = await slow_reader(pool, client, options)
                tables["slow reader"] = tuple(rows)
                checks += found
            if "cameras" in parts:
                busy = weights.make(options.architecture, 0, Path(name) / "busy.pt")
                await fleet.register(client, BUSY, busy, options.image_size)
                await client.load(BUSY, pin=True)
                runs = []
                for batch in map(int, options.batches.split(",")):
                    row, found = await cameras(pool, client, stood, batch, options)
                    runs.append(row)
                    checks += found
                tables["cameras"] = tuple(runs)
    return Result(
        scenario="streams",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables=tables,
        checks=tuple(checks),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
