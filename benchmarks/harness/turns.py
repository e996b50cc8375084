"""Ways to call one pool, measured in turns: a client process a run, and CPU of the control plane.

Latency is that of one request at a time, CPU that of many in flight.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from benchmarks.harness import results
from benchmarks.harness.processes import CpuMeter
from benchmarks.harness.results import Result, Row
from benchmarks.harness.statistics import median, quantile

WARMUP_S = 1.0
CPU = "control_plane_cpu_ms"
Call = Callable[[], Awaitable[object]]
Client = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
Scenario = Callable[[argparse.Namespace], Awaitable[Result]]


def flags(prog: str, about: str | None) -> argparse.ArgumentParser:
    """What the command lines of such scenarios share."""
    parser = argparse.ArgumentParser(prog=prog, description=about)
    results.add_flags(parser)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of each run")
    parser.add_argument("--in-flight", type=int, default=16, help="requests of the loaded runs")
    parser.add_argument("--send", default="", help=argparse.SUPPRESS)  # the client process
    return parser


def main(options: argparse.Namespace, client: Client, scenario: Scenario) -> int:
    """Runs the scenario, or a client of it; answers the exit status."""
    if options.send:

        async def sent() -> Mapping[str, Any]:
            return await client(json.loads(options.send))

        sys.stdout.write(json.dumps(asyncio.run(sent())) + "\n")
        return 0

    async def ran() -> Result:
        return await scenario(options)

    return results.publish(asyncio.run(ran()), options.results)


async def send(
    order: Mapping[str, Any], opened: Callable[[], AbstractAsyncContextManager[Call]]
) -> dict[str, Any]:
    """The client process: a closed loop for each request in flight. `opened`: a connection."""
    took: list[float] = []
    ended = measuring = False

    async def loop() -> None:
        async with opened() as call:
            while not ended:
                began = time.perf_counter()
                await call()
                if measuring:
                    took.append(1000 * (time.perf_counter() - began))

    loops = [asyncio.create_task(loop()) for _ in range(order["in_flight"])]
    await asyncio.sleep(WARMUP_S)
    sys.stdout.write("warm\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    measuring, cpu_before = True, time.process_time()
    await asyncio.sleep(order["seconds"])
    measuring, cpu_s = False, time.process_time() - cpu_before
    ended = True
    await asyncio.gather(*loops)
    return {"took": took, "cpu_s": cpu_s}


async def measured(
    scenario: str, order: Mapping[str, Any], planes: Sequence[int]
) -> dict[str, float]:
    """One run: `python -m scenario --send order` calls, and the processes of `planes` answer."""
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", scenario, "--send", json.dumps(order)),
        stdin=pipe,
        stdout=pipe,
        limit=2**26,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    await client.stdout.readline()
    meter = CpuMeter(planes)
    meter.read()
    client.stdin.write(b"\n")
    await asyncio.sleep(order["seconds"])
    meter.read()
    told = json.loads((await client.communicate())[0])
    took = told["took"]
    return {
        "requests_per_s": len(took) / order["seconds"],
        "p50_ms": quantile(took, 0.5),
        "p99_ms": quantile(took, 0.99),
        CPU: 1000 * sum(meter.used_s().values()) / len(took),
        "client_cpu_ms": 1000 * told["cpu_s"] / len(took),
    }


def summary(rows: Sequence[Row], way: str, base: str, ratio: str) -> tuple[Row, ...]:
    """By the column `way`: medians of the rounds, and of the ratios of CPU to that of `base` within
    a round, in columns that begin with `ratio`.
    """
    table: list[Row] = []
    most = max(number(row, "in_flight") for row in rows)
    for name in dict.fromkeys(str(row[way]) for row in rows):
        alone = [row for row in rows if row[way] == name and number(row, "in_flight") == 1]
        loaded = [row for row in rows if row[way] == name and row["in_flight"] == most]
        bases = [row for row in rows if row[way] == base and row["in_flight"] == most]
        ratios = [number(a, CPU) / number(b, CPU) for a, b in zip(loaded, bases, strict=True)]
        table.append(
            {
                way: name,
                CPU: median([number(row, CPU) for row in loaded]),
                ratio: median(ratios),
                f"{ratio}_least": min(ratios),
                f"{ratio}_most": max(ratios),
                "requests_per_s": median([number(row, "requests_per_s") for row in loaded]),
                "alone_p50_ms": median([number(row, "p50_ms") for row in alone]),
                "alone_p99_ms": median([number(row, "p99_ms") for row in alone]),
            }
        )
    return tuple(table)


def number(row: Row, name: str) -> float:
    figure = row[name]
    assert isinstance(figure, int | float)
    return float(figure)
