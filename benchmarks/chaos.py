"""What faults cost: every scenario of tests/chaos at length, and an account of every request.

    python -m benchmarks.chaos --devices sim,cpu

Real processes: two control planes, three workers, an importer and a Redis (a replicated one where
that is the fault), each on a host of its own where the fault is one of the network. Each scenario
has a pool of its own. What this machine lacks for one is told, and that fault is not played.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from tests.chaos import faults, host_faults, network_faults, store_faults, survival, trial
from tests.chaos.pool import GROUNDS, DeviceKind
from tests.chaos.report import Report
from tests.chaos.traffic import Rate
from tests.chaos.trial import Pace, Scenario

DEVICES: dict[str, DeviceKind] = {"sim": "sim", "cpu": "cpu"}
FAULTS = (*faults.EVERY, *store_faults.EVERY, *network_faults.EVERY, *host_faults.EVERY)


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--devices", default=",".join(DEVICES), help="kinds of workers: sim,cpu")
    parser.add_argument("--only", default="", help="scenarios whose name has one of these words")
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
    missing: list[Row] = []
    for device in options.devices.split(","):
        rows: list[Row] = []
        for scenario in filter(_is_asked(options.only), (*FAULTS, *survival.EVERY)):
            if lacks := GROUNDS[scenario.ground].lacks():
                missing.append({"scenario": scenario.name, "this machine lacks": lacks})
            elif device == "sim" or not scenario.simulated:
                report = await _play(scenario, device, options)
                rows += report.rows()
                checks += _checks(device, report)
                print(f"{report.text()}\n{report.words}", file=sys.stderr, flush=True)
        tables[f"faults, {device} workers"] = tuple(rows)
    if missing:
        tables["not played"] = tuple(missing)
    return Result(
        scenario="chaos",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables=tables,
        checks=tuple(checks),
    )


def _is_asked(only: str) -> Callable[[Scenario], bool]:
    words = only.split(",")
    return lambda scenario: any(word in scenario.name for word in words)


async def _play(scenario: Scenario, device: str, options: argparse.Namespace) -> Report:
    if device not in DEVICES:
        raise ValueError(f"no workers of kind {device!r} are known here: give {list(DEVICES)}")
    shape = trial.shape_of((scenario,), DEVICES[device])
    pace = Pace(
        calm_s=options.calm,
        away_s=options.away,
        store_away_s=options.store_away,
        quiet_s=options.quiet,
        heal_s=options.heal,
        parts=0,
    )
    rate = Rate(options.callers, options.pause, options.deadline)
    print(f"\n{scenario.name}, {device} workers", file=sys.stderr, flush=True)
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
