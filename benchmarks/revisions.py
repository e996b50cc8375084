"""This revision against an earlier one in one run: throughput, and what decisions cost.

    python -m benchmarks.revisions 1b25008 --rounds 4 --seconds 8 [--only heartbeat]

The earlier revision is checked out beside this one and run by the same interpreter and packages.
`benchmarks.quick` and `benchmarks.control_scale` of both run in turns, the order reversed every
round; one of them alone if `--only` asks for none of the other's figures. A ratio is this revision
over the earlier one; if its rounds straddle 1, nothing was shown.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.harness import hardware, results
from benchmarks.harness.compare import Comparison, alternate, compare
from benchmarks.harness.results import Check, Figure, Result, Row

LIMIT_S = 900.0  # of one scenario of one revision


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of a scenario's result: the mean of a column over the rows that have `where`."""

    name: str
    scenario: str
    table: str
    column: str
    where: Mapping[str, Figure]
    more_is_better: bool = False

    def of(self, measured: Mapping[str, Result]) -> float:
        """The figure; KeyError if the result lacks it."""
        rows = measured[self.scenario].tables[self.table]
        found = [
            float(row[self.column] or 0.0)
            for row in rows
            if all(row[key] == value for key, value in self.where.items())
        ]
        if not found:
            raise KeyError(f"no row of {self.scenario}, {self.table!r} has {dict(self.where)}")
        return fmean(found)


COMPARED = (
    Compared("images/s, 1 client", "quick", "loads", "images_per_s", {"load": "closed c=1"}, True),
    Compared("images/s, 8 clients", "quick", "loads", "images_per_s", {"load": "closed c=8"}, True),
    Compared("a choice, us", "control_scale", "choose", "p50_us", {}),
    Compared("a heartbeat, us", "control_scale", "heartbeat", "p50_us", {}),
    Compared("a whole plan, ms", "control_scale", "plan", "whole_p50_ms", {}),
    Compared("a plan after a heartbeat, ms", "control_scale", "plan", "heartbeat_p50_ms", {}),
    Compared("a plan after a miss, ms", "control_scale", "plan", "miss_p50_ms", {}),
)


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.revisions", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("earlier", help="the revision to compare this one with, as git names it")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each revision")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured time of each load")
    parser.add_argument("--calls", type=int, default=5_000, help="calls a figure of a decision")
    parser.add_argument("--only", default="", help="the figures whose names have this text")
    return parser


def chosen(only: str) -> tuple[Compared, ...]:
    """The figures whose names have the text; SystemExit if none has."""
    found = tuple(figure for figure in COMPARED if only in figure.name)
    if not found:
        names = "; ".join(figure.name for figure in COMPARED)
        raise SystemExit(f"no figure has {only!r} in its name: they are {names}")
    return found


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A folder that holds the revision, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="yolopool-revision-") as folder:
        place = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(place), revision)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(hardware.ROOT), *arguments], check=True, capture_output=True)


async def measured(
    tree: Path, scenarios: Collection[str], options: argparse.Namespace
) -> Mapping[str, Result]:
    """Runs the scenarios of the revision in `tree`; RuntimeError with its output if one fails."""
    flags = {
        "quick": ("--seconds", str(options.seconds)),
        "control_scale": ("--rounds", str(options.calls)),
    }
    return {name: await _run(tree, name, *flags[name]) for name in scenarios}


async def _run(tree: Path, scenario: str, *arguments: str) -> Result:
    with tempfile.TemporaryDirectory(prefix="yolopool-results-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"benchmarks.{scenario}", "--results", folder, *arguments,
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        except BaseException:
            process.kill()
            raise
        return _written(Path(folder), output.decode())


def _written(folder: Path, output: str) -> Result:
    found = list(folder.glob("*.json"))
    if not found:
        raise RuntimeError(f"a scenario wrote no result; the end of its output:\n{output[-3000:]}")
    return results.read(found[0])


def row(figure: Compared, found: Comparison) -> Row:
    """One line of the table; `ratio` is this revision over the earlier one."""
    return {
        "figure": figure.name,
        "earlier_median": found.a.median,
        "this_median": found.b.median,
        "ratio": found.ratio,
        "ratio_low": found.interval.low,
        "ratio_high": found.interval.high,
        "round_min": found.by_round.minimum,
        "round_max": found.by_round.maximum,
    }


def check(figure: Compared, found: Comparison) -> Check:
    """Fails if every round was worse: then it is more than the noise."""
    every = found.by_round
    worse = every.maximum < 1 if figure.more_is_better else every.minimum > 1
    return Check(f"{figure.name}: not worse in every round", not worse, str(found))


async def run(options: argparse.Namespace) -> Result:
    """All rounds of both revisions."""
    machine, started_at = hardware.describe(), results.now()
    figures = chosen(options.only)
    scenarios = dict.fromkeys(figure.scenario for figure in figures)
    taken: list[Mapping[str, Result]] = []

    async def of(tree: Path) -> float:
        taken.append(await measured(tree, scenarios, options))
        return len(taken) - 1

    with checkout(options.earlier) as earlier:
        order = await alternate(
            lambda: of(earlier), lambda: of(hardware.ROOT), rounds=options.rounds
        )
    rows: list[Row] = []
    checks: list[Check] = []
    for figure in figures:
        a, b = ([figure.of(taken[int(index)]) for index in side] for side in order)
        found = compare(a, b)
        rows.append(row(figure, found))
        checks.append(check(figure, found))
    tables = {"ratios": tuple(rows)}
    settings = results.settings_of(options)
    return Result("revisions", started_at, settings, machine, tables, tuple(checks))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    return results.publish(asyncio.run(run(options)), options.results)


if __name__ == "__main__":
    sys.exit(main())
