"""Which size of a family answers a request: the largest that will meet its deadline. Pure.

A smaller size is taken at once; a larger one only after it had had room for a while, and by one
size at a time, so that sizes do not flap: a large size that is chosen lengthens the queue by which
it was chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp

# An estimate has to be so much shorter than the time that is left; so much, to go to a larger size.
MARGIN, ROOM = 1.25, 1.5
# How long there is to be room for a larger size before it is taken.
CALM_S = 1.0
# What was chosen so long ago says nothing of the present queue.
STALE_S = 10.0

# Seconds until a request would be answered by a size; None: it is loaded nowhere.
Finish = Callable[[int], float | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """The size that requests with like deadlines get, counted from the smallest. `roomy_since_s`:
    since when a larger one has had room; None: it has not.
    """

    size: int
    used_s: float
    roomy_since_s: float | None = None


def class_of(left_s: float) -> int:
    """Deadlines that share a standing: within a factor of two."""
    return frexp(max(left_s, 1e-3))[1]


def choose_size(
    standing: Standing | None, sizes: int, finish_s: Finish, left_s: float, now: float
) -> Standing:
    """The size for a request that must be answered in `left_s`; only loaded sizes count. Where none
    would be in time it is the one that is soonest, and where none is loaded the smallest.
    """
    if standing is None or now - standing.used_s > STALE_S or standing.size >= sizes:
        return Standing(_largest(sizes, sizes, finish_s, left_s), now)
    size = standing.size
    current_s = finish_s(size)
    if current_s is None or current_s * MARGIN > left_s:
        return Standing(_largest(size, sizes, finish_s, left_s), now)
    for larger in range(size + 1, sizes):
        larger_s = finish_s(larger)
        if larger_s is None:
            continue
        if larger_s * ROOM > left_s:
            break
        since = now if standing.roomy_since_s is None else standing.roomy_since_s
        return Standing(larger, now) if now - since >= CALM_S else Standing(size, now, since)
    return Standing(size, now)


def stepped_down(standing: Standing, size: int, now: float) -> Standing:
    """After a worker had no time or no place for a request of this size."""
    return Standing(min(standing.size, max(0, size - 1)), now)


def _largest(below: int, sizes: int, finish_s: Finish, left_s: float) -> int:
    """The largest size below `below` that is in time; else the soonest of all."""
    for size in reversed(range(below)):
        seconds = finish_s(size)
        if seconds is not None and seconds * MARGIN <= left_s:
            return size
    loaded = [(s, size) for size in range(sizes) if (s := finish_s(size)) is not None]
    return min(loaded)[1] if loaded else 0
