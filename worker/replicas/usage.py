"""How a replica is used: how long its requests waited, and how long the device worked for it.

Pure: times are arguments, in seconds of one clock. The sums decay, so only recent seconds count.
"""

import math
from dataclasses import dataclass

# Windows of the averages: over waits, and over device time.
WAITS_S, BUSY_S = 10.0, 30.0
# A refused request counts as a wait of this length.
REFUSED_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplicaUsage:
    """Sums whose terms weigh exp(-age / window)."""

    waited_s: float = 0.0
    answers: float = 0.0
    device_s: float = 0.0
    at: float = 0.0

    def answered(self, now: float, waited_s: float, device_s: float) -> "ReplicaUsage":
        """Adds an answered request: its wait for the device, and the device time it took."""
        waits, busy = self._decay(now)
        return ReplicaUsage(
            self.waited_s * waits + waited_s,
            self.answers * waits + 1.0,
            self.device_s * busy + device_s,
            now,
        )

    def refused(self, now: float) -> "ReplicaUsage":
        """Adds a request that was refused for lack of room or time: worse than a long wait."""
        return self.answered(now, REFUSED_S, 0.0)

    def queue_s(self, now: float) -> float:
        """The average wait of requests; falls to 0 when none come any more."""
        waits, _ = self._decay(now)
        return self.waited_s * waits / max(1.0, self.answers * waits)

    def busy(self, now: float) -> float:
        """The share of the device's time that it used, 0..1."""
        _, busy = self._decay(now)
        return min(1.0, self.device_s * busy / BUSY_S)

    def _decay(self, now: float) -> tuple[float, float]:
        elapsed = max(0.0, now - self.at)
        return math.exp(-elapsed / WAITS_S), math.exp(-elapsed / BUSY_S)
