"""A lane: what waits of one priority, version and letterboxed shape, and how it is cut into passes.

Pure. Only tickets of one lane share a pass, so an image's answer does not depend on its neighbours;
not of two priorities, so that a pass of the urgent is no longer than they make it themselves.
"""

import math
import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from worker.batching.config import BatchingConfig, Key
from worker.batching.estimates import MARGIN, LatencyEstimates, Shape

_LAST = sys.maxsize


class Smaller(NamedTuple):
    """Passes for those who can't wait for a full one: tickets in the first of them (0: it would be
    late too), and whether nobody is late by all of them.
    """

    first: int
    nobody_late: bool


def smaller_passes(
    deadlines: Sequence[float],
    ends: float,
    begins: float,
    sizes: Sequence[int],
    takes: Callable[[int], float],
) -> Smaller:
    """Passes from `begins` on for those of `deadlines`, in their order, who would be late if a full
    pass `ends` then: each as large as may be (`sizes` descend, `takes` tells the seconds), and a
    full one for those behind. More than one full pass of them are not tried.
    """
    hurried = max(number for number, at in enumerate(deadlines, 1) if at <= ends)
    full = sizes[0]
    at, done, first = begins, 0, 0
    while done < hurried <= full:
        left = deadlines[done:]
        size = next((n for n in sizes if n <= len(left) and at + takes(n) < min(left[:n])), 0)
        if not size:
            return Smaller(first, False)
        first = first or size
        at, done = at + takes(size), done + size
    behind = deadlines[done : done + full]
    return Smaller(first, hurried <= full and at + takes(full) < min(behind, default=math.inf))


@dataclass(slots=True, eq=False)
class Lane:
    """Tickets as they are due. `keys` is sorted: a place is found by halving, and what lies behind
    it is moved as one block of memory, which for thousands takes less than a heap's comparisons.
    """

    priority: int
    version: str
    shape: Shape
    batching: BatchingConfig
    keys: list[Key] = field(default_factory=list)
    # What all of it takes, in seconds, as estimated when it changed last.
    work_s: float = 0.0

    def add(self, key: Key, estimates: LatencyEstimates) -> None:
        insort(self.keys, key)
        self._changed(estimates)

    def discard(self, key: Key, estimates: LatencyEstimates) -> None:
        """Takes one out that is there."""
        del self.keys[bisect_left(self.keys, key)]
        self._changed(estimates)

    def take(self, count: int, estimates: LatencyEstimates) -> list[Key]:
        """Takes out the first so many."""
        taken = self.keys[:count]
        del self.keys[:count]
        self._changed(estimates)
        return taken

    def take_late(
        self, now: float, deadline: Callable[[int], float], estimates: LatencyEstimates
    ) -> list[Key]:
        """Takes out those whose deadline has passed: they were due before."""
        if not self.keys or self.keys[0][0] > now:
            return []
        overdue = self.keys[: bisect_right(self.keys, (now, _LAST))]
        late = [key for key in overdue if deadline(key[1]) <= now]
        if late:
            left = set(late)
            self.keys[: len(overdue)] = [key for key in overdue if key not in left]
            self._changed(estimates)
        return late

    def cut(
        self,
        most: int,
        begins: float,
        deadline: Callable[[int], float],
        estimates: LatencyEstimates,
    ) -> tuple[int, int]:
        """How many of the first give way, and how many of the next share a pass of at most `most`
        images that `begins` then: as many as may, if all of them can be in time.

        Those who would be late by it go in smaller passes first, if all can be in time so. Else
        they give way to as many others: where more wait than can be answered, a pass for one that
        is late makes the next one late (early drop of Nexus: Shen and others, SOSP 2019).
        """
        count = self.batching.cut(len(self.keys), most)
        images = self.batching.images(count, most)
        if not estimates.is_sure(self.version, self.shape, images):
            return 0, count
        deadlines = [deadline(number) for _, number in self.keys[: 2 * count]]

        def takes(tickets: int) -> float:
            return MARGIN * self.pass_s(tickets, most, estimates)

        ends = begins + takes(count)
        if ends < min(deadlines[:count]):
            return 0, count
        sizes = sorted({self.batching.cut(n, most) for n in range(1, count + 1)}, reverse=True)
        smaller = smaller_passes(deadlines, ends, begins, sizes, takes)
        if smaller.nobody_late:
            return 0, smaller.first
        hurried = sum(1 for _ in takewhile(lambda at: at <= ends, deadlines[:count]))
        giving_way = min(hurried, len(self.keys) - count)
        return giving_way, count if giving_way else smaller.first or count

    def pass_s(self, tickets: int, most: int, estimates: LatencyEstimates) -> float:
        """Seconds of the pass of so many, of `most` images at most; 0 before any was measured."""
        images = self.batching.images(tickets, most)
        return estimates.pass_s(self.version, self.shape, images) or 0.0

    def seconds_of(self, count: int, estimates: LatencyEstimates) -> float:
        """What the passes of so many take; 0 while nothing was measured."""
        return estimates.passes_s(self.version, self.shape, count, self.batching.full)

    def seconds_before(self, due_at: float, more: int, estimates: LatencyEstimates) -> float:
        """What the passes take of those that are due until then, and of `more` with them."""
        return self.seconds_of(bisect_right(self.keys, (due_at, _LAST)) + more, estimates)

    def ripe_at(
        self, most: int, arrived: Callable[[int], float], estimates: LatencyEstimates
    ) -> float | None:
        """When a pass is due though it is not full; None: now. Nobody waits for company longer
        than max_delay_s, nor so long that the pass would end when the first is overdue.
        """
        batching = self.batching
        if not batching.max_delay_s or len(self.keys) >= min(batching.full, most):
            return None
        oldest = min(arrived(number) for _, number in self.keys)
        pass_s = self.pass_s(len(self.keys), most, estimates)
        return min(oldest + batching.max_delay_s, self.keys[0][0] - pass_s)

    def _changed(self, estimates: LatencyEstimates) -> None:
        self.work_s = self.seconds_of(len(self.keys), estimates)
