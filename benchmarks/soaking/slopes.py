"""Does a curve grow? Pure.

The slope is Theil and Sen's: the median of the slopes between all pairs of points (Theil 1950,
Sen 1968). A few outliers, such as a burst that was being served when a sample was taken, do not
move it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from benchmarks.harness.statistics import median

HOUR_S = 3600.0
# Pairs are thinned out above so many points: each curve has at most some 20,000 pairs.
MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a figure may grow in an hour: a share of what it is, and at least so many units."""

    share: float
    least: float

    def of(self, level: float) -> float:
        return max(self.share * abs(level), self.least)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the second half of a curve: its median, its growth in an hour, and what was allowed."""

    level: float
    growth_per_h: float
    allowed_per_h: float

    @property
    def is_flat(self) -> bool:
        return self.growth_per_h <= self.allowed_per_h


def slope(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Units per second. ValueError for fewer than two points in time."""
    step = max(1, len(values) // MOST_POINTS)
    points = list(zip(times_s, values, strict=True))[::step]
    slopes = [
        (after - before) / (later - earlier)
        for (earlier, before), (later, after) in combinations(points, 2)
        if later > earlier
    ]
    if not slopes:
        raise ValueError("no slope of fewer than two points: sample for longer")
    return median(slopes)


def judge(times_s: Sequence[float], values: Sequence[float], bound: Bound) -> Verdict:
    """The verdict on the second half, when caches, pools and logs have what they keep."""
    half = len(values) // 2
    level = median(values[half:])
    growth = slope(times_s[half:], values[half:]) * HOUR_S
    return Verdict(level, growth, bound.of(level))
