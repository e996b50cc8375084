"""Durations by size: buckets whose bounds grow by a quarter, so that a quantile is right within an
eighth. Pure.
"""

import math
from collections.abc import Iterable, Sequence

LEAST_MS, GROWTH = 0.1, 1.25
# Up to a quarter of an hour.
BUCKETS = 72
_PER_LOG = 1 / math.log(GROWTH)


def bucket_of(ms: float) -> int:
    """The bucket of a duration; what is no duration is in the first."""
    if not ms > LEAST_MS:
        return 0
    return min(BUCKETS - 1, int(math.log(ms / LEAST_MS) * _PER_LOG) + 1)


def quantile_ms(counts: Sequence[int], part: float) -> float:
    """The duration below which that part of them is: the middle of its bucket; 0 of none."""
    left = part * sum(counts)
    if not left:
        return 0.0
    number = -1
    while left > 0:
        number += 1
        left -= counts[number]
    return float(LEAST_MS * GROWTH ** (number - 0.5))


def added(several: Iterable[Sequence[int]]) -> list[int]:
    """One histogram of several."""
    total = [0] * BUCKETS
    for counts in several:
        for number, count in enumerate(counts):
            if count:
                total[number] += count
    return total
