"""A lane: tickets of one priority, tenant, version and letterboxed shape, to be cut into passes.

Pure. Only tickets of one version and shape share a pass, so the answer for an image does not depend
on its neighbours. Lanes are apart by priority, so that urgent tickets alone make the passes they
wait for, and by tenant, so that tenants take turns.
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


class SmallerPasses(NamedTuple):
    """Passes for tickets that can't wait for a full one: the tickets in the `first` pass (0: that
    would be late too), and whether all passes together make nobody late.
    """

    first: int
    nobody_late: bool


def smaller_passes(
    deadlines: Sequence[float],
    ends: float,
    begins: float,
    sizes: Sequence[int],
    pass_s: Callable[[int], float],
) -> SmallerPasses:
    """Plans passes from `begins` on for the tickets that would be late if a full pass `ends` then.
    `deadlines` are in order of service. Each pass is as large as its deadlines allow (`sizes`
    descend, `pass_s` gives the seconds); one full pass for the tickets behind follows. It plans for
    one full pass of late tickets at most.
    """
    hurried = max(number for number, at in enumerate(deadlines, 1) if at <= ends)
    full = sizes[0]
    at, done, first = begins, 0, 0
    while done < hurried <= full:
        left = deadlines[done:]
        size = next((n for n in sizes if n <= len(left) and at + pass_s(n) < min(left[:n])), 0)
        if not size:
            return SmallerPasses(first, False)
        first = first or size
        at, done = at + pass_s(size), done + size
    behind = deadlines[done : done + full]
    in_time = at + pass_s(full) < min(behind, default=math.inf)
    return SmallerPasses(first, hurried <= full and in_time)


@dataclass(slots=True, eq=False)
class Lane:
    """Tickets in the order in which they are due. `keys` is a sorted list: bisection finds a place,
    and the rest moves as one block of memory, which for thousands is faster than a heap.
    """

    priority: int
    version: str
    shape: Shape
    batching: BatchingConfig
    tenant: str = ""
    keys: list[Key] = field(default_factory=list)
    # Estimated seconds of all its tickets, as of its last change.
    work_s: float = 0.0

    def add(self, key: Key, estimates: LatencyEstimates) -> None:
        insort(self.keys, key)
        self._changed(estimates)

    def discard(self, key: Key, estimates: LatencyEstimates) -> None:
        """Removes a ticket that is there."""
        del self.keys[bisect_left(self.keys, key)]
        self._changed(estimates)

    def pop(self, count: int, estimates: LatencyEstimates) -> list[Key]:
        """Removes the first `count` tickets."""
        popped = self.keys[:count]
        del self.keys[:count]
        self._changed(estimates)
        return popped

    def pop_late(
        self, now: float, deadline: Callable[[int], float], estimates: LatencyEstimates
    ) -> list[Key]:
        """Removes the tickets whose deadline has passed; each was due before its deadline."""
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
        max_images: int,
        begins: float,
        deadline: Callable[[int], float],
        estimates: LatencyEstimates,
    ) -> tuple[int, int]:
        """How many of the first tickets to shed, and how many of the next share the pass that
        `begins` then, of at most `max_images`: as many as possible, if all can be in time.

        Tickets that a full pass would make late go in smaller passes first, if that makes nobody
        late. Otherwise they are shed in favour of as many others: where more tickets wait than can
        be answered, a pass for a late one makes the next one late (early drop of Nexus: Shen and
        others, SOSP 2019).
        """
        count = self.batching.cut(len(self.keys), max_images)
        images = self.batching.images(count, max_images)
        if not estimates.is_sure(self.version, self.shape, images):
            return 0, count
        deadlines = [deadline(number) for _, number in self.keys[: 2 * count]]

        def pass_s(tickets: int) -> float:
            return MARGIN * self.pass_s(tickets, max_images, estimates)

        ends = begins + pass_s(count)
        if ends < min(deadlines[:count]):
            return 0, count
        sizes = sorted(
            {self.batching.cut(n, max_images) for n in range(1, count + 1)}, reverse=True
        )
        smaller = smaller_passes(deadlines, ends, begins, sizes, pass_s)
        if smaller.nobody_late:
            return 0, smaller.first
        hurried = sum(1 for _ in takewhile(lambda at: at <= ends, deadlines[:count]))
        shed = min(hurried, len(self.keys) - count)
        return shed, count if shed else smaller.first or count

    def pass_s(self, tickets: int, max_images: int, estimates: LatencyEstimates) -> float:
        """Estimated seconds of a pass of so many tickets; 0 before any was measured."""
        images = self.batching.images(tickets, max_images)
        return estimates.pass_s(self.version, self.shape, images) or 0.0

    def seconds_of(self, count: int, estimates: LatencyEstimates) -> float:
        """Estimated seconds of the passes of so many tickets; 0 before any was measured."""
        return estimates.passes_s(self.version, self.shape, count, self.batching.full)

    def seconds_before(self, due_at: float, more: int, estimates: LatencyEstimates) -> float:
        """Estimated seconds of the passes of the tickets due by then, and of `more` with them."""
        return self.seconds_of(bisect_right(self.keys, (due_at, _LAST)) + more, estimates)

    def ready_at(
        self,
        max_images: int,
        arrived: Callable[[int], float],
        estimates: LatencyEstimates,
        beside: int = 0,
    ) -> float | None:
        """When a pass may begin though it is not full; None: now. No ticket waits for others longer
        than max_delay_s, nor so long that its pass would end after it is due. `beside`: how many
        tickets of other tenants could share the pass.
        """
        batching, waiting = self.batching, len(self.keys) + beside
        if not batching.max_delay_s or waiting >= min(batching.full, max_images):
            return None
        oldest = min(arrived(number) for _, number in self.keys)
        pass_s = self.pass_s(waiting, max_images, estimates)
        return min(oldest + batching.max_delay_s, self.keys[0][0] - pass_s)

    def _changed(self, estimates: LatencyEstimates) -> None:
        self.work_s = self.seconds_of(len(self.keys), estimates)
