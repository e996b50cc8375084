"""Time as an argument: the two clocks of a worker process, made by `App` and passed down."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds. `monotonic` is for deadlines and durations; `unix` is for people and control
    planes.
    """

    monotonic: Callable[[], float]
    unix: Callable[[], float]
