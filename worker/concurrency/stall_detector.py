"""Decides when something hangs: how long it may take, and for how long it has not moved.

Pure: times are arguments, in seconds of one monotonic clock.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from worker.concurrency.thread_times import Spent

# A pass may take this many times its estimate, if that is above the floor.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class DeviceActivity:
    """What the device thread has been doing since `since`. `expected_s` is None if there is no
    estimate, as for a load or a version's first pass.
    """

    what: str
    since: float
    expected_s: float | None


@dataclass(frozen=True, slots=True)
class HangLimits:
    """What an activity may take: at least `floor_s` with an estimate, `load_s` without one."""

    floor_s: float
    load_s: float

    def limit_s(self, running: DeviceActivity) -> float:
        """How long an activity may take before it counts as hung."""
        if running.expected_s is None:
            return self.load_s
        return max(self.floor_s, PATIENCE * running.expected_s)


def _nothing(seconds: float) -> Spent:
    return Spent(0.0, 0.0)


class StallTimer:
    """Measures for how long a mark has stayed the same, less the time in which threads waited for
    a processor.

    Each look counts at most `max_step_s`, so that the time in which the whole process was frozen
    does not count as a hang.
    """

    def __init__(self, max_step_s: float) -> None:
        self._max_step_s = max_step_s
        self._mark: Hashable = None
        self._looked = 0.0
        # For which the mark has been the same; of it, what threads ran, and what is not explained.
        self._total_s = self._ran_s = self._idle_s = 0.0

    @property
    def stalled_s(self) -> float:
        return self._ran_s + self._idle_s

    @property
    def excused_s(self) -> float:
        """Of the time that the mark has stayed the same: what did not count."""
        return max(0.0, self._total_s - self.stalled_s)

    @property
    def is_starved(self) -> bool:
        """Whether most of the time did not count."""
        return self.excused_s > self.stalled_s

    def look(self, mark: Hashable, now: float, spent: Callable[[float], Spent] = _nothing) -> float:
        """The seconds for which `mark` has been the same, 0 for a new one and for None. `spent`
        says what the threads did in so many seconds since the last look.
        """
        if mark is None or mark != self._mark:
            self._mark, self._total_s, self._ran_s, self._idle_s = mark, 0.0, 0.0, 0.0
        else:
            step_s = min(now - self._looked, self._max_step_s)
            done = spent(step_s)
            ran_s = min(done.ran_s, step_s)
            # A look that came late is explained as a whole by threads that ran or waited meanwhile.
            self._total_s += max(step_s, min(now - self._looked, done.ran_s + done.waited_s))
            self._ran_s += ran_s
            # A wait that ended now explains seconds of earlier looks, too.
            self._idle_s = max(0.0, self._idle_s + step_s - ran_s - done.waited_s)
        self._looked = now
        return self.stalled_s
