"""How soon a rollout sees a broken candidate, and how often it takes a good one for broken.

    python -m benchmarks.rollout --runs 20 --switches 200

Simulated traffic, and the judge of the product: candidates broken on purpose at 10 % of the requests
and in shadow alone, by size of the objects; good ones through all steps; and ones that lie on the
limit of a tolerance, where false alarms are most likely.
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
    Reply,
    failing,
    reply,
    retrained,
    scene,
    slow,
)
from control_plane.rollout.judge import step
from control_plane.types.rollout.progress import Outcome, Rollout, RolloutPlan
from yolopool.evaluation.agreement.disagreement import disagreement
from yolopool.evaluation.agreement.evidence import Evidence

# Comparisons between two looks of the judge, and after how many a run counts as not decided.
LOOK = 5
# Of requests on the alias, those that are run on both versions.
SHADOW = 0.05
MODES = {"10 % canary": 100, "shadow": 0}
# A wave of load that makes everything slower, in comparisons.
WAVE = 400


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
    parser.add_argument("--most", type=int, default=4000, help="comparisons of a step at most")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    return parser


def run(plan: RolloutPlan, size: str, change: Break, most: int, seed: int) -> Ran:
    """One rollout: until it ends, or `most` comparisons of one step decided nothing."""
    rng = np.random.default_rng(seed)
    good = retrained(seed)
    rollout = Rollout("r", 1, 2, plan, "", "", 0.0, 0.0)
    evidence, compared, requests, steps = Evidence(plan.tolerance), 0, 0, 1
    since = 0
    while rollout.running and compared - since < most:
        load = 1.0 + 0.5 * np.sin(compared / WAVE)
        canary = rollout.share / 1000
        both, live = SHADOW, canary * (1.0 - SHADOW)
        requests += int(rng.geometric(min(1.0, both + live)))
        shadow = rng.random() < both / (both + live)
        seen = scene(size, rng)
        stable = reply(scene(size, rng) if not shadow else seen, rng, load)
        candidate = change(good(reply(seen, rng, load), rng), rng)
        _note(evidence, stable, candidate, same=bool(shadow))
        compared += 1
        if compared % LOOK:
            continue
        after = step(rollout, evidence, float(compared), CLASSES).rollout
        if after.step != rollout.step:
            evidence, since, steps = Evidence(plan.tolerance), compared, steps + 1
        rollout = after
    return Ran(rollout, compared, requests, steps)


def _note(evidence: Evidence, stable: Reply, candidate: Reply, *, same: bool) -> None:
    """As a control plane notes it: times and images only of what was answered."""
    evidence.note_outcome(stable_failed=stable.failed, candidate_failed=candidate.failed)
    if stable.failed or candidate.failed:
        return
    evidence.note_times(stable.ms, candidate.ms)
    if same:
        found = disagreement(stable.found, candidate.found, evidence.allowed)
        evidence.note_images(stable.found, candidate.found, found)


def detection(options: argparse.Namespace) -> list[Row]:
    """Each broken candidate, at 10 % and in shadow, by size."""
    rows: list[Row] = []
    for name, change in BROKEN.items():
        for mode, share in MODES.items():
            plan = RolloutPlan(steps=(share,), min_s=0.0, false_alarms=0.01 / 4)
            for size in (*SIDES, "mixed"):
                ran = [
                    run(plan, size, change, options.most, options.seed + number)
                    for number in range(options.runs)
                ]
                rows.append(_row(name, mode, size, ran))
                print(rows[-1], flush=True)
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
    """Good candidates through all steps."""
    rows: list[Row] = []
    plan = RolloutPlan(min_s=0.0)
    sizes = (*SIDES, "mixed")
    ran = [
        run(
            plan,
            sizes[number % len(sizes)],
            _as_it_is,
            options.most,
            options.seed + 10_000 + number,
        )
        for number in range(options.switches)
    ]
    rows.append(_outcomes("good", ran))
    limits: dict[str, Break] = {
        "as slow as allowed": slow(1.0 + plan.tolerance.slower),
        "fails as often as allowed": failing(plan.tolerance.errors),
    }
    for name, change in limits.items():
        one = replace(plan, steps=(100,))
        ran = [
            run(one, "mixed", change, options.most // 4, options.seed + 20_000 + number)
            for number in range(options.switches)
        ]
        rows.append(_outcomes(name, ran))
    return rows


def _as_it_is(one: Reply, _: np.random.Generator) -> Reply:
    return one


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
    print(row, flush=True)
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
