"""What becomes of a rollout by what is known: stay, go a step on, or go back. Pure.

A candidate within every tolerance is rolled back with a probability of at most the plan's
`false_alarms` over the whole rollout: each step tests its own evidence at an equal part of it, by
a test that may be looked at whenever one likes (yolopool/evaluation/agreement/verdicts).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from control_plane.types.rollout.progress import Outcome, Rollout
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.verdicts import Judgement, judge

# Comparisons before a candidate is rolled back: fewer may all be of one odd scene.
LEAST = 20


@dataclass(frozen=True, slots=True)
class Decision:
    """`rollout`: as it is from now on, the same object where nothing changes. `waits_for`: what a
    step still needs, in words.
    """

    rollout: Rollout
    judgement: Judgement
    waits_for: tuple[str, ...] = ()


def step(
    rollout: Rollout, evidence: Evidence, now: float, class_names: Sequence[str] = ()
) -> Decision:
    """`evidence`: of the present step, of all control planes. now: Unix seconds. `class_names`: of
    the stable version.
    """
    plan = rollout.plan
    judgement = judge(evidence, class_names, plan.false_alarms_of_step, plan.missed)
    if not rollout.running:
        return Decision(rollout, judgement)
    findings = tuple(f"{one.measure}: {one.sentence}" for one in judgement.verdicts)
    known = replace(rollout, findings=findings)
    if judgement.convicted and evidence.requests >= LEAST:
        reasons = tuple(f"{one.measure}: {one.sentence}" for one in judgement.reasons)
        return Decision(known.ended(Outcome.ROLLED_BACK, reasons, now), judgement)
    waits = tuple(_missing(rollout, evidence, judgement, now))
    if waits:
        return Decision(rollout, judgement, waits)
    if rollout.step + 1 < len(plan.steps):
        further = replace(known, step=rollout.step + 1, step_since_unix_s=now)
        return Decision(further, judgement)
    return Decision(known.ended(Outcome.DONE, (), now), judgement)


def _missing(rollout: Rollout, evidence: Evidence, judgement: Judgement, now: float) -> list[str]:
    plan = rollout.plan
    counts = (("requests", evidence.requests), ("images", evidence.images))
    found = [
        f"{count} of {plan.min_samples} {what} compared"
        for what, count in counts
        if count < plan.min_samples
    ]
    left_s = rollout.step_since_unix_s + plan.min_s - now
    if left_s > 0:
        found.append(f"{left_s:.0f} s of {plan.min_s:g} s")
    uncertain = ", ".join(one.measure for one in judgement.open)
    if uncertain:
        found.append(f"more samples until it is certain about {uncertain}")
    return found
