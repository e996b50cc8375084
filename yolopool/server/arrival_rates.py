"""How often something is asked for, from its arrivals alone: three averages and one estimate.

Pure: times are arguments, in seconds of one clock. Workers count, control planes add up.
"""

import math
from dataclasses import dataclass

FAST_S, MIDDLE_S, SLOW_S = 30.0, 300.0, 3600.0
# Standard deviations by which a short average must contradict a longer one to be believed.
DOUBT = 2.0
# Who counts for less than this has seen nothing to speak of.
LEAST_SEEN_S = 1.0


@dataclass(frozen=True, slots=True)
class ArrivalRates:
    """Arrivals a second, averaged with weights of exp(-age / window): each arrival adds 1 / window
    to an average that decays by exp(-elapsed / window). Linear, so that those of several workers
    add up.
    """

    fast: float = 0.0  # over FAST_S
    middle: float = 0.0  # over MIDDLE_S
    slow: float = 0.0  # over SLOW_S

    def later(self, elapsed_s: float) -> "ArrivalRates":
        """As they are after so long without an arrival."""
        if elapsed_s <= 0.0 or not self.slow:
            return self
        return ArrivalRates(
            self.fast * math.exp(-elapsed_s / FAST_S),
            self.middle * math.exp(-elapsed_s / MIDDLE_S),
            self.slow * math.exp(-elapsed_s / SLOW_S),
        )

    def arrived(self, count: int = 1) -> "ArrivalRates":
        """So many arrivals now."""
        return ArrivalRates(
            self.fast + count / FAST_S, self.middle + count / MIDDLE_S, self.slow + count / SLOW_S
        )

    def __add__(self, other: "ArrivalRates") -> "ArrivalRates":
        return ArrivalRates(
            self.fast + other.fast, self.middle + other.middle, self.slow + other.slow
        )

    @property
    def estimate(self) -> float:
        """Arrivals a second to go by: the slow average, as far as the shorter ones do not
        contradict it. A window that counted n arrivals gives its rate to n +- 2 sqrt(n + 1)
        (Poisson), so that rare versions are told apart by an hour's counts and a version that
        becomes busy, or falls silent, is seen as such within seconds.
        """
        middle = _within(self.slow, self.middle, MIDDLE_S)
        return _within(middle, self.fast, FAST_S)


def _within(longer: float, shorter: float, window_s: float) -> float:
    # An exponential window of length w has the variance of a plain one of 2 w.
    spread = DOUBT * math.sqrt((shorter * window_s + 1.0) / 2.0) / window_s
    return min(max(longer, shorter - spread), shorter + spread)


NO_ARRIVALS = ArrivalRates()


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Rates and the time they are of; `since` is when counting began, for good: long ago."""

    rates: ArrivalRates = NO_ARRIVALS
    at: float = 0.0
    since: float = -math.inf

    def arrived(self, now: float, count: int = 1) -> "Arrivals":
        return Arrivals(self.rates.later(now - self.at).arrived(count), now, self.since)

    def now(self, now: float) -> ArrivalRates:
        """Rates over what was seen: a window that is longer than that has weights of
        1 - exp(-seen / window) in all, which its average is divided by.
        """
        rates = self.rates.later(now - self.at)
        seen_s = max(LEAST_SEEN_S, now - self.since)
        if seen_s > 6 * SLOW_S:
            return rates
        return ArrivalRates(
            rates.fast / -math.expm1(-seen_s / FAST_S),
            rates.middle / -math.expm1(-seen_s / MIDDLE_S),
            rates.slow / -math.expm1(-seen_s / SLOW_S),
        )
