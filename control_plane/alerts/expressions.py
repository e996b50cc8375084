"""What a rule looks at, as an expression that is both told to Prometheus and computed here. Pure.

The words are Prometheus': a selector, what a counter grew by, sums over labels, and a ratio.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from control_plane.alerts.history import History, Labels, Series

# Values by their labels: names and values, sorted.
Vector = Mapping[Labels, float]


class Moment(NamedTuple):
    """One time on both clocks: that of the history, and that of certificates."""

    monotonic_s: float
    unix_s: float


class Expression(Protocol):
    """`window_s`: how far back it looks. `selects`: the series that it reads."""

    @property
    def window_s(self) -> float: ...

    def promql(self) -> str: ...

    def value(self, history: History, at: Moment) -> Vector: ...

    def selects(self) -> "Iterator[Select]": ...


@dataclass(frozen=True, slots=True)
class Select:
    """Series of a metric, by label: those with one of the values of `where`, and none of `but`."""

    metric: str
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    but: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def window_s(self) -> float:
        return 0.0

    def promql(self) -> str:
        told = [
            f'{name}{alone if len(values) == 1 else several}"{"|".join(values)}"'
            for pairs, alone, several in ((self.where, "=", "=~"), (self.but, "!=", "!~"))
            for name, values in pairs
        ]
        return self.metric + (f"{{{','.join(told)}}}" if told else "")

    def matches(self, series: Series) -> bool:
        metric, labels = series
        if metric != self.metric:
            return False
        if not self.where and not self.but:
            return True
        given = dict(labels)
        return all(given.get(name, "") in values for name, values in self.where) and not any(
            given.get(name, "") in values for name, values in self.but
        )

    def value(self, history: History, at: Moment) -> Vector:
        return history.latest(self.metric, self.matches)

    def selects(self) -> "Iterator[Select]":
        yield self


@dataclass(frozen=True, slots=True)
class Increase:
    """What counters grew by within the last `window_s`; `per_second`: divided by it."""

    of: Select
    window_s: float
    per_second: bool = False

    def promql(self) -> str:
        name = "rate" if self.per_second else "increase"
        return f"{name}({self.of.promql()}[{duration(self.window_s)}])"

    def value(self, history: History, at: Moment) -> Vector:
        grown = history.increase(self.of.metric, self.of.matches, at.monotonic_s - self.window_s)
        scale = self.window_s if self.per_second else 1.0
        return {labels: value / scale for labels, value in grown.items()}

    def selects(self) -> Iterator[Select]:
        yield self.of


_FUNCTIONS: Mapping[str, Callable[[list[float]], float]] = {
    "sum": math.fsum, "max": max, "min": min,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Over:
    """sum, max or min over all series that are equal in the labels `by`."""

    function: str
    of: Expression
    by: tuple[str, ...] = ()

    @property
    def window_s(self) -> float:
        return self.of.window_s

    def promql(self) -> str:
        by = f" by ({', '.join(self.by)}) " if self.by else ""
        return f"{self.function}{by}({self.of.promql()})"

    def value(self, history: History, at: Moment) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in self.of.value(history, at).items():
            kept = tuple([pair for pair in labels if pair[0] in self.by]) if self.by else ()
            groups.setdefault(kept, []).append(value)
        function = _FUNCTIONS[self.function]
        return {labels: function(values) for labels, values in groups.items()}

    def selects(self) -> Iterator[Select]:
        yield from self.of.selects()


@dataclass(frozen=True, slots=True)
class Ratio:
    """One value divided by another of the same labels; nothing where that is 0."""

    of: Expression
    to: Expression

    @property
    def window_s(self) -> float:
        return max(self.of.window_s, self.to.window_s)

    def promql(self) -> str:
        return f"{self.of.promql()}\n/ {self.to.promql()}"

    def value(self, history: History, at: Moment) -> Vector:
        below = self.to.value(history, at)
        above = self.of.value(history, at)
        return {k: value / below[k] for k, value in above.items() if below.get(k)}

    def selects(self) -> Iterator[Select]:
        yield from self.of.selects()
        yield from self.to.selects()


@dataclass(frozen=True, slots=True)
class Difference:
    """One value less another of the same labels."""

    of: Expression
    less: Expression

    @property
    def window_s(self) -> float:
        return max(self.of.window_s, self.less.window_s)

    def promql(self) -> str:
        return f"{self.of.promql()} - {self.less.promql()}"

    def value(self, history: History, at: Moment) -> Vector:
        less = self.less.value(history, at)
        of = self.of.value(history, at)
        return {k: value - less[k] for k, value in of.items() if k in less}

    def selects(self) -> Iterator[Select]:
        yield from self.of.selects()
        yield from self.less.selects()


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds until a time that a series tells, Unix seconds."""

    of: Select

    @property
    def window_s(self) -> float:
        return 0.0

    def promql(self) -> str:
        return f"{self.of.promql()} - time()"

    def value(self, history: History, at: Moment) -> Vector:
        return {k: until - at.unix_s for k, until in self.of.value(history, at).items()}

    def selects(self) -> Iterator[Select]:
        yield self.of


def duration(seconds: float) -> str:
    """As Prometheus writes it."""
    whole = int(seconds)
    for unit, size in (("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"
