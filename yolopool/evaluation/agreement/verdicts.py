"""What evidence says of each measure: within its tolerance, beyond it, or not known yet. Pure.

`judge` is wrong about a candidate that is within every tolerance with a probability of at most
`false_alarms`, however often it is asked while evidence grows: it looks at the average of the
wealths of all measures, each of them an average over its directions (classes, for `lost`), which is
a nonnegative supermartingale that begins at 1 (see `betting`). A measure is within its tolerance
once the bet against its being beyond has won 1 / `missed` in each direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from yolopool.evaluation.agreement.betting import log_mean
from yolopool.evaluation.agreement.disagreement import LOST, MEASURES, SIDES, Tolerance, directions
from yolopool.evaluation.agreement.evidence import Evidence
from yolopool.evaluation.agreement.matching import Array, class_name

ALL = (*MEASURES, LOST)
# Which directions are of a measure, whatever the tolerance.
_USUAL = directions(Tolerance())
ROWS = {
    measure: [row for row, one in enumerate(_USUAL) if one.measure == measure]
    for measure in MEASURES
}
SIGNED = [one.signed for one in _USUAL]


class Finding(StrEnum):
    WITHIN = "WITHIN"
    BEYOND = "BEYOND"
    OPEN = "OPEN"  # more samples are needed


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` and `allowed` in words. `odds`: what its bet against the candidate has won, as a
    share of what convicts it by itself, in logarithms: from 0 on it does.
    """

    measure: str
    finding: Finding
    samples: int
    value: str
    allowed: str
    odds: float

    @property
    def sentence(self) -> str:
        return f"{self.value}, allowed {self.allowed}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`convicted`: beyond its tolerances, all measures together; `verdicts` says by which."""

    verdicts: tuple[Verdict, ...]
    convicted: bool

    @property
    def reasons(self) -> tuple[Verdict, ...]:
        """Why it is convicted, the strongest first."""
        found = [one for one in self.verdicts if one.finding is Finding.BEYOND]
        return tuple(sorted(found, key=lambda one: -one.odds))

    @property
    def open(self) -> tuple[Verdict, ...]:
        """What has still to be shown before it is known to be good."""
        return tuple(one for one in self.verdicts if one.finding is not Finding.WITHIN)


def judge(
    evidence: Evidence, class_names: Sequence[str], false_alarms: float, missed: float
) -> Judgement:
    """`class_names`: of the stable version, by class id."""
    wealth = log_mean(evidence.logs)  # (directions, 2)
    against: list[float] = []
    shown: list[bool] = []
    for measure in MEASURES:
        rows = ROWS[measure]
        against.append(float(log_mean(wealth[rows, 0])))
        shown.append(bool((wealth[rows, 1] >= -np.log(missed)).all()))
    against.append(_lost_wealth(evidence, max(1, len(class_names))))
    # A class that is rare is not waited for: it convicts, and does not acquit.
    shown.append(True)
    total = float(log_mean(np.array(against)))
    convicted = total >= -np.log(false_alarms)
    needed = np.log(len(ALL) / false_alarms)
    odds = np.array(against) - needed
    # Convicted by all together: at least the strongest is named.
    beyond = odds >= min(0.0, odds.max()) if convicted else np.zeros(len(ALL), np.bool_)
    verdicts = tuple(
        Verdict(
            measure,
            _finding(bool(beyond[at]), shown[at]),
            _samples(measure, evidence),
            _value(measure, evidence, class_names),
            _allowed(measure, evidence.allowed),
            float(odds[at]),
        )
        for at, measure in enumerate(ALL)
    )
    return Judgement(verdicts, bool(convicted))


def _finding(beyond: bool, shown: bool) -> Finding:
    if beyond:
        return Finding.BEYOND
    return Finding.WITHIN if shown else Finding.OPEN


def _lost_wealth(evidence: Evidence, classes: int) -> float:
    """An average over all classes; those that no image showed have a wealth of 1."""
    seen = [float(log_mean(row[2:])) for row in evidence.lost.values()]
    total = max(classes, len(seen))
    logs = np.array([*seen, 0.0])
    weights = np.array([*([1.0 / total] * len(seen)), 1.0 - len(seen) / total])
    return float(log_mean(logs, weights))


def _samples(measure: str, evidence: Evidence) -> int:
    if measure == LOST:
        return evidence.images
    return int(evidence.counts[ROWS[measure][0]])


def _means(measure: str, evidence: Evidence) -> Array:
    rows = ROWS[measure]
    means = evidence.sums[rows] / np.maximum(evidence.counts[rows], 1.0)
    return 2.0 * means - 1.0 if SIGNED[rows[0]] else means


def _value(measure: str, evidence: Evidence, class_names: Sequence[str]) -> str:
    if not _samples(measure, evidence):
        return "nothing compared yet"
    if measure == LOST:
        return _worst_class(evidence, class_names)
    means = _means(measure, evidence)
    if measure == "errors":
        stable, candidate = (int(count) for count in evidence.failed)
        return f"{candidate} of {evidence.requests} failed, of the stable version {stable}"
    if measure == "time":
        ratio = float(np.exp(evidence.times[0] / max(1.0, evidence.times[1])))
        return f"x {ratio:.2f}, beyond the limit in {means[0]:.0%} of requests"
    if measure == "matched":
        return f"{1.0 - means[0]:.1%} of objects found by both"
    if measure == "overlap":
        return f"mean overlap {1.0 - means[0]:.3f}"
    if measure == "shift":
        return _shift(means, evidence)
    if measure == "scores":
        return f"distance {float(np.abs(means).max()):.3f}"
    if measure == "class":
        return f"{means[0]:.1%} under another class"
    return f"{means[0]:+.1%} {'objects' if measure == 'count' else 'on average'}"


def _shift(means: Array, evidence: Evidence) -> str:
    most = int(means.argmax())
    right, down = evidence.moved / max(1.0, float(evidence.objects[1].sum()))
    return (
        f"{means[most]:.0%} of boxes too far {SIDES[most]}, "
        f"on average {right:+.2f} px right and {down:+.2f} px down"
    )


def _worst_class(evidence: Evidence, class_names: Sequence[str]) -> str:
    if not evidence.lost:
        return "no objects yet"
    worst = max(evidence.lost, key=lambda cls: float(log_mean(evidence.lost[cls][2:])))
    row = evidence.lost[worst]
    name, share = class_name(worst, class_names), row[0] / max(1.0, row[1])
    return f"{name}: {share:.0%} not found on {int(row[1])} images"


def _allowed(measure: str, allowed: Tolerance) -> str:
    return {
        "errors": f"{allowed.errors:.1%} more",
        "time": f"{allowed.slower:.0%} longer in half of them",
        "matched": f"{1.0 - allowed.unmatched:.1%}",
        "overlap": f"{1.0 - allowed.looser:.3f}",
        "shift": f"half of them {allowed.shift_px:g} px or {allowed.shift_share:.1%} of a side",
        "count": f"{allowed.count:.1%}",
        "class": f"{allowed.relabelled:.1%}",
        "confidence": f"{allowed.confidence:.1%}",
        "scores": f"{allowed.scores:.3f}",
        LOST: f"{allowed.lost:.0%} of a class",
    }[measure]
