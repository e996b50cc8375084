"""What a request costs around the device: CPU of client, control plane, I/O processes and worker.

    python -m benchmarks.rpc_floor --seconds 5 --rounds 3

The device takes no time, so the pool is as fast as its processes. The load comes from processes of
this machine, which share its cores: read CPU a request, and rates as those of all of it together.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np

from benchmarks.harness import dataset, hardware, results, weights
from benchmarks.harness.fleet import register
from benchmarks.harness.pool import Pool, PoolFlags, role_of
from benchmarks.harness.processes import CpuMeter, descendants
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from benchmarks.harness.worker import Worker
from yolopool.client.async_client import AsyncClient
from yolopool.v1 import detection_pb2, detection_pb2_grpc, types_pb2, worker_pb2, worker_pb2_grpc

MODEL = dataset.FOLDER.parent / "models" / "shapes.pt"
NO_DEVICE = str(Path(__file__).parent / "harness" / "no_device")
WARMUP_S = 1.0


@dataclass(frozen=True, slots=True)
class Picture:
    """What is sent: width and height in pixels, bytes of JPEG (0: raw), and the model's size."""

    width: int
    height: int
    jpeg_bytes: int
    image_size: int


# A model of 32 pixels makes next to nothing of decoding: what is left is RPC.
PICTURES = {
    "raw 3 KB to 32 px": Picture(32, 32, 0, 32),
    "raw 100 KB to 32 px": Picture(184, 184, 0, 32),
    "JPEG 8 KB to 320 px": Picture(320, 240, 8_000, 320),
    "JPEG 100 KB to 640 px": Picture(640, 480, 100_000, 640),
    "raw 900 KB to 640 px": Picture(640, 480, 0, 640),
}


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.rpc_floor", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each run")
    parser.add_argument("--rounds", type=int, default=3, help="through all ways, in turns")
    parser.add_argument("--clients", type=int, default=2, help="processes that send")
    parser.add_argument("--in-flight", type=int, default=16, help="requests of each of them")
    parser.add_argument("--io", default="0,1,2,4", help="numbers of I/O processes")
    parser.add_argument("--pictures", default=",".join(PICTURES), help="which, comma separated")
    parser.add_argument("--pool", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--send", default="", help=argparse.SUPPRESS)  # a client process
    return parser


def pixels_of(picture: Picture) -> tuple[bytes, bool]:
    """The bytes that are sent, and whether they are raw: noise over a smooth ground, so that a
    JPEG of the size asked for has a natural quality.
    """
    rng = np.random.default_rng(5)
    ground = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(ground, (picture.width, picture.height), interpolation=cv2.INTER_CUBIC)
    image = cv2.add(image, rng.integers(0, 40, image.shape, np.uint8))
    if not picture.jpeg_bytes:
        return image.tobytes(), True
    tries = (
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        for quality in range(20, 100)
    )
    return min(tries, key=lambda data: abs(len(data) - picture.jpeg_bytes)), False


def request_of(picture: Picture, model: str, direct: bool) -> Any:
    """The one message that is sent over and over."""
    data, raw = pixels_of(picture)
    image: dict[str, Any] = {"encoded": data}
    if raw:
        order = types_pb2.CHANNEL_ORDER_BGR
        image = {
            "raw": types_pb2.RawImage(
                data=data, height=picture.height, width=picture.width, channel_order=order
            )
        }
    if direct:
        version = types_pb2.VersionKey(model=model, version=1)
        return worker_pb2.InferRequest(version=version, **image)
    return detection_pb2.DetectRequest(model=model, **image)


async def send(order: dict[str, Any]) -> dict[str, Any]:
    """One client process: a closed loop; answered and refused requests and CPU of the window."""
    direct = order["direct"]
    request = request_of(PICTURES[order["picture"]], order["model"], direct)
    channels = [grpc.aio.insecure_channel(address) for address in order["addresses"]]
    stubs: list[Any] = [
        worker_pb2_grpc.WorkerServiceStub(one).Infer
        if direct
        else detection_pb2_grpc.DetectionServiceStub(one).Detect
        for one in channels
    ]
    finished: list[tuple[float, float]] = []
    refused, ended = 0, False

    async def loop(number: int) -> None:
        nonlocal refused
        call = stubs[number % len(stubs)]
        while not ended:
            sent = time.perf_counter()
            try:
                await call(request, timeout=20)
            except grpc.aio.AioRpcError:
                refused += 1
                await asyncio.sleep(0.01)
                continue
            now = time.perf_counter()
            finished.append((now, 1000 * (now - sent)))

    loops = [asyncio.create_task(loop(number)) for number in range(order["in_flight"])]
    await asyncio.sleep(WARMUP_S)
    sys.stdout.write("warm\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)  # when all are
    first, cpu_before = time.perf_counter(), time.process_time()
    await asyncio.sleep(order["seconds"])
    last, cpu_s = time.perf_counter(), time.process_time() - cpu_before
    ended = True
    await asyncio.gather(*loops)
    for channel in channels:
        await channel.close()
    took = sorted(took for at, took in finished if first <= at < last)
    return {"per_s": len(took) / (last - first), "refused": refused, "cpu_s": cpu_s, "took": took}


async def loaded(
    options: argparse.Namespace, addresses: Sequence[str], picture: str, root: int, direct: bool
) -> dict[str, float]:
    """One run: requests a second, latency, and milliseconds of CPU a request by role."""
    order = {
        "addresses": list(addresses),
        "picture": picture,
        "model": name_of(PICTURES[picture]),
        "direct": direct,
        "in_flight": options.in_flight,
        "seconds": options.seconds,
    }
    command = [sys.executable, "-m", "benchmarks.rpc_floor", "--send", json.dumps(order)]
    pipe = asyncio.subprocess.PIPE
    clients = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=2**26)
        for _ in range(options.clients)
    ]
    own = {client.pid for client in clients} | {os.getpid()}
    tree = {one.pid: role_of(one.command) for one in descendants(root) if one.pid not in own}
    meter = CpuMeter(tree)
    for client in clients:
        assert client.stdout is not None
        await client.stdout.readline()
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(b"\n")
    meter.read()
    began = time.perf_counter()
    await asyncio.sleep(options.seconds)
    meter.read()
    length_s = time.perf_counter() - began
    told = [json.loads((await client.communicate())[0]) for client in clients]
    rate = sum(one["per_s"] for one in told)
    took = sorted(ms for one in told for ms in one["took"])
    cost = {"client": 1000 * sum(one["cpu_s"] for one in told) / len(took)}
    by_role: dict[str, list[float]] = {}
    for pid, used_s in meter.used_s().items():
        by_role.setdefault(tree[pid], []).append(1000 * used_s / (rate * length_s))
    for role in ("control_plane", "worker_io", "worker"):
        if role in by_role:
            cost[role] = sum(by_role[role])
    return {
        "requests_per_s": rate,
        "p50_ms": took[len(took) // 2],
        "p99_ms": took[int(len(took) * 0.99)],
        "refused": float(sum(one["refused"] for one in told)),
        **{f"{role}_cpu_ms": ms for role, ms in cost.items()},
    }


def name_of(picture: Picture) -> str:
    """Of the model that takes it."""
    return f"m{picture.image_size}"


async def direct(options: argparse.Namespace, io: int, pack: Path) -> list[Row]:
    """Callers of the worker's own door, or of its I/O processes."""
    rows: list[Row] = []
    flags = (f"--io-processes={io}", "--queue-capacity=256")
    async with Worker("sim:1", flags) as worker:
        for size in sorted({one.image_size for one in PICTURES.values()}):
            await worker.assign(f"m{size}", pack, size)
        one = await worker.inventory()
        addresses = list(one.io_addresses) or [one.address]
        for picture in options.pictures.split(","):
            run = await loaded(options, addresses, picture, worker.pid, direct=True)
            rows.append({"way": "direct", "io": io, "picture": picture, **run})
    return rows


async def pooled(options: argparse.Namespace, io: int) -> list[Row]:
    """Callers of a control plane."""
    os.environ["YOLOPOOL_WORKER_IO_PROCESSES"] = str(io)
    os.environ["YOLOPOOL_WORKER_QUEUE_CAPACITY"] = "256"
    rows: list[Row] = []
    async with Pool(PoolFlags("sim:1", demo=False)) as pool, AsyncClient(pool.address) as client:
        for picture in options.pictures.split(","):
            size = PICTURES[picture].image_size
            await register(client, f"m{size}", MODEL, image_size=size)
            run = await loaded(options, [pool.address], picture, os.getpid(), direct=False)
            rows.append({"way": "control plane", "io": io, "picture": picture, **run})
    return rows


async def run(options: argparse.Namespace) -> Result:
    """All ways in turns, `rounds` times; the median of each figure."""
    machine, started_at = hardware.describe(), results.now()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (NO_DEVICE, before)))
    rows: list[Row] = []
    numbers = [int(text) for text in options.io.split(",")]
    with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
        pack = weights.pack(MODEL, Path(folder))
        for number in range(options.rounds):
            for io in numbers if number % 2 == 0 else numbers[::-1]:
                rows += await direct(options, io, pack)
                if options.pool:
                    rows += await pooled(options, io)
    table = summary(rows)
    return Result(
        scenario="rpc_floor",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"no-op device": tuple(table)},
        checks=verdicts(table),
    )


