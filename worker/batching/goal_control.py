"""Adapts the largest batch and the delay of a version to its p99 goal. Pure: times are arguments.

It decides by windows of answered requests. Where the p99 is above the goal it gives up delay first,
then a batch that the rate does not need, and takes a larger one only where requests wait because
small ones are too slow. It goes back up one step at a time, where the passes that it measured say
that the goal holds; a step that broke it is not tried again for twice as long each time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from worker.batching.config import BatchingConfig

# A decision looks at so many requests and seconds at least; where few come, after LONGEST_S at
# those that came, if they are FEWEST.
REQUESTS, SECONDS, LONGEST_S, FEWEST = 200, 2.0, 20.0, 20
# More in one window add nothing: the oldest are given up.
KEPT = 4000
# Between these shares of the goal nothing changes. Above ABOVE it acts after two windows, or one if
# p99 is beyond FAR; below BELOW after three.
BELOW, ABOVE, FAR = 0.7, 1.0, 1.5
# A smaller batch must be able to answer SPARE times what comes; a larger one is needed where this
# one can't answer TIGHT times as much.
SPARE, TIGHT = 1.2, 1.05
# So many windows in a row above it, with nothing left to try: one may be a neighbour's doing.
UNREACHED = 3
# A goal that was out of reach is reached again below this share.
REACHED = 0.9
# A delay this short is none.
LEAST_DELAY_S = 0.0005
FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 600.0


class Took(NamedTuple):
    """One answered request, in seconds: at this worker in all, before its pass, and of its pass,
    which had `images`.
    """

    total_s: float
    queue_s: float
    pass_s: float
    images: int


@dataclass(frozen=True, slots=True)
class Adapted:
    """What a version runs with now; `p99_s`: of the window that decided it last, 0 before."""

    max_batch: int
    max_delay_s: float
    p99_s: float = 0.0
    is_out_of_reach: bool = False


class GoalControl:
    """Of one version at one worker. `allowed` is what its policy allows and what fits the device:
    it may change between calls of `batching`, and bounds what is run at once.
    """

    def __init__(self, allowed: BatchingConfig, now: float) -> None:
        self.adapted = Adapted(allowed.full, allowed.max_delay_s)
        # What was asked for last, and its answer: every request asks.
        self._allowed, self._answer, self._answer_of = allowed, allowed, self.adapted
        self._window: list[Took] = []
        self._since = now
        # Requests that arrived before the last change say nothing about it.
        self._counts_from = now
        self._above = self._below = 0
        self._pass_s: dict[int, float] = {}
        # A step up that broke the goal: what was before it, when it may be tried again.
        self._raised_from: Adapted | None = None
        self._pause_s, self._raises_at = FIRST_PAUSE_S, now

    def batching(self, allowed: BatchingConfig) -> BatchingConfig:
        """What tickets are queued with now."""
        if self._answer_of is self.adapted and allowed == self._allowed:
            return self._answer
        delay_s = min(allowed.max_delay_s, self.adapted.max_delay_s)
        self._allowed, self._answer_of = allowed, self.adapted
        self._answer = replace(allowed.within(self.adapted.max_batch), max_delay_s=delay_s)
        return self._answer

    def answered(self, took: Took, now: float) -> None:
        """Notes an answered request, and decides where enough were."""
        if now - took.total_s < self._counts_from:
            return
        self._window.append(took)
        age_s, count = now - self._since, len(self._window)
        if age_s < SECONDS or (count < REQUESTS and age_s < LONGEST_S):
            return
        window, self._window, self._since = self._window[-KEPT:], [], now
        if count >= FEWEST:
            self._decide(window, count / age_s, self._allowed, now)

    def _decide(
        self, window: Sequence[Took], rate: float, allowed: BatchingConfig, now: float
    ) -> None:
        p99_s = _p99([took.total_s for took in window])
        self._note_passes(window)
        share = p99_s / allowed.p99_goal_s
        self._above = self._above + 1 if share > ABOVE else 0
        self._below = self._below + 1 if share < BELOW else 0
        here = replace(self.adapted, p99_s=p99_s)
        if self._above >= (1 if share > FAR else 2):
            there = self._lower(here, window, rate, allowed, now)
            if there is None and self._above >= UNREACHED:
                here = replace(here, is_out_of_reach=True)
        elif self._below >= 3 and now >= self._raises_at:
            there = self._higher(here, window, allowed)
            self._raised_from = here if there is not None else None
        else:
            there = None
            if BELOW <= share <= ABOVE:
                self._raised_from = None
        is_out = here.is_out_of_reach and share > REACHED
        self.adapted = replace(there or here, is_out_of_reach=is_out)
        if there is not None:
            self._above = self._below = 0
            self._since = self._counts_from = now

    def _lower(
        self,
        here: Adapted,
        window: Sequence[Took],
        rate: float,
        allowed: BatchingConfig,
        now: float,
    ) -> Adapted | None:
        """What is tried above the goal; None: there is nothing left to try."""
        if self._raised_from is not None:
            back, self._raised_from = self._raised_from, None
            self._raises_at = now + self._pause_s
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
            return replace(back, p99_s=here.p99_s)
        if here.max_delay_s:
            half_s = here.max_delay_s / 2
            return replace(here, max_delay_s=half_s if half_s >= LEAST_DELAY_S else 0.0)
        # From here on it does not go up by itself for a while: it was above, with all of this.
        self._raises_at = max(self._raises_at, now + self._pause_s)
        sizes = _sizes(allowed)
        largest = min(here.max_batch, max(took.images for took in window))
        smaller = max((size for size in sizes if size < largest), default=0)
        if smaller and self._speed(smaller) >= rate * SPARE:
            return replace(here, max_batch=smaller)
        larger = min((size for size in sizes if size > here.max_batch), default=0)
        waits = _p99([took.queue_s for took in window]) > median(took.pass_s for took in window)
        if larger and waits and self._speed(here.max_batch) < rate * TIGHT:
            return replace(here, max_batch=larger)
        return None

    def _higher(
        self, here: Adapted, window: Sequence[Took], allowed: BatchingConfig
    ) -> Adapted | None:
        """One step back towards what is allowed, if the goal is expected to hold; None: none."""
        goal_s = allowed.p99_goal_s * (BELOW + ABOVE) / 2
        larger = min((size for size in _sizes(allowed) if size > here.max_batch), default=0)
        full = sum(took.images >= here.max_batch for took in window)
        if larger:
            # A request waits for a pass and for its own; more than one in 100 was in a full one.
            more_s = 2 * (self._seconds(larger) - self._seconds(here.max_batch))
            fits = here.p99_s + max(0.0, more_s) <= goal_s
            return replace(here, max_batch=larger) if fits and 100 * full > len(window) else None
        step_s = max(LEAST_DELAY_S, allowed.max_delay_s / 8)
        delay_s = min(allowed.max_delay_s, here.max_delay_s + step_s)
        if delay_s > here.max_delay_s and here.p99_s + step_s <= goal_s:
            return replace(here, max_delay_s=delay_s)
        return None

    def _note_passes(self, window: Sequence[Took]) -> None:
        times: dict[int, list[float]] = {}
        for took in window:
            times.setdefault(took.images, []).append(took.pass_s)
        self._pass_s.update({images: median(each) for images, each in times.items()})

    def _seconds(self, images: int) -> float:
        """Of a pass of so many images: on the line between the measured sizes around it. One below
        all that were measured is taken to be no faster, one above all in proportion.
        """
        known = sorted(self._pass_s.items())
        below = [point for point in known if point[0] <= images]
        above = [point for point in known if point[0] >= images]
        if not below:
            return above[0][1]
        if not above:
            return below[-1][1] * images / below[-1][0]
        (small, small_s), (large, large_s) = below[-1], above[0]
        part = (images - small) / (large - small) if large > small else 0.0
        return small_s + part * (large_s - small_s)

    def _speed(self, images: int) -> float:
        """Images a second in passes of so many."""
        return images / max(1e-9, self._seconds(images))


def _sizes(allowed: BatchingConfig) -> tuple[int, ...]:
    """The largest batches that are tried, ascending: the preferred ones, else powers of two."""
    most = allowed.full
    if allowed.preferred_sizes:
        return allowed.preferred_sizes
    return (*(2**power for power in range(math.ceil(math.log2(most)))), most)


def _p99(values: Sequence[float]) -> float:
    """The nearest rank."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]
