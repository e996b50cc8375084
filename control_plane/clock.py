"""Time as an argument: the two clocks of this process, made by `app` and handed to the shells."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`monotonic` for leases, deadlines and durations; `unix` for what people and stores see."""

    monotonic: Callable[[], float]
    unix: Callable[[], float]
