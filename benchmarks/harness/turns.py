"""Ways to call a pool, measured in turns: a client process a way, and CPU of the control plane.

Turns are short and every way has one in each round: what a shared machine gives changes within
seconds, and so is in all of them. Latency is that of one request at a time, CPU that of many in
flight; a turn begins and ends with none.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks.harness.processes import CpuMeter
from benchmarks.harness.results import Row
from benchmarks.harness.statistics import bootstrap, median, quantile

WARMUP_S = 1.0
CPU = "control_plane_cpu_ms"
Call = Callable[[], Awaitable[object]]


async def send(
    order: Mapping[str, Any], opened: Callable[[], AbstractAsyncContextManager[Call]]
) -> None:
    """The client process: a closed loop for each request in flight, for so many seconds as each
    line of stdin says. `opened`: a connection.
    """
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(opened()) for _ in range(order["in_flight"])]
        await _turn(calls, WARMUP_S)
        _tell({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            cpu_before = time.process_time()
            took = await _turn(calls, float(line))
            _tell({"took": took, "cpu_s": time.process_time() - cpu_before})


async def _turn(calls: Sequence[Call], seconds: float) -> list[float]:
    """Milliseconds of each request that began within so many seconds; all are answered."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def loop(call: Call) -> None:
        while (began := time.perf_counter()) < until:
            await call()
            took.append(1000 * (time.perf_counter() - began))

    await asyncio.gather(*map(loop, calls))
    return took


def _tell(what: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Caller:
    """A client process that is called for a turn; `planes`: whose CPU its requests cost."""

    def __init__(self, process: asyncio.subprocess.Process, planes: Sequence[int]) -> None:
        self._process, self._planes = process, planes

    async def turn(self, seconds: float) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        meter, began = CpuMeter(self._planes), time.perf_counter()
        meter.read()
        self._process.stdin.write(f"{seconds}\n".encode())
        told = json.loads(await self._process.stdout.readline())
        lasted = time.perf_counter() - began
        meter.read()
        took = told["took"]
        return {
            "requests_per_s": len(took) / lasted,
            "p50_ms": quantile(took, 0.5),
            "p99_ms": quantile(took, 0.99),
            CPU: 1000 * sum(meter.used_s().values()) / len(took),
            "client_cpu_ms": 1000 * told["cpu_s"] / len(took),
        }


@asynccontextmanager
async def caller(
    scenario: str, order: Mapping[str, Any], planes: Sequence[int]
) -> AsyncIterator[Caller]:
    """`python -m scenario --send order`, warm."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", scenario, "--send", json.dumps(order)),
        stdin=pipe,
        stdout=pipe,
        limit=2**26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield Caller(process, planes)
    finally:
        process.stdin.close()
        await process.wait()


async def measured(
    scenario: str,
    way: str,
    orders: Mapping[str, tuple[Mapping[str, Any], Sequence[int]]],
    options: argparse.Namespace,
) -> tuple[Row, ...]:
    """Every turn, a row each. `orders`: by the name of a way, which the column `way` has, what its
    client processes are told, and whose CPU its requests cost.
    """
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        callers = {
            (name, in_flight): await stack.enter_async_context(
                caller(scenario, {**order, "in_flight": in_flight}, planes)
            )
            for name, (order, planes) in orders.items()
            for in_flight in (1, options.in_flight)
        }
        for number in range(options.rounds):
            # There and back: a drift of the machine is in all.
            for name, in_flight in list(callers)[:: 1 if number % 2 == 0 else -1]:
                figures = await callers[name, in_flight].turn(options.seconds)
                rows.append({way: name, "in_flight": in_flight, "round": number, **figures})
    return tuple(rows)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """How long they take."""
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=60, help="through all ways")
    parser.add_argument("--in-flight", type=int, default=16, help="requests of the loaded turns")
    parser.add_argument("--send", default="", help=argparse.SUPPRESS)  # the client process


def summary(rows: Sequence[Row], way: str, base: str, ratio: str) -> tuple[Row, ...]:
    """By the column `way`: medians of the turns, and of the ratios of CPU to that of `base` within
    a round, with the 95 % interval of that median in columns that begin with `ratio`.
    """
    table: list[Row] = []
    most = max(number(row, "in_flight") for row in rows)
    for name in dict.fromkeys(str(row[way]) for row in rows):
        alone = [row for row in rows if row[way] == name and number(row, "in_flight") == 1]
        loaded = [row for row in rows if row[way] == name and row["in_flight"] == most]
        bases = [row for row in rows if row[way] == base and row["in_flight"] == most]
        ratios = [number(a, CPU) / number(b, CPU) for a, b in zip(loaded, bases, strict=True)]
        interval = bootstrap([ratios], lambda drawn: median(drawn[0]), seed=0)
        table.append(
            {
                way: name,
                CPU: median([number(row, CPU) for row in loaded]),
                ratio: median(ratios),
                f"{ratio}_low": interval.low,
                f"{ratio}_high": interval.high,
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
