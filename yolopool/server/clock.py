"""The two clocks of a process: its `app` makes them; pure code gets the time as an argument."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds. `monotonic`: for leases, deadlines and durations. `unix`: for what is stored, shown
    or sent to another process.
    """

    monotonic: Callable[[], float]
    unix: Callable[[], float]
