"""What faults cost: every scenario of tests/chaos at length, and an account of every request.

    python -m benchmarks.chaos --devices sim,cpu

Real processes: two control planes, three workers, an importer and a Redis (a replicated one with
sentinels where that is the fault). Each scenario has a pool of its own.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from tests.chaos import faults, survival, trial
from tests.chaos.pool import Shape
from tests.chaos.report import Report
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario

DEVICES = ("sim", "cpu")


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--devices", default=",".join(DEVICES), help="kinds of workers: sim,cpu")
    parser.add_argument("--only", default="", help="scenarios whose name has this word")
    parser.add_argument("--callers", type=int, default=8, help="requests in flight")
    parser.add_argument("--pause", type=float, default=0.1, help="of a caller after each, s")
    parser.add_argument("--deadline", type=float, default=10.0, help="of a request, s")
    parser.add_argument("--calm", type=float, default=5.0, help="before the fault, s")
    parser.add_argument("--away", type=float, default=15.0, help="of a dead or frozen process, s")
    parser.add_argument("--store-away", type=float, default=20.0, help="of a stopped store, s")
    parser.add_argument("--quiet", type=float, default=5.0, help="without a failure: recovered, s")
    parser.add_argument("--heal", type=float, default=60.0, help="most that healing may take, s")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, victims and moments")
    return parser


async def run(options: argparse.Namespace) -> Result:
    """Plays the scenarios one after the other, for each kind of device."""
    machine, started_at = hardware.describe(), results.now()
    tables: dict[str, tuple[Row, ...]] = {}
    checks: list[Check] = []
    for device in options.devices.split(","):
        rows: list[Row] = []
        for scenario in (*faults.EVERY, *survival.EVERY):
            possible = device == "sim" or not scenario.simulated
            if options.only in scenario.name and possible:
                report = await _play(scenario, device, options)
                rows += report.rows()
                checks += _checks(device, report)
        tables[f"faults, {device} workers"] = tuple(rows)
    return Result(
        scenario="chaos",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables=tables,
        checks=tuple(checks),
    )


async def _play(scenario: Scenario, device: str, options: argparse.Namespace) -> Report:
    if device not in DEVICES:
        raise ValueError(f"no workers of kind {device!r} are known here: give {DEVICES}")
    shape = Shape(
        "cpu" if device == "cpu" else "sim",
        sentinels=scenario.sentinels,
        supervised=scenario.supervised,
    )
    pace = Pace(
        calm_s=options.calm,
        away_s=options.away,
        store_away_s=options.store_away,
        quiet_s=options.quiet,
        heal_s=options.heal,
    )
    rate = Rate(options.callers, options.pause, options.deadline)
    print(f"{scenario.name}, {device} workers", file=sys.stderr)
    return await trial.play(scenario, shape, pace, rate, options.seed)


def _checks(device: str, report: Report) -> list[Check]:
    return [
        Check(f"{device}, {report.scenario}: {one.name}", one.passed, one.detail)
        for one in report.checks
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenarios; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
