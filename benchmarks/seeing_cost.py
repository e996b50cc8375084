"""What seeing costs: CPU of control plane and worker a request, with request log, metrics and
traces against without, and with an OpenTelemetry collector that is told on top.

    python -m benchmarks.seeing_cost

The device takes no time. The pools stand side by side and are called in turns; of one the code that
logs and counts is replaced by nothing. The collector takes all, and costs nobody else anything.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.authentication import NAME, PICTURE, AskingPool, Issuer
from benchmarks.harness import hardware, results, turns
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import bootstrap, median
from benchmarks.harness.turns import CPU, Call
from benchmarks.rpc_floor import NO_DEVICE, pixels_of
from yolopool.v1 import detection_pb2, detection_pb2_grpc

UNSEEN = str(Path(__file__).parent / "harness" / "unseen")
BASE, SEEN, COLLECTED = "nothing", "log, metrics, traces", "and a collector"
WAYS = {BASE: UNSEEN, SEEN: NO_DEVICE, COLLECTED: NO_DEVICE}
ENDPOINT = "YOLOPOOL_CONTROL_PLANE_OTLP_ENDPOINT"
LIMIT_US = 150.0


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.seeing_cost", description=__doc__)
    results.add_flags(parser)
    turns.add_flags(parser)
    return parser


@asynccontextmanager
async def opened(order: Mapping[str, Any], image: bytes) -> AsyncIterator[Call]:
    request = detection_pb2.DetectRequest(model=NAME, encoded=image)
    async with grpc.aio.insecure_channel(order["address"]) as channel:
        stub: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        yield lambda: stub.Detect(request, timeout=20)


async def run(options: argparse.Namespace) -> Result:
    """Both pools, in turns."""
    machine, started_at = hardware.describe(), results.now()
    before = os.environ.get("PYTHONPATH", "")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="yolopool-")))
        issuer = Issuer()
        stack.callback(issuer.stop)
        orders = {}
        endpoint = await stack.enter_async_context(collector())
        for number, (way, path) in enumerate(WAYS.items()):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, before)))
            os.environ[ENDPOINT] = endpoint if way == COLLECTED else ""
            pool = AskingPool("open", folder / str(number), issuer.file(folder / "issuers.toml"))
            stack.push_async_callback(pool.stop)
            await pool.start()
            orders[way] = ({"address": pool.address}, processes_of(pool))
        rows = await turns.measured("benchmarks.seeing_cost", "way", orders, options)
    table = summary(rows)
    cost = next(turns.number(row, "more_us") for row in table if row["way"] == SEEN)
    return Result(
        scenario="seeing_cost",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={"CPU of control plane and worker": table},
        checks=(
            Check(
                f"at most {LIMIT_US:.0f} us of CPU a request",
                cost <= LIMIT_US,
                f"{cost:.0f} us",
            ),
        ),
    )


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    """The endpoint of one that answers whatever it is told with nothing."""

    async def taken(request: bytes, context: Any) -> bytes:
        return b""

    def handlers(service: str) -> Any:
        method: Any = grpc.unary_unary_rpc_method_handler(taken)
        return grpc.method_handlers_generic_handler(service, {"Export": method})

    server = grpc.aio.server()
    kinds = ("trace.v1.Trace", "metrics.v1.Metrics")
    server.add_generic_rpc_handlers(
        [handlers(f"opentelemetry.proto.collector.{kind}Service") for kind in kinds]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


def processes_of(pool: AskingPool) -> list[int]:
    """Those of the control plane and of the worker, with its supervisor's."""
    pids = []
    for child in psutil.Process().children(recursive=True):
        command = " ".join(child.cmdline())
        if str(pool.folder) in command and "importer" not in command:
            pids.append(child.pid)
    assert len(pids) >= 2, "a control plane and a worker"
    return pids


def summary(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Medians of the loaded turns by way, and of what a round's turns differ by from the first."""
    most = max(turns.number(row, "in_flight") for row in rows)
    loaded = {way: [r for r in rows if r["way"] == way and r["in_flight"] == most] for way in WAYS}
    table: list[Row] = []
    for way, of_way in loaded.items():
        pairs = zip(of_way, loaded[BASE], strict=True)
        more = [1000 * (turns.number(a, CPU) - turns.number(b, CPU)) for a, b in pairs]
        interval = bootstrap([more], lambda drawn: median(drawn[0]), seed=0)
        table.append(
            {
                "way": way,
                "cpu_ms": median([turns.number(row, CPU) for row in of_way]),
                "more_us": median(more),
                "more_us_low": interval.low,
                "more_us_high": interval.high,
                "requests_per_s": median([turns.number(row, "requests_per_s") for row in of_way]),
            }
        )
    return tuple(table)


async def send(order: Mapping[str, Any]) -> None:
    """The client process."""
    image = pixels_of(PICTURE)[0]
    await turns.send(order, lambda: opened(order, image))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    return turns.main(flags().parse_args(arguments), send, run)


if __name__ == "__main__":
    sys.exit(main())
