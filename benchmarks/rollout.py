"""How soon a rollout sees a broken candidate, and how often it takes a good one for broken.

    python -m benchmarks.rollout --runs 20 --switches 200

Simulated traffic, and the judge of the product: candidates broken on purpose at 10 % of the
requests and in shadow alone, by size of the objects; good ones through all steps; and ones that lie
on the limit of a tolerance, where false alarms are most likely.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.harness import hardware, results
from benchmarks.harness.results import Check, Result, Row
from benchmarks.simulation.candidates import (
    BROKEN,
    CLASSES,
    SIDES,
    Break,
    failing,
    retrained,
    slow,
)
from benchmarks.simulation.comparisons import Comparisons, comparisons, is_within
from control_plane.rollout.judge import step
from control_plane.types.rollout.progress import Outcome, Rollout, RolloutPlan
from yolopool.evaluation.agreement.disagreement import Tolerance
from yolopool.evaluation.agreement.evidence import Evidence

# Comparisons between two looks of the judge, and after how many a run counts as not decided.
LOOK = 5
# Of requests on the alias, those that are run on both versions.
SHADOW = 0.05
MODES = {"10 % canary": 100, "shadow": 0}
# After so many comparisons of a step, fewer looks.
FINE = 200
ALLOWED = Tolerance()
# What a plan of four steps leaves one of them.
ONE_STEP = RolloutPlan().false_alarms_of_step


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended. `compared`: comparisons; `requests`: on the alias meanwhile."""

    rollout: Rollout
    compared: int
    requests: int
    steps: int


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.rollout", description=__doc__)
    results.add_flags(parser)
    parser.add_argument("--runs", type=int, default=20, help="of each broken candidate")
    parser.add_argument("--switches", type=int, default=200, help="to good candidates")
    parser.add_argument("--candidates", type=int, default=40, help="good ones, each another")
    parser.add_argument("--stock", type=int, default=1000, help="comparisons that are drawn from")
    parser.add_argument("--most", type=int, default=4000, help="comparisons of a step at most")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    return parser


def run(plan: RolloutPlan, stock: Comparisons, most: int, seed: int) -> Ran:
    """One rollout: until it ends, or `most` comparisons of one step decided nothing."""
    rng = np.random.default_rng(seed)
    rollout = Rollout("r", 1, 2, plan, "", "", 0.0, 0.0)
    evidence, compared, requests, steps, since = Evidence(plan.tolerance), 0, 0, 1, 0
    while rollout.running and compared - since < most:
        both, live = _rates(rollout.share / 1000)
        count = LOOK if compared - since < FINE else 5 * LOOK
        requests += int(rng.geometric(min(1.0, both + live), count).sum())
        same = int(rng.binomial(count, both / (both + live)))
        for part, drawn in ((stock.same, same), (stock.live, count - same)):
            part.add_to(evidence, rng.integers(0, len(part), drawn))
        compared += count
        after = step(rollout, evidence, float(compared), CLASSES).rollout
        if after.step != rollout.step:
            evidence, since, steps = Evidence(plan.tolerance), compared, steps + 1
        rollout = after
    return Ran(rollout, compared, requests, steps)


def _rates(canary: float) -> tuple[float, float]:
    """Comparisons a request: on the same image, and of a candidate's answer with the newest stable
    one, each of which is compared once.
    """
    return SHADOW, min(canary, 1.0 - canary) * (1.0 - SHADOW)


def detection(options: argparse.Namespace) -> list[Row]:
    """Each broken candidate, at 10 % and in shadow, by size."""
    rows: list[Row] = []
    for name, change in BROKEN.items():
        for size in (*SIDES, "mixed"):
            changes = (retrained(options.seed), change)
            stock = comparisons(size, changes, ALLOWED, options.stock, options.seed)
            for mode, share in MODES.items():
                plan = RolloutPlan(steps=(share,), min_s=0.0, false_alarms=ONE_STEP)
                ran = [
                    run(plan, stock, options.most, options.seed + number)
                    for number in range(options.runs)
                ]
                rows.append(_row(name, mode, size, ran))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _row(name: str, mode: str, size: str, ran: Sequence[Ran]) -> Row:
    seen = [one for one in ran if one.rollout.outcome == Outcome.ROLLED_BACK]
    by = Counter(one.rollout.reasons[0].partition(":")[0] for one in seen)
    compared = sorted(one.compared for one in seen)
    return {
        "candidate": name,
        "traffic": mode,
        "objects": size,
        "runs": len(ran),
        "rolled back": len(seen) / len(ran),
        "let through": sum(one.rollout.outcome == Outcome.DONE for one in ran),
        "not decided": sum(one.rollout.running for one in ran),
        "comparisons, median": int(np.median(compared)) if seen else None,
        "comparisons, most": compared[-1] if seen else None,
        "requests on the alias, median": int(np.median([one.requests for one in seen]))
        if seen
        else None,
        "seen by": ", ".join(f"{measure} {count}" for measure, count in by.most_common(2)),
    }


def good_ones(options: argparse.Namespace) -> list[Row]:
    """Good candidates, each another, through all steps; then ones on the limit of a tolerance."""
    plan, sizes = RolloutPlan(min_s=0.0), (*SIDES, "mixed")
    ran: list[Ran] = []
    for number in range(options.candidates):
        size, seed = sizes[number % len(sizes)], options.seed + number
        stock = comparisons(size, (retrained(seed),), ALLOWED, options.stock, seed)
        assert is_within(stock, ALLOWED), "it is no good one"
        each = range(number, options.switches, options.candidates)
        ran += [run(plan, stock, options.most, options.seed + one) for one in each]
    rows = [_outcomes("good", ran)]
    limits: dict[str, Break] = {
        "as slow as allowed": slow(1.0 + ALLOWED.slower),
        "fails as often as allowed": failing(ALLOWED.errors),
    }
    for name, change in limits.items():
        stock = comparisons("mixed", (change,), ALLOWED, options.stock, options.seed)
        one = replace(plan, steps=(100,))
        ran = [
            run(one, stock, options.most // 2, options.seed + number)
            for number in range(options.switches)
        ]
        rows.append(_outcomes(name, ran))
    return rows


def _outcomes(name: str, ran: Sequence[Ran]) -> Row:
    done = [one for one in ran if one.rollout.outcome == Outcome.DONE]
    row: Row = {
        "candidate": name,
        "switches": len(ran),
        "rolled back": sum(one.rollout.outcome == Outcome.ROLLED_BACK for one in ran),
        "stated rate": ran[0].rollout.plan.false_alarms,
        "done": len(done),
        "not decided": sum(one.rollout.running for one in ran),
        "comparisons a step, median": int(np.median([one.compared / one.steps for one in done]))
        if done
        else None,
    }
    print(row, file=sys.stderr, flush=True)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the scenario; answers the exit status."""
    options = flags().parse_args(arguments)
    machine, began = hardware.describe(), results.now()
    good = good_ones(options)
    broken = detection(options)
    rate = good[0]["rolled back"], good[0]["stated rate"], good[0]["switches"]
    checks = (
        Check(
            "false rollbacks at most the stated rate",
            all(
                float(row["rolled back"] or 0)
                <= float(row["stated rate"] or 0) * float(row["switches"] or 0)
                for row in good
            ),
            f"{rate[0]} of {rate[2]} good switches, stated {rate[1]}",
        ),
    )
    tables = {"Good candidates": tuple(good), "Broken candidates": tuple(broken)}
    result = Result("rollout", began, results.settings_of(options), machine, tables, checks)
    return results.publish(result, options.results)


if __name__ == "__main__":
    sys.exit(main())
