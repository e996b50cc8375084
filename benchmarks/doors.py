"""What each door costs: CPU of the control plane per request, and latency, against gRPC Detect.

    python -m benchmarks.doors

The device takes no time. One pool serves all doors, in turns within a round, so that figures of a
round may be compared. Latency is that of one request at a time, CPU that of many in flight.
"""

import argparse
import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc

from benchmarks.harness import hardware, results, turns
from benchmarks.harness.fleet import register
from benchmarks.harness.http_calls import Connection, post
from benchmarks.harness.pool import Pool, PoolFlags, free_port, role_of
from benchmarks.harness.processes import descendants
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.turns import Call
from benchmarks.rpc_floor import MODEL, NO_DEVICE, Picture, pixels_of
from yolopool.client.async_client import AsyncClient
from yolopool.kserve import grpc_service_pb2, grpc_service_pb2_grpc
from yolopool.v1 import detection_pb2, detection_pb2_grpc

NAME = "m640"
PICTURE = Picture(640, 480, 100_000, 640)
BASE, RATIO = "gRPC", "cpu_of_grpc"


@asynccontextmanager
async def over_grpc(order: Mapping[str, Any], image: bytes) -> AsyncIterator[Call]:
    request = detection_pb2.DetectRequest(model=NAME, encoded=image)
    async with grpc.aio.insecure_channel(order["grpc"]) as channel:
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        yield lambda: stub.Detect(request, timeout=20)


@asynccontextmanager
async def over_http(order: Mapping[str, Any], request: bytes) -> AsyncIterator[Call]:
    host, _, port = order["http"].rpartition(":")
    async with Connection(host, int(port)) as connection:

        async def call() -> None:
            status, body = await connection.call(request)
            if status != 200:
                raise RuntimeError(body.decode())

        yield call


def rest_raw(image: bytes) -> bytes:
    return post(f"/v1/detect?model={NAME}", "image/jpeg", image)


def rest_multipart(image: bytes) -> bytes:
    """As curl -F writes it."""
    boundary = "------------------------d74496d66958873e"
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{NAME}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body = parts + image + f"\r\n--{boundary}--\r\n".encode()
    return post("/v1/detect", f"multipart/form-data; boundary={boundary}", body)


def rest_json(image: bytes) -> bytes:
    body = json.dumps({"model": NAME, "image": base64.b64encode(image).decode()}).encode()
    return post("/v1/detect", "application/json", body)


@asynccontextmanager
async def over_kserve(order: Mapping[str, Any], image: bytes) -> AsyncIterator[Call]:
    asked = kserve_request()
    asked.raw_input_contents.append(len(image).to_bytes(4, "little") + image)
    async with grpc.aio.insecure_channel(order["grpc"]) as channel:
        stub: Any = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield lambda: stub.ModelInfer(asked, timeout=20)


def kserve_request() -> grpc_service_pb2.ModelInferRequest:
    tensor = grpc_service_pb2.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[1, 1]
    )
    return grpc_service_pb2.ModelInferRequest(model_name=NAME, inputs=[tensor])


def kserve_http(image: bytes) -> bytes:
    """With the image as binary data, as tritonclient sends it."""
    size = len(image) + 4
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1, 1]}
    head = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": size}}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head).encode()
    body = text + len(image).to_bytes(4, "little") + image
    lines = f"Inference-Header-Content-Length: {len(text)}\r\n"
    return post(f"/v2/models/{NAME}/infer", "application/octet-stream", body, lines)


# By its name, what makes a call of a door: the order of this run and the image are given.
DOORS: dict[str, Callable[[Mapping[str, Any], bytes], Any]] = {
    BASE: over_grpc,
    "REST raw": lambda order, image: over_http(order, rest_raw(image)),
    "REST multipart": lambda order, image: over_http(order, rest_multipart(image)),
    "REST JSON": lambda order, image: over_http(order, rest_json(image)),
    "KServe v2 gRPC": over_kserve,
    "KServe v2 HTTP": lambda order, image: over_http(order, kserve_http(image)),
}
# CPU of the control plane that a door may take, as a multiple of gRPC Detect's.
LIMITS = {"REST raw": 1.5, "KServe v2 gRPC": 1.2}


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.doors", description=__doc__)
    results.add_flags(parser)
    turns.add_flags(parser)
    parser.add_argument("--doors", default=",".join(DOORS), help="which, comma separated")
    return parser


async def send(order: Mapping[str, Any]) -> None:
    """The client process."""
    image = pixels_of(PICTURE)[0]
    await turns.send(order, lambda: DOORS[order["door"]](order, image))


def planes() -> list[int]:
    """The control plane of the pool that this process started."""
    below = descendants(os.getpid())
    return [one.pid for one in below if role_of(one.command) == "control_plane"]


async def run(options: argparse.Namespace) -> Result:
    """All doors, in turns."""
    machine, started_at = hardware.describe(), results.now()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (NO_DEVICE, before)))
    http, doors = f"127.0.0.1:{free_port()}", options.doors.split(",")
    pool_flags = PoolFlags("sim:1", demo=False, extra=("--http-port", http.rpartition(":")[2]))
    async with Pool(pool_flags) as pool, AsyncClient(pool.address) as client:
        await register(client, NAME, MODEL, image_size=PICTURE.image_size)
        orders = {
            door: ({"grpc": pool.address, "http": http, "door": door}, planes()) for door in doors
        }
        rows = await turns.measured("benchmarks.doors", "door", orders, options)
    table = turns.summary(rows, "door", BASE, RATIO)
    return Result(
        scenario="doors",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"doors": table},
        checks=verdicts(table),
    )


def verdicts(table: Sequence[Row]) -> tuple[Check, ...]:
    checks = []
    for row in table:
        limit = LIMITS.get(str(row["door"]))
        if limit is not None:
            ratio = turns.number(row, RATIO)
            name = f"{row['door']}: at most {limit:g} x the CPU of gRPC Detect"
            checks.append(Check(name, ratio <= limit, f"{ratio:.2f} x"))
    return tuple(checks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario, or its client; answers the exit status."""
    options = flags().parse_args(arguments)
    if options.send:
        asyncio.run(send(json.loads(options.send)))
        return 0
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
