"""What leaves a tier that is full: the least valuable first, never what is in use.

Pure. The value of a thing kept is the time it saves: how often it is asked for, times what
bringing it back costs, over the bytes it takes. The ratio is that of GreedyDual-Size-Frequency
(Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
Policy", 1998); frequencies decay with time instead of its clock.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Uses of a minute ago count a third of those of now.
_DECAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Heat:
    """Uses of late: a count that decays; `at` is in seconds of one clock."""

    count: float = 0.0
    at: float = 0.0

    def used(self, now: float) -> "Heat":
        return Heat(self.now(now) + 1.0, now)

    def now(self, now: float) -> float:
        return self.count * math.exp(-max(0.0, now - self.at) / _DECAY_S)


@dataclass(frozen=True, slots=True)
class Kept:
    """Something in a tier: its bytes, what bringing it back costs (in one unit for all), how
    often it is asked for, and when last.
    """

    key: str
    size_bytes: int
    cost: float
    heat: float
    last_used: float
    in_use: bool = False

    @property
    def worth(self) -> tuple[float, float, str]:
        """Order in which things leave, the first first."""
        return (self.heat * self.cost / max(1, self.size_bytes), self.last_used, self.key)


@dataclass(frozen=True, slots=True)
class Drop:
    """What is to leave, in this order; `enough`: whether that makes the room."""

    keys: tuple[str, ...]
    enough: bool


def to_drop(kept: Iterable[Kept], need_bytes: int, budget_bytes: int) -> Drop:
    """Chooses what leaves, so that all that stays and `need_bytes` more are within the budget."""
    held = list(kept)
    over = sum(one.size_bytes for one in held) + need_bytes - budget_bytes
    chosen = []
    for one in sorted((one for one in held if not one.in_use), key=lambda one: one.worth):
        if over <= 0:
            break
        chosen.append(one.key)
        over -= one.size_bytes
    return Drop(tuple(chosen), over <= 0)
