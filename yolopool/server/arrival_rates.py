"""Estimates how often something is requested from its arrivals: three averages, one estimate.

Pure: times are arguments, in seconds of one clock. Workers count; control planes add the counts.
"""

import math
from dataclasses import dataclass

from yolopool.frozen import frozen

FAST_S, MIDDLE_S, SLOW_S = 30.0, 300.0, 3600.0
# A short average overrides a longer one if they differ by this many standard deviations.
SIGMAS = 2.0
# Averages are divided by what was seen; less than this would make them explode.
MIN_SEEN_S = 1.0


@frozen
class ArrivalRates:
    """Arrivals a second, averaged with weights of exp(-age / window): each arrival adds 1 / window
    to an average that decays by exp(-elapsed / window). They are linear, so the rates of several
    workers can be added.
    """

    fast: float = 0.0  # over FAST_S
    middle: float = 0.0  # over MIDDLE_S
    slow: float = 0.0  # over SLOW_S

    def later(self, elapsed_s: float) -> "ArrivalRates":
        """The rates after so long without an arrival."""
        if elapsed_s <= 0.0 or not self.slow:
            return self
        return ArrivalRates(
            self.fast * math.exp(-elapsed_s / FAST_S),
            self.middle * math.exp(-elapsed_s / MIDDLE_S),
            self.slow * math.exp(-elapsed_s / SLOW_S),
        )

    def arrived(self, count: int = 1) -> "ArrivalRates":
        """The rates after so many arrivals now."""
        return ArrivalRates(
            self.fast + count / FAST_S, self.middle + count / MIDDLE_S, self.slow + count / SLOW_S
        )

    def __add__(self, other: "ArrivalRates") -> "ArrivalRates":
        return ArrivalRates(
            self.fast + other.fast, self.middle + other.middle, self.slow + other.slow
        )

    @property
    def estimate(self) -> float:
        """The best single rate: the slow average, unless a shorter one contradicts it.

        A window that counted n arrivals is right to n +- 2 sqrt(n + 1) (Poisson). So rare versions
        are compared by an hour's counts, and a version that becomes busy or idle is noticed within
        seconds.
        """
        middle = _within(self.slow, self.middle, MIDDLE_S)
        return _within(middle, self.fast, FAST_S)


def _within(longer: float, shorter: float, window_s: float) -> float:
    # An exponential window of length w has the variance of a rectangular one of 2 w.
    spread = SIGMAS * math.sqrt((shorter * window_s + 1.0) / 2.0) / window_s
    return min(max(longer, shorter - spread), shorter + spread)


NO_ARRIVALS = ArrivalRates()


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Rates, the time they belong to, and when counting began (by default: long ago)."""

    rates: ArrivalRates = NO_ARRIVALS
    at: float = 0.0
    since: float = -math.inf

    def arrived(self, now: float, count: int = 1) -> "Arrivals":
        return Arrivals(self.rates.later(now - self.at).arrived(count), now, self.since)

    def now(self, now: float) -> ArrivalRates:
        """The rates now. A window that is longer than the time seen has a total weight of only
        1 - exp(-seen / window); its average is divided by that.
        """
        rates = self.rates.later(now - self.at)
        seen_s = max(MIN_SEEN_S, now - self.since)
        if seen_s > 6 * SLOW_S:
            return rates
        return ArrivalRates(
            rates.fast / -math.expm1(-seen_s / FAST_S),
            rates.middle / -math.expm1(-seen_s / MIDDLE_S),
            rates.slow / -math.expm1(-seen_s / SLOW_S),
        )
