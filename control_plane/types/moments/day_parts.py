"""Which part of the day it is: by the clock, or by the sun at a place.

Pure: time is an argument.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from control_plane.types.moments.cron import latest_at, next_after
from control_plane.types.moments.sun import SunEvent, SunMoment
from yolopool.errors import InvalidSchedule

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
# The sun passes the same height at both.
_PAIRS = {SunEvent.DAWN: SunEvent.DUSK, SunEvent.SUNRISE: SunEvent.SUNSET}


@dataclass(frozen=True, slots=True)
class Part:
    """Which part it is, counted from 0, and when that is to be asked again, in Unix seconds."""

    number: int
    until_unix_s: float


def is_clock(text: str) -> bool:
    return _CLOCK.fullmatch(text) is not None


def clock_line(text: str) -> str:
    """The cron line of a time of day such as 6:30. Raises InvalidSchedule."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise InvalidSchedule(f"{text[:80]!r} is no time of day: give one such as 06:30")
    return f"{int(match[2])} {int(match[1])} * * *"


def check_pair(day: SunMoment, night: SunMoment) -> None:
    """Raises InvalidSchedule where the first does not begin the day that the second ends."""
    if _PAIRS.get(day.event) is not night.event:
        raise InvalidSchedule(
            f"{day.text} and {night.text} are no day and night: give dawn and then dusk, or "
            "sunrise and then sunset"
        )


def by_clock(begins: Sequence[str], time_zone: str, unix_s: float) -> Part:
    """Of parts that begin at these times of each day, the one that began last."""
    lines = [clock_line(text) for text in begins]
    began = [latest_at(line, time_zone, unix_s) for line in lines]
    until = min(next_after(line, time_zone, unix_s) for line in lines)
    return Part(began.index(max(began)), until)


def by_sun(day: SunMoment, night: SunMoment, unix_s: float) -> Part:
    """0 by day, 1 by night. Where the sun does not set it is day, where it does not rise night; and
    a day of which the offsets leave nothing is none.
    """
    began = day.latest_at(unix_s)
    # The end of that very day.
    ends = replace(night, offset_s=0).next_after(began - day.offset_s) + night.offset_s
    begins = day.next_after(unix_s)
    return Part(0, min(ends, begins)) if unix_s < ends else Part(1, begins)
