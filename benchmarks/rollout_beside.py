"""What a rollout's runs beside cost callers.

    python -m benchmarks.rollout_beside --devices sim:1 --clients 2

Callers ask an alias without a pause, in turns without a rollout and with one that runs a share of
their requests on its candidate too, on the same device.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.harness import dataset, fleet, hardware, results
from benchmarks.harness.compare import alternate
from benchmarks.harness.loadgen import closed_loop
from benchmarks.harness.measure import (
    Measured,
    detecting,
    errors_of,
    load_row,
    measured,
    over_runs,
    process_rows,
)
from benchmarks.harness.pool import Pool, PoolFlags, add_flags
from benchmarks.harness.results import Check, Result, Row
from yolopool.client.async_client import AsyncClient

MODEL, ALIAS = "shapes", "shapes:stable"
# So many samples that it never ends by itself.
ENDLESS = 1_000_000
PLAIN = "no rollout"


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.rollout_beside", description=__doc__)
    add_flags(parser, devices="sim:1")
    results.add_flags(parser)
    parser.add_argument("--clients", type=int, default=2, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each load")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before it, not counted")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--timeout", type=float, default=30.0, help="deadline of a request, s")
    return parser


async def load(
    pool: Pool,
    client: AsyncClient,
    options: argparse.Namespace,
    share: int,
    runs: list[Measured],
    compared: list[Row],
) -> float:
    """One load, with `share` per mille of its requests run on both versions."""
    if share:
        await client.start_rollout(ALIAS, 2, steps=(0,), shadow=share, min_samples=ENDLESS)
        await client.load(f"{MODEL}@2")
    call = detecting(client, dataset.encoded(), [ALIAS], options.timeout)
    begin = partial(closed_loop, call, options.clients, options.warmup, options.seconds)
    runs.append(await measured(pool, begin))
    if share:
        await asyncio.sleep(1.5)
        found = await client.rollout(ALIAS)
        images = found.compared.images
        compared.append(
            {"shadow_percent": share / 10, "images_compared": images, "not_run_busy": found.dropped}
        )
        await client.abort_rollout(ALIAS)
        while not (await client.rollout(ALIAS)).rollout.settled:  # noqa: ASYNC110 - it is elsewhere
            await asyncio.sleep(0.1)
    return runs[-1].load.throughput


async def run(options: argparse.Namespace) -> Result:
    """Starts a pool with two versions, and loads it in turns."""
    machine, started_at = hardware.describe(), results.now()
    shares = {PLAIN: 0, "5 % beside": 50, "all beside": 1000}
    runs: dict[str, list[Measured]] = {name: [] for name in shares}
    compared: list[Row] = []
    held = PoolFlags(options.devices, options.memory_budget, demo=False)
    async with Pool(held, options.pool_log) as pool, AsyncClient(pool.address) as client:
        for _ in range(2):
            await fleet.register(client, MODEL, dataset.DEMO_WEIGHTS)
        await client.promote(f"{MODEL}@1", "stable")
        for name in list(shares)[1:]:
            one = partial(load, pool, client, options, 0, runs[PLAIN], compared)
            other = partial(load, pool, client, options, shares[name], runs[name], compared)
            await alternate(one, other, options.rounds)
        costs = process_rows(pool, [one for loads in runs.values() for one in loads])
    errors = errors_of([one.load for loads in runs.values() for one in loads])
    return Result(
        scenario="rollout_beside",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "loads": tuple(
                over_runs(name, [load_row(name, one) for one in loads])
                for name, loads in runs.items()
            ),
            "runs beside": tuple(compared),
            "processes": tuple(costs),
            "runs": tuple(load_row(name, one) for name, loads in runs.items() for one in loads),
        },
        checks=(Check("every request was answered", not errors, str(errors or "no error")),),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
