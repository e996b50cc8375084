"""A test of a bounded mean that may be looked at after every sample: betting against it. Pure.

Samples x lie in [0, 1] and the null hypothesis is E[x | all before] <= m. Who bets the share l of
the capital on more, 0 <= l < 1/m, multiplies it by 1 + l (x - m), by one or less on average: the
wealth is a nonnegative supermartingale that begins at 1. By Ville's inequality it ever reaches 1/a
with a probability of at most a, however often one looks and whenever one stops (Ville 1939;
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", 2024).
"""

# The stakes are fixed, each played with an equal part of the capital. So a wealth is known from
# sums of logarithms, which add up over control planes in any order: an average of supermartingales
# is one, and so is the product over samples that arrive at several places. The samples need not be
# independent or alike, only not worse than m on average given those before.

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# Shares of the largest stake. Between neighbours the growth of the best stake is kept to 83 % or
# more, and each of the eight costs log 8 once.
SHARES = 0.9 * 0.5 ** np.arange(8)


def log_growth(samples: Array, bounds: Array) -> Array:
    """What a sample of each of d tests multiplies its capitals by: logarithms (d, 2, stakes).

    [:, 0] bets against mean <= bound, [:, 1] against mean >= bound. A sample that is NaN says
    nothing. Bounds lie between 0 and 1.
    """
    known = np.where(np.isnan(samples), bounds, samples)
    over = SHARES / bounds[:, None] * (known - bounds)[:, None]
    under = SHARES / (1.0 - bounds)[:, None] * (bounds - known)[:, None]
    return np.log1p(np.stack((over, under), axis=1))


def log_mean(logs: Array, weights: Array | None = None) -> Array:
    """The logarithm of the mean of exp(logs) along the last axis; `weights` add up to 1.

    Over stakes it is the wealth of a test. Over tests it is a wealth by which they share one
    false-alarm rate: it is never below what dividing the rate among them gives.
    """
    top = logs.max(axis=-1)
    shares = np.exp(logs - top[..., None])
    mean = shares.mean(axis=-1) if weights is None else (shares * weights).sum(axis=-1)
    return np.asarray(top + np.log(mean), np.float64)
