"""What leaves a tier that is full: the least valuable first, never what is in use. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from yolopool.server.gdsf import gdsf_value


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something in a tier: its bytes, the seconds that bringing it back costs, how often a second
    it is asked for, when last, and for how long it has been there.
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
        """Order in which things leave, the first first."""
        saved = gdsf_value(self.rate, self.cost_s, self.size_bytes, self.held_s)
        return (saved, self.last_used, self.key)


@dataclass(frozen=True, slots=True)
class Eviction:
    """What is to leave, in this order; `enough`: whether that makes the room."""

    keys: tuple[str, ...]
    enough: bool


def choose_evictions(kept: Iterable[CacheEntry], need_bytes: int, budget_bytes: int) -> Eviction:
    """Chooses what leaves, so that all that stays and `need_bytes` more are within the budget."""
    held = list(kept)
    over = sum(one.size_bytes for one in held) + need_bytes - budget_bytes
    chosen = []
    for one in sorted((one for one in held if not one.in_use), key=lambda one: one.worth):
        if over <= 0:
            break
        chosen.append(one.key)
        over -= one.size_bytes
    return Eviction(tuple(chosen), over <= 0)
