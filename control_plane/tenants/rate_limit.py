"""At most so many a second, with a burst of one second's worth. Pure: times are arguments, seconds.

The generic cell rate algorithm as virtual scheduling (ITU-T I.371; ATM Forum, Traffic Management
Specification 4.0, 1996), which lets in what a token bucket does and keeps one number.
"""

import math


class RateLimit:
    """`due` is when the next would come if all came evenly: one may come `burst_s` before that."""

    __slots__ = ("_due", "burst_s", "interval_s")

    def __init__(self) -> None:
        self._due = 0.0
        self.interval_s = self.burst_s = 0.0

    def set_rate(self, per_s: float, now: float) -> None:
        """0: no limit. As many may come at once as before, or as the new burst allows: who gets a
        part that another gave up does not get its burst once more.
        """
        left = self._left(now)
        self.interval_s = 1.0 / per_s if per_s > 0 else 0.0
        # A whole second's worth at once; at less than one a second, one.
        self.burst_s = max(0.0, 1.0 - self.interval_s)
        if self.interval_s:
            self._due = now + max(0.0, self.burst_s + self.interval_s * (1.0 - left))

    def _left(self, now: float) -> float:
        """How many may come at once."""
        if not self.interval_s:
            return math.inf
        return 1.0 + (self.burst_s - max(0.0, self._due - now)) / self.interval_s

    def wait_s(self, now: float) -> float:
        """Seconds until one may come, if no other comes before; 0: now."""
        if not self.interval_s:
            return 0.0
        return max(0.0, self._due - self.burst_s - now)

    def take(self, now: float) -> None:
        """Notes one that comes now, which it may."""
        self._due = max(self._due, now) + self.interval_s
