"""Does placement keep what is worth keeping? The pool on a virtual clock against caches and bounds.

    python -m benchmarks.simulate --check

The product's own shells and decisions run, control plane and workers; only time and devices are
simulated (benchmarks/simulation). `--quick` is shorter, `--trace zipf` runs those alone.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Result
from benchmarks.simulation.table import Played, bound_row, checks, fleets_for, played, rows
from benchmarks.simulation.traces import all_traces

QUICK = 0.1


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.simulate", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--check", action="store_true", help="exit 1 if a criterion does not hold")
    parser.add_argument("--quick", action="store_true", help=f"traces of {QUICK:g} of the length")
    parser.add_argument("--scale", type=float, default=0.0, help="of the traces' length")
    parser.add_argument("--trace", default="", help="only traces whose name contains this")
    parser.add_argument("--fleet", default="", help="only fleets whose name contains this")
    parser.add_argument("--seed", type=int, default=0, help="of all traces")
    parser.add_argument("--dry", action="store_true", help="print only: write no file")
    return parser


def play_all(options: argparse.Namespace) -> list[Played]:
    """Every trace on every fleet that was asked for."""
    found = []
    for trace in all_traces(options.scale or (QUICK if options.quick else 1.0), options.seed):
        if options.trace not in trace.name:
            continue
        for fleet in fleets_for(trace):
            if options.fleet in fleet:
                found.append(played(trace, fleet))
                print(f"{found[-1].name}: {found[-1].took_s:.1f} s", file=sys.stderr, flush=True)
    return found


def run(options: argparse.Namespace) -> Result:
    """The whole table."""
    machine, started_at = hardware.describe(), results.now()
    found = play_all(options)
    return Result(
        scenario="simulate",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=machine,
        tables={
            "policies": tuple(row for one in found for row in rows(one)),
            "bounds": tuple(bound_row(one) for one in found),
        },
        checks=tuple(checks(found)),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    result = run(options)
    if options.dry:
        print(results.report(result))
        return 0 if result.passed or not options.check else 1
    status = results.publish(result, options.results)
    return status if options.check else 0


if __name__ == "__main__":
    sys.exit(main())
