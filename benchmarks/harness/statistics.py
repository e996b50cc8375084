"""Figures from samples: quantiles, spread over runs, bootstrap intervals. Pure."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], fraction: float) -> float:
    """The quantile at `fraction` (0..1), linear between order statistics; ValueError if empty.

    Definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), the
    default of numpy. With n samples a p99 rests on the highest n/100: below some hundreds it is
    close to the maximum, so every summary carries its count.
    """
    if not values:
        raise ValueError("no quantile of nothing: the run measured no request")
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"a quantile's fraction is between 0 and 1, not {fraction}")
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values: Sequence[float]) -> float:
    """The middle; ValueError if empty."""
    return quantile(values, 0.5)


@dataclass(frozen=True, slots=True)
class Summary:
    """A distribution in one line, in the unit of its samples."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    maximum: float


def summarize(values: Sequence[float]) -> Summary:
    """Summary of the samples of one run; ValueError if empty."""
    return Summary(
        count=len(values),
        mean=sum(values) / len(values) if values else 0.0,
        p50=quantile(values, 0.50),
        p90=quantile(values, 0.90),
        p99=quantile(values, 0.99),
        maximum=quantile(values, 1.0),
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several runs: the median, and how far apart the runs were."""

    runs: int
    median: float
    minimum: float
    maximum: float

    def __str__(self) -> str:
        if self.runs == 1:
            return f"{self.median:.4g}"
        return f"{self.median:.4g} [{self.minimum:.4g}-{self.maximum:.4g}]"


def spread(values: Sequence[float]) -> Spread:
    """Spread of one figure over runs; ValueError if empty."""
    return Spread(len(values), median(values), min(values, default=0.0), max(values, default=0.0))


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval."""

    low: float
    high: float


def bootstrap(
    samples: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[Sequence[float]]], float],
    seed: int,
    confidence: float = 0.95,
    rounds: int = 1000,
) -> Interval:
    """Percentile bootstrap (Efron, 1979): each group is resampled with replacement by itself.

    The groups of `samples` are what `statistic` takes, e.g. the runs of A and those of B for a
    ratio of medians. The same seed gives the same interval. Under about five samples a group it
    is hardly more than the range of the runs: print that too.
    """
    if not samples or not all(samples):
        raise ValueError("a bootstrap needs at least one sample in each group")
    rng = random.Random(seed)
    drawn = [
        statistic([rng.choices(group, k=len(group)) for group in samples]) for _ in range(rounds)
    ]
    tail = (1.0 - confidence) / 2.0
    return Interval(quantile(drawn, tail), quantile(drawn, 1.0 - tail))
