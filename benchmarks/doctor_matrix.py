"""Whether the doctor names the right cause first: a confusion matrix over pools in virtual time.

    python -m benchmarks.doctor_matrix

Each situation is made with random parameters, and pools that are well are made, too. The doctor
reads the lines of their request logs.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random

from benchmarks.doctor.pool_model import PoolModel
from benchmarks.doctor.situations import HEALTHY, SITUATIONS, shortened
from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from yolopool.cli.doctor.log_files import time_of
from yolopool.doctor.diagnosis import findings
from yolopool.doctor.rows import rows_of

MAX_REQUESTS = 6000
RIGHT, FALSE_ALARMS = 0.95, 0.02
FIRST = "first_finding"


def first_finding(situation: str, seed: int) -> str:
    """The cause that comes first for a pool of that situation; HEALTHY: there is none."""
    rng = Random(f"{situation} {seed}")
    physics = shortened(SITUATIONS[situation](rng), MAX_REQUESTS)
    lines = PoolModel(physics, rng).lines()
    found = findings(rows_of([(time_of(line), line) for line in lines]))
    return str(found[0].cause) if found else HEALTHY


def run(options: argparse.Namespace) -> Result:
    """All situations, each so often."""
    started_at = results.now()
    rows: list[Row] = []
    for situation in SITUATIONS:
        runs = options.healthy if situation == HEALTHY else options.runs
        told = Counter(first_finding(situation, options.seed + number) for number in range(runs))
        for cause, count in told.most_common():
            rows.append({"situation": situation, FIRST: cause, "runs": count, "of": runs})
    return Result(
        scenario="doctor_matrix",
        started_at=started_at,
        settings=results.settings_of(options),
        hardware=hardware.describe(),
        tables={"what the doctor names first": tuple(rows)},
        checks=verdicts(rows),
    )


def verdicts(rows: Sequence[Row]) -> tuple[Check, ...]:
    def runs(ill: bool, right: bool) -> int:
        return sum(
            int(str(row["runs"]))
            for row in rows
            if (row["situation"] != HEALTHY) is ill and (row["situation"] == row[FIRST]) is right
        )

    right, wrong = runs(True, True), runs(True, False)
    well, alarms = runs(False, True), runs(False, False)
    part, false = right / (right + wrong), alarms / (well + alarms)
    return (
        Check(f"the right cause first, {RIGHT:.0%} at least", part >= RIGHT, f"{part:.1%}"),
        Check(f"false alarms, {FALSE_ALARMS:.0%} at most", false <= FALSE_ALARMS, f"{false:.1%}"),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.doctor_matrix", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--runs", type=int, default=40, help="of each situation")
    parser.add_argument("--healthy", type=int, default=300, help="pools that are well")
    parser.add_argument("--seed", type=int, default=1000, help="of the first run")
    options = parser.parse_args(arguments)
    return results.publish(run(options), options.results)


if __name__ == "__main__":
    sys.exit(main())
