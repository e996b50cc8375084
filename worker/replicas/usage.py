"""How a replica is used: how long its requests waited, how long the device worked for it, whether
its answers found anything, and for how long it had not been used when it was evicted.

Pure: times are arguments, in seconds of one clock. The sums decay, so only recent seconds count.
"""

import math
from dataclasses import dataclass, replace

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


@dataclass(slots=True)
class Evictions:
    """How many there were, and how long before each it had been used last, in all."""

    total: int = 0
    unused_s: float = 0.0

    def add(self, used_s: float, now: float) -> None:
        """used_s: when; 0: never."""
        self.total += 1
        if used_s:
            self.unused_s += max(0.0, now - used_s)


@dataclass(frozen=True, slots=True)
class Sight:
    """`has_found`: it found something once. `empty`: answers without anything since; `asked_at`:
    how many those were when the picture was asked last.
    """

    has_found: bool = False
    empty: int = 0
    asked_at: int = 0

    def answered(self, found: bool) -> "Sight":
        if found:
            return self if self.has_found and not self.empty else Sight(True)
        return replace(self, empty=self.empty + 1) if self.has_found else self

    def is_doubtful(self, after: int) -> bool:
        """Whether the picture is to be asked: after so many, then each time that they doubled."""
        return bool(after) and self.empty >= max(after, 2 * self.asked_at)

    def asked(self) -> "Sight":
        return replace(self, asked_at=self.empty)
