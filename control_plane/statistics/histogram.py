"""Durations by size: buckets whose bounds grow by a quarter, so that a quantile is right within an
eighth. Pure.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_MS, GROWTH = 0.1, 1.25
# Up to a quarter of an hour.
BUCKETS = 72
_PER_LOG = 1 / math.log(GROWTH)
_MIDDLES_MS = LEAST_MS * GROWTH ** (np.arange(BUCKETS) - 0.5)


def bucket_of(ms: float) -> int:
    """The bucket of a duration; what is no duration is in the first."""
    if not ms > LEAST_MS:
        return 0
    return min(BUCKETS - 1, int(math.log(ms / LEAST_MS) * _PER_LOG) + 1)


def quantiles_ms(counts: npt.NDArray[np.int64], part: float) -> list[float]:
    """The duration below which that part of them is: the middle of its bucket; 0 of none. counts:
    (histograms, BUCKETS).
    """
    up_to = counts.cumsum(axis=1)
    wanted = part * up_to[:, -1:]
    found: list[Any] = np.where(
        wanted[:, 0] > 0, _MIDDLES_MS[(up_to >= wanted).argmax(axis=1)], 0.0
    ).tolist()
    return found
