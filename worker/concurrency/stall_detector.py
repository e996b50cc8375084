"""When what runs has hung: how long it may take, and how long it was seen to stand.

Pure: times are arguments, in seconds of one monotonic clock.
"""

from collections.abc import Hashable
from dataclasses import dataclass

# A pass may take so many times its estimate, above the floor.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class DeviceActivity:
    """What the device thread does since `since`; `expected_s` None: nobody can tell how long it
    takes, as of a load or a version's first pass.
    """

    what: str
    since: float
    expected_s: float | None


@dataclass(frozen=True, slots=True)
class HangLimits:
    """How long what can be estimated may take at least, and what can't be at most."""

    floor_s: float
    load_s: float

    def limit_s(self, running: DeviceActivity) -> float:
        """How long this may take before it counts as hung."""
        if running.expected_s is None:
            return self.load_s
        return max(self.floor_s, PATIENCE * running.expected_s)


class StallTimer:
    """How long one thing was seen not to move.

    Only time in which somebody looked counts, at most `longest_s` a look: a process that was
    frozen as a whole has not hung.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._mark: Hashable = None
        self._looked = 0.0
        self._stood_s = 0.0

    def look(self, mark: Hashable, now: float) -> float:
        """Seconds for which `mark` has been the same; 0 for a new one."""
        if mark != self._mark:
            self._mark, self._stood_s = mark, 0.0
        else:
            self._stood_s += min(now - self._looked, self._longest_s)
        self._looked = now
        return self._stood_s
