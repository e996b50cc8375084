"""Chooses what to evict from a full cache: the least valuable first, never what is in use. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from yolopool.server.gdsf import gdsf_value


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something in a cache: its bytes, the seconds that a reload costs, how many times a second it
    is asked for, when it was used last, and for how long it has been there.
    """

    key: str
    size_bytes: int
    cost_s: float
    rate: float
    last_used: float
    held_s: float = 0.0
    in_use: bool = False

    @property
    def worth(self) -> tuple[float, float, str]:
        """The order of eviction: the lowest goes first."""
        saved = gdsf_value(self.rate, self.cost_s, self.size_bytes, self.held_s)
        return (saved, self.last_used, self.key)


@dataclass(frozen=True, slots=True)
class Eviction:
    """What to evict, in this order; `enough`: whether the rest then fits."""

    keys: tuple[str, ...]
    enough: bool


def choose_evictions(entries: Iterable[CacheEntry], need_bytes: int, budget_bytes: int) -> Eviction:
    """Chooses evictions so that what stays and `need_bytes` more are within the budget."""
    held = list(entries)
    over = sum(entry.size_bytes for entry in held) + need_bytes - budget_bytes
    chosen = []
    idle = (entry for entry in held if not entry.in_use)
    for entry in sorted(idle, key=lambda entry: entry.worth):
        if over <= 0:
            break
        chosen.append(entry.key)
        over -= entry.size_bytes
    return Eviction(tuple(chosen), over <= 0)
