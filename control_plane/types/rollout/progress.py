"""A rollout: how an alias goes from its stable version to a candidate in steps that evidence
decides. Pure and frozen; part of the alias's record, so that whoever leads carries it on.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from control_plane.types.rollout.target import WHOLE, Target, Targets
from yolopool.evaluation.agreement.disagreement import Tolerance

DEFAULT_STEPS = (10, 100, 500, WHOLE)


class Outcome(StrEnum):
    DONE = "DONE"  # good at every step
    ROLLED_BACK = "ROLLED_BACK"  # beyond the tolerances
    ABORTED = "ABORTED"  # by an operator, or the alias was moved by other hands


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """`steps`: the candidate's share of requests, in per mille, one after the other; 0: it only
    runs beside. A step ends after `min_s` and `min_samples` (requests and images compared), when
    every measure was shown to be within `tolerance`. `false_alarms`: the probability that a
    candidate within it is rolled back, over all steps. `missed`: the probability that a measure
    beyond it is taken for within, at each step. `keep_images`: callers' images on which both
    disagree most may be kept, in memory.
    """

    steps: tuple[int, ...] = DEFAULT_STEPS
    min_samples: int = 200
    min_s: float = 60.0
    false_alarms: float = 0.01
    missed: float = 0.05
    tolerance: Tolerance = field(default_factory=Tolerance)
    keep_images: bool = False

    def fault(self) -> str:
        """What is wrong with it, in words; empty: nothing."""
        rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
        if not self.steps or not rising or not 0 <= self.steps[0] <= self.steps[-1] <= WHOLE:
            return "steps are shares from 0 to 1 of the requests, each larger than the one before"
        if self.min_samples < 1 or self.min_s < 0:
            return "min_samples is at least 1, and min_s at least 0"
        for name in ("false_alarms", "missed"):
            if not 0.0 < getattr(self, name) < 0.5:
                return f"{name} is {getattr(self, name):g}: give a probability below 0.5"
        return self.tolerance.fault()

    @property
    def false_alarms_of_step(self) -> float:
        """Each step begins its evidence anew, with an equal part of the whole."""
        return self.false_alarms / len(self.steps)


@dataclass(frozen=True, slots=True)
class Rollout:
    """`step`: index into the plan's steps, since `step_since_unix_s`. `outcome`: empty while it
    runs, else an Outcome or the word of a newer release; `settled`: the alias means what the
    outcome says. `reasons`: of the outcome. `findings`: what the judge said of each measure when
    the last step ended.
    """

    id: str
    stable: int
    candidate: int
    plan: RolloutPlan
    by: str
    why: str
    since_unix_s: float
    step_since_unix_s: float
    step: int = 0
    outcome: str = ""
    settled: bool = False
    ended_unix_s: float = 0.0
    reasons: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        return not self.outcome

    @property
    def is_open(self) -> bool:
        """Whether it is to be carried on. What a newer release's word means, that one knows."""
        return not self.settled and self.outcome in ("", *Outcome)

    @property
    def share(self) -> int:
        """The candidate's share of requests at this step, in per mille."""
        return self.plan.steps[min(self.step, len(self.plan.steps) - 1)]

    @property
    def targets(self) -> Targets:
        """What the alias should mean: the stable version again unless it went well."""
        share = self.share if self.outcome in ("", Outcome.DONE) else 0
        parts = (Target(self.stable, WHOLE - share), Target(self.candidate, share))
        return tuple(part for part in parts if part.weight)

    def ended(self, outcome: Outcome, reasons: tuple[str, ...], now: float) -> "Rollout":
        return replace(self, outcome=outcome, reasons=reasons, ended_unix_s=now)
