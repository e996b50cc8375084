"""The two clocks of this process. `app` makes them; pure code gets the time as an argument."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic`: for leases, deadlines and durations. `unix`: for what is stored or shown."""

    monotonic: Callable[[], float]
    unix: Callable[[], float]
