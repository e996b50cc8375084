"""Decides when something hangs: how long it may take, and for how long it has not moved.

Pure: times are arguments, in seconds of one monotonic clock.
"""

from collections.abc import Hashable
from dataclasses import dataclass

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


class StallTimer:
    """Measures for how long a mark has stayed the same.

    Each look counts at most `max_step_s`, so that the time in which the whole process was frozen
    does not count as a hang.
    """

    def __init__(self, max_step_s: float) -> None:
        self._max_step_s = max_step_s
        self._mark: Hashable = None
        self._looked = 0.0
        self._stalled_s = 0.0

    def look(self, mark: Hashable, now: float) -> float:
        """The seconds for which `mark` has been the same; 0 for a new one."""
        if mark != self._mark:
            self._mark, self._stalled_s = mark, 0.0
        else:
            self._stalled_s += min(now - self._looked, self._max_step_s)
        self._looked = now
        return self._stalled_s
