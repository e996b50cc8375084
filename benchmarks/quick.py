"""The pool on one device with the demo model: closed loops, then an open loop at half their rate.

    python -m benchmarks.quick --rounds 3 --seconds 20

Rows of one run may be compared with each other; figures of two runs may not (docs/benchmarks.md).
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.harness import dataset, hardware, results
from benchmarks.harness.fleet import ready_names
from benchmarks.harness.loadgen import Call, closed_loop, open_loop, poisson_arrivals
from benchmarks.harness.measure import (
    Begin,
    Measured,
    detecting,
    errors_of,
    load_row,
    measured,
    over_runs,
    process_rows,
    stage_row,
)
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.results import Check, Result
from benchmarks.harness.statistics import median
from yolopool.client.async_client import AsyncClient

BUSY_CLIENTS = 8


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.quick", description=__doc__)
    add_flags(parser)
    results.add_flags(parser)
    parser.add_argument("--model", default="", help="which one (default: the demo model)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each load")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before it, not counted")
    parser.add_argument("--rounds", type=int, default=1, help="how often all loads are run")
    parser.add_argument("--timeout", type=float, default=30.0, help="deadline of a request, s")
    parser.add_argument("--seed", type=int, default=0, help="of the open loop's arrivals")
    return parser


Runs = dict[str, list[Measured]]


async def run_all(pool: Pool, call: Call, options: argparse.Namespace) -> Runs:
    """All loads in turns, `rounds` times; the open loop at half of the busy rate so far."""
    runs: Runs = {}

    async def run(name: str, begin: Begin) -> None:
        runs.setdefault(name, []).append(await measured(pool, begin))

    busy = f"closed c={BUSY_CLIENTS}"
    for number in range(options.rounds):
        await run("closed c=1", partial(closed_loop, call, 1, options.warmup, options.seconds))
        await run(busy, partial(closed_loop, call, BUSY_CLIENTS, options.warmup, options.seconds))
        rate = median([one.load.throughput for one in runs[busy]]) / 2
        if rate <= 0:
            break  # nothing was answered: the errors say why
        arrivals = poisson_arrivals(rate, options.warmup + options.seconds, options.seed + number)
        await run(
            "open at half", partial(open_loop, call, arrivals, options.warmup, options.seconds)
        )
    return runs


async def run(options: argparse.Namespace) -> Result:
    """Starts a pool, measures it, stops it."""
    machine = hardware.describe()  # before our own load is in the load average
    started_at = results.now()
    pool_flags = PoolFlags(options.devices, options.memory_budget)
    async with (
        Pool(pool_flags, options.pool_log) as pool,
        AsyncClient(pool.address) as client,
    ):
        model = options.model or ready_names(await client.models())[0]
        call = detecting(client, dataset.encoded(), [model], options.timeout)
        runs = await run_all(pool, call, options)
        processes = process_rows(pool, runs[f"closed c={BUSY_CLIENTS}"])
    errors = errors_of([one.load for loads in runs.values() for one in loads])
    each = {name: [load_row(name, one) for one in loads] for name, loads in runs.items()}
    return Result(
        scenario="quick",
        started_at=started_at,
        settings=results.settings_of(options) | {"model": model},
        hardware=machine,
        tables={
            "loads": tuple(over_runs(name, rows) for name, rows in each.items()),
            f"processes, closed c={BUSY_CLIENTS}": processes,
            "stages, median ms": tuple(stage_row(name, loads) for name, loads in runs.items()),
            "runs": tuple(row for rows in each.values() for row in rows),
        },
        checks=(Check("every request was answered", not errors, str(errors or "no error")),),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
