"""Does placement keep what is worth keeping? The pool on a virtual clock against caches and bounds.

    python -m benchmarks.simulate --check

The product's own shells and decisions run, control plane and workers; only time and devices are
simulated (benchmarks/simulation). `--quick` is shorter, `--trace zipf` runs those alone.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Result
from benchmarks.simulation.table import Played, bound_row, checks, games, played, rows
from yolopool.cli.svg_chart import lines_chart

QUICK = 0.1
# Of a trace, in a picture.
PARTS = 100


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
    parser.add_argument("--callers", type=int, default=0, help="a closed loop of so many; 0: open")
    parser.add_argument("--dry", action="store_true", help="print only: write no file")
    return parser


def play_all(options: argparse.Namespace) -> list[Played]:
    """Every trace on every fleet that was asked for."""
    found = []
    scale = options.scale or (QUICK if options.quick else 1.0)
    for trace, fleet in games(scale, options.seed):
        if options.trace not in trace.name or options.fleet not in fleet:
            continue
        found.append(played(replace(trace, callers=options.callers), fleet))
        print(f"{found[-1].name}: {found[-1].took_s:.1f} s", file=sys.stderr, flush=True)
    return found


def draw(found: Sequence[Played], options: argparse.Namespace, day: str) -> None:
    """A picture of each: hit rates along the trace, the beginning that does not count included."""
    options.results.mkdir(parents=True, exist_ok=True)
    for one in found:
        curves = {
            name: [100 * share for share in outcome.hit_curve(PARTS)]
            for name, outcome in {**one.caches, "pool": one.pool}.items()
        }
        stem = re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-")
        picture = options.results / f"simulate-{day}-{stem}.svg"
        title = f"{one.name}: requests that found their model ready"
        picture.write_text(lines_chart(curves, title, f"1/{PARTS} of the trace", "%"))


def run(options: argparse.Namespace) -> Result:
    """The whole table."""
    machine, started_at = hardware.describe(), results.now()
    found = play_all(options)
    if not options.dry:
        draw(found, options, started_at[:10])
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
