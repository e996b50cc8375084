"""How a replica is used: what its requests waited for, and how long the device worked for it.

Pure: seconds of one clock are arguments. Sums that decay, so that only the last seconds count.
"""

import math
from dataclasses import dataclass

WAITS_S, BUSY_S = 10.0, 30.0
# What a refusal counts for, among waits.
REFUSED_S = 1.0


@dataclass(frozen=True, slots=True)
class ReplicaUsage:
    """Sums with weights of exp(-age / window)."""

    waited_s: float = 0.0
    answers: float = 0.0
    device_s: float = 0.0
    at: float = 0.0

    def answered(self, now: float, waited_s: float, device_s: float) -> "ReplicaUsage":
        """One request was answered: it waited so long for the device and took this of it."""
        waits, busy = self._decay(now)
        return ReplicaUsage(
            self.waited_s * waits + waited_s,
            self.answers * waits + 1.0,
            self.device_s * busy + device_s,
            now,
        )

    def refused(self, now: float) -> "ReplicaUsage":
        """One request found no place, or no time: worse than a long wait."""
        return self.answered(now, REFUSED_S, 0.0)

    def queue_s(self, now: float) -> float:
        """What requests waited on average; falls to 0 when none come any more."""
        waits, _ = self._decay(now)
        return self.waited_s * waits / max(1.0, self.answers * waits)

    def busy(self, now: float) -> float:
        """Share of the device's time, 0..1."""
        _, busy = self._decay(now)
        return min(1.0, self.device_s * busy / BUSY_S)

    def _decay(self, now: float) -> tuple[float, float]:
        elapsed = max(0.0, now - self.at)
        return math.exp(-elapsed / WAITS_S), math.exp(-elapsed / BUSY_S)
