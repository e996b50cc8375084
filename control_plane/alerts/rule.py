"""One row of the table of alerts, and what it finds. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from control_plane.alerts.expressions import Expression, Moment, Select
from control_plane.alerts.history import History, Labels
from control_plane.types.alerts.alert_setting import Threshold, name_matches


@dataclass(frozen=True, slots=True)
class AlertRule:
    """It fires while `look` is above `threshold` (with `below`, below it) for `for_s`.

    `about`: the label that names its subject; empty: the pool. `least`: a value of the same labels
    that must be reached too, so that one request of two is no ratio. `summary`: a sentence with
    {subject} and {threshold}. `unit`: of value and threshold. Not `built_in`: only Prometheus
    sees it.
    """

    name: str
    severity: str
    look: Expression
    threshold: float
    for_s: float
    summary: str
    about: str = ""
    unit: str = "count"
    below: bool = False
    least: tuple[Expression, float] | None = None
    built_in: bool = True

    @property
    def window_s(self) -> float:
        return max(self.look.window_s, self.least[0].window_s if self.least else 0.0)

    def promql(self) -> str:
        sign = "<" if self.below else ">"
        told = f"{self.look.promql()} {sign} {self.threshold:g}"
        if self.least is None:
            return told
        return f"({told})\nand {self.least[0].promql()} >= {self.least[1]:g}"

    def told(self, subject: str, threshold: float | None = None) -> str:
        """The sentence, with the threshold that counts for a subject (None: the rule's)."""
        limit = measured(self.threshold if threshold is None else threshold, self.unit)
        return self.summary.replace("{threshold}", limit).replace("{subject}", subject)

    def selects(self) -> Iterator[Select]:
        yield from self.look.selects()
        if self.least is not None:
            yield from self.least[0].selects()

    def found(
        self, history: History, at: Moment, thresholds: Sequence[Threshold] = ()
    ) -> Iterator["Found"]:
        """What is measured of each subject that there is."""
        enough = self._enough(history, at)
        for labels, value in self.look.value(history, at).items():
            subject = dict(labels).get(self.about, "")
            set_ = threshold_for(thresholds, self.name, subject)
            if set_ is not None and set_.off:
                continue
            limit = set_.value if set_ is not None and set_.value is not None else self.threshold
            for_s = set_.for_s if set_ is not None and set_.for_s is not None else self.for_s
            beyond = value < limit if self.below else value > limit
            holds = beyond and (enough is None or labels in enough)
            yield Found(subject, value, limit, for_s, holds)

    def _enough(self, history: History, at: Moment) -> frozenset[Labels] | None:
        if self.least is None:
            return None
        expression, least = self.least
        counted: Mapping[Labels, float] = expression.value(history, at)
        return frozenset(labels for labels, value in counted.items() if value >= least)


def measured(value: float, unit: str) -> str:
    """A value for people."""
    if unit == "ratio":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if abs(value) < 10 else f"{value:.0f} s"
    return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Found:
    """A measured value of a subject, the threshold that counts for it, and whether it is beyond."""

    subject: str
    value: float
    threshold: float
    for_s: float
    holds: bool


def threshold_for(thresholds: Sequence[Threshold], rule: str, subject: str) -> Threshold | None:
    """What is set for a subject, by the longest pattern that matches."""
    matching = [
        one for one in thresholds if one.rule == rule and name_matches(one.pattern, subject)
    ]
    return max(matching, key=lambda one: (len(one.pattern), one.pattern), default=None)
