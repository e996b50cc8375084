"""Many simulated devices, many models: what the pool itself costs when devices are no limit.

    python -m benchmarks.sim_fleet --devices sim:8 --models 40

Real processes; only the devices sleep instead of computing. Zipf and uniform traffic alternate.
A process spends c CPU seconds on a request, so one core of it would sustain 1 / c requests/s.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import dataset, fleet, hardware, results
from benchmarks.harness.compare import alternate, compare
from benchmarks.harness.loadgen import Call, closed_loop, zipf_choices
from benchmarks.harness.measure import (
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
from benchmarks.harness.results import Check, Result, Row
from benchmarks.harness.statistics import median
from yolopool.client.async_client import AsyncClient

# Exponent of each mix; choices repeat after so many requests.
MIXES = {"uniform": 0.0, "zipf s=1": 1.0}
CHOICES = 20_000


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.sim_fleet", description=__doc__)
    add_flags(parser, devices="sim:8")
    results.add_flags(parser)
    parser.add_argument("--models", type=int, default=40, help="registered from one artifact")
    parser.add_argument("--artifact", type=Path, default=dataset.DEMO_WEIGHTS, help="weights file")
    parser.add_argument("--clients", type=int, default=16, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=13.0, help="measured time of each load")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before it, not counted")
    parser.add_argument("--rounds", type=int, default=2, help="how often both mixes are run")
    parser.add_argument("--timeout", type=float, default=30.0, help="deadline of a request, s")
    parser.add_argument("--seed", type=int, default=0, help="of the mixes")
    return parser


async def register_all(client: AsyncClient, names: Sequence[str], artifact: Path) -> list[float]:
    """Registers one artifact under every name; answers the seconds each took."""
    took: list[float] = []
    for name in names:
        begin = time.monotonic()
        await fleet.register(client, name, artifact)
        took.append(time.monotonic() - begin)
    return took


async def run_mixes(
    pool: Pool, calls: dict[str, Call], options: argparse.Namespace
) -> dict[str, list[Measured]]:
    """Both mixes in turns."""
    runs: dict[str, list[Measured]] = {name: [] for name in calls}

    async def one(name: str) -> float:
        begin = partial(closed_loop, calls[name], options.clients, options.warmup, options.seconds)
        runs[name].append(await measured(pool, begin))
        return runs[name][-1].load.throughput

    uniform, zipf = calls
    await alternate(partial(one, uniform), partial(one, zipf), options.rounds)
    return runs


def capacity_rows(pool: Pool, runs: Sequence[Measured]) -> tuple[Row, ...]:
    """CPU of each role per request, and the requests/s that one core of it would sustain."""
    rows: list[Row] = []
    for row in process_rows(pool, runs):
        cpu_ms = row["cpu_ms_per_request"]
        sustained = 1e3 / cpu_ms if isinstance(cpu_ms, float) and cpu_ms > 0 else None
        rows.append({**row, "requests_per_s_per_core": sustained})
    return tuple(rows)


def verdicts(
    runs: dict[str, list[Measured]], packs: int, options: argparse.Namespace
) -> list[Check]:
    """What must hold, and the comparison of the mixes."""
    errors = errors_of([one.load for loads in runs.values() for one in loads])
    uniform, zipf = ([one.load.throughput for one in loads] for loads in runs.values())
    shown = str(compare(uniform, zipf, options.seed)) if min(*uniform, *zipf) > 0 else "no answer"
    busiest = max(one.load.generator_cores for loads in runs.values() for one in loads)
    return [
        Check("every request was answered", not errors, str(errors or "no error")),
        Check("one artifact, one pack", packs == 1, f"{packs} packs for {options.models} models"),
        Check("the load ran in every round", min(*uniform, *zipf) > 0, f"zipf/uniform: {shown}"),
        Check("the generator was no limit", busiest < 0.9, f"{busiest:.2f} cores at most"),
    ]


async def run(options: argparse.Namespace) -> Result:
    """Starts the fleet, fills it, loads it, stops it."""
    machine, started_at = hardware.describe(), results.now()
    names = [f"fleet/shapes-{number:03d}" for number in range(options.models)]
    images = dataset.encoded()
    pool_flags = PoolFlags(options.devices, options.memory_budget, demo=False)
    async with Pool(pool_flags, options.pool_log) as pool, AsyncClient(pool.address) as client:
        took = await register_all(client, names, options.artifact)
        packs = len(list((pool.data_dir / "store" / "packs").iterdir()))
        for name in names:  # the first Detect of each loads it; loads are not what is measured
            await client.detect(images[0], model=name, timeout_s=60.0)
        calls = {
            mix: detecting(client, images, _picks(names, exponent, options.seed), options.timeout)
            for mix, exponent in MIXES.items()
        }
        runs = await run_mixes(pool, calls, options)
        costs = capacity_rows(pool, [one for loads in runs.values() for one in loads])
    registering: Row = {
        "models": len(took),
        "first_s": took[0],
        "others_median_s": median(took[1:] or took),
    }
    return Result(
        scenario="sim_fleet",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "loads": tuple(
                over_runs(mix, [load_row(mix, one) for one in loads]) for mix, loads in runs.items()
            ),
            "processes": costs,
            "stages, median ms": tuple(stage_row(mix, loads) for mix, loads in runs.items()),
            "registration": (registering,),
            "runs": tuple(load_row(mix, one) for mix, loads in runs.items() for one in loads),
        },
        checks=tuple(verdicts(runs, packs, options)),
    )


def _picks(names: Sequence[str], exponent: float, seed: int) -> list[str]:
    return [names[index] for index in zipf_choices(CHOICES, len(names), exponent, seed)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