def summary(rows: Sequence[Row]) -> list[Row]:
    """Medians of the rounds; and what one core of the worker process would bear, by its CPU."""
    ways = dict.fromkeys((row["way"], row["picture"], row["io"]) for row in rows)
    table: list[Row] = []
    for way, picture, io in ways:
        runs = [
            row for row in rows if (row["way"], row["picture"], row["io"]) == (way, picture, io)
        ]
        figures = {
            name: median([float(row[name] or 0) for row in runs])
            for name in runs[0]
            if name not in ("way", "picture", "io")
        }
        figures["worker_core_bears_per_s"] = 1000 / figures["worker_cpu_ms"]
        table.append({"way": way, "picture": picture, "io": io, **figures})
    return table


def verdicts(table: Sequence[Row]) -> tuple[Check, ...]:
    """I/O processes are to take more off the device process than they add to it."""
    checks = []
    for row in table:
        without = [
            one
            for one in table
            if (one["way"], one["picture"], one["io"]) == (row["way"], row["picture"], 0)
        ]
        if not row["io"] or not without:
            continue
        here, there = float(row["worker_cpu_ms"] or 0), float(without[0]["worker_cpu_ms"] or 0)
        name = f"{row['way']}, {row['picture']}: less CPU in the device process by {row['io']} I/O"
        checks.append(Check(name, here < there, f"{here:.3f} ms a request, without: {there:.3f}"))
    return tuple(checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario, or one client of it; answers the exit status."""
    options = flags().parse_args(arguments)
    if options.send:
        sys.stdout.write(json.dumps(asyncio.run(send(json.loads(options.send)))) + "\n")
        return 0
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
