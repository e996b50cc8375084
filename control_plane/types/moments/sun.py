"""Dawn, sunrise, sunset and dusk at a place: the only file that uses the library of the sun.

Arithmetic on arguments; reads no clock. Moments are whole minutes: refraction, hills and clouds
leave no meaning to seconds, and so two releases of the library agree.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from astral import Observer
from astral.sun import elevation, noon

from yolopool.errors import InvalidSchedule

MAX_OFFSET_S = 12 * 3600
# Every place on Earth has each of the four at least once a year.
_LOOK_DAYS = 400
_MINUTE_S, _DAY_S = 60, 86_400
# Of the date that `date.fromordinal` counts from to that of Unix time.
_EPOCH = date(1970, 1, 1).toordinal()
_TEXT = re.compile(r"(dawn|sunrise|sunset|dusk)(?:([+-])(?:(\d{1,2})h)?(?:(\d{1,3})m)?)?")


class SunEvent(StrEnum):
    DAWN = "dawn"
    SUNRISE = "sunrise"
    SUNSET = "sunset"
    DUSK = "dusk"

    @property
    def rises(self) -> bool:
        """Whether the sun is on its way up then."""
        return self in (SunEvent.DAWN, SunEvent.SUNRISE)

    @property
    def degrees(self) -> float:
        """Where the centre of the sun is then, above the horizon, as geometry has it. Civil
        twilight ends at -6; at -0.833, with usual refraction, its upper edge is seen.
        """
        return -6.0 if self in (SunEvent.DAWN, SunEvent.DUSK) else -0.833


@dataclass(frozen=True, slots=True)
class Place:
    """Degrees: north and east are positive."""

    latitude: float
    longitude: float

    def __str__(self) -> str:
        return f"{self.latitude:g},{self.longitude:g}"


@dataclass(frozen=True, slots=True)
class SunMoment:
    """An event of each day, or so many seconds after it (before it: negative), at a place."""

    event: SunEvent
    offset_s: int
    place: Place

    @property
    def text(self) -> str:
        """As `sun_moment` reads it: dusk-15m."""
        if not self.offset_s:
            return self.event.value
        hours, minutes = divmod(abs(self.offset_s) // _MINUTE_S, 60)
        parts = (f"{hours}h" if hours else "", f"{minutes}m" if minutes else "")
        return f"{self.event.value}{'-' if self.offset_s < 0 else '+'}{''.join(parts)}"

    def next_after(self, unix_s: float) -> float:
        """The first moment after `unix_s`, in Unix seconds. Where the sun does not set, or does not
        rise, it may be months away.
        """
        moments = self._moments(unix_s, forwards=True)
        return next((moment for moment in moments if moment > unix_s), float("inf"))

    def latest_at(self, unix_s: float) -> float:
        """The last moment not after `unix_s`, in Unix seconds."""
        moments = self._moments(unix_s, forwards=False)
        return next((moment for moment in moments if moment <= unix_s), float("-inf"))

    def absence(self, unix_s: float) -> str:
        """Why the sun has no such moment within the next day and a half; empty: it has one."""
        if self.next_after(unix_s) - unix_s <= 1.5 * _DAY_S:
            return ""
        is_above = _height(self.place, int(unix_s)) > self.event.degrees
        stays = "is higher than" if is_above else "does not come as high as"
        return (
            f"until then the sun at {self.place} {stays} at {self.event.value}, "
            f"{self.event.degrees:g} degrees"
        )

    def _moments(self, unix_s: float, forwards: bool) -> Iterator[float]:
        """Those of the days from `unix_s` on, or back from it, in order."""
        east_s = self.place.longitude / 360 * _DAY_S
        today = int((unix_s - self.offset_s + east_s) // _DAY_S)
        step = 1 if forwards else -1
        for days in range(-1, _LOOK_DAYS):
            found = _event_of(self.event, self.place, today + step * days)
            if found is not None:
                yield float(found + self.offset_s)


def sun_moment(text: str, place: Place) -> SunMoment:
    """Reads dawn, sunrise, sunset or dusk, with an offset or without: dusk-15m, dawn+1h30m.

    Raises InvalidSchedule, also for a place that is none.
    """
    match = _TEXT.fullmatch(text.strip())
    sign, hours, minutes = match.group(2, 3, 4) if match else (None, None, None)
    if match is None or (sign and not (hours or minutes)):
        raise InvalidSchedule(
            f"{text[:80]!r} is no moment of the sun: give dawn, sunrise, sunset or dusk, and an "
            "offset if you like, such as dusk-15m or dawn+1h30m"
        )
    offset_s = (int(hours or 0) * 60 + int(minutes or 0)) * _MINUTE_S
    if offset_s > MAX_OFFSET_S:
        raise InvalidSchedule(f"{text[:80]!r}: an offset is at most {MAX_OFFSET_S // 3600}h")
    # Written so that NaN is rejected too.
    if not (-90 <= place.latitude <= 90 and -180 <= place.longitude <= 180):
        raise InvalidSchedule(
            f"{place} is no place: give its latitude, -90 to 90, and its longitude, -180 to 180, "
            "in degrees, such as 52.52,13.41"
        )
    return SunMoment(SunEvent(match[1]), -offset_s if sign == "-" else offset_s, place)


def place_of(raw: Mapping[str, Any]) -> Place:
    """From a stored record; fields that a newer release added are ignored."""
    return Place(raw["latitude"], raw["longitude"])


def sun_of(raw: Mapping[str, Any] | None) -> SunMoment | None:
    """From a stored record; None: there is none, or a newer release knows more events."""
    if not raw or raw["event"] not in tuple(SunEvent):
        return None
    return SunMoment(SunEvent(raw["event"]), raw["offset_s"], place_of(raw["place"]))


@lru_cache(maxsize=4096)
def _event_of(event: SunEvent, place: Place, day: int) -> int | None:
    """When the sun passes the height of an event, up or down as it does then, in Unix seconds;
    None: not on that solar day. `day`: from Unix time on.

    From noon to midnight and from midnight to noon the sun only sinks or only rises, but within
    minutes of the poles, where a day has one of them for months.
    """
    before, at_noon, after = (_noon(place, day + days) for days in (-1, 0, 1))
    halves = (((before + at_noon) // 2, at_noon), (at_noon, (at_noon + after) // 2))
    for low, high in halves:
        was_above = _height(place, low) > event.degrees
        if was_above is event.rises or (_height(place, high) > event.degrees) is was_above:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if (_height(place, middle) > event.degrees) is was_above:
                low = middle
            else:
                high = middle
        return (high + _MINUTE_S // 2) // _MINUTE_S * _MINUTE_S
    return None


def _noon(place: Place, day: int) -> int:
    """When the sun is highest, in Unix seconds."""
    at = noon(Observer(place.latitude, place.longitude), date.fromordinal(_EPOCH + day))
    return int(at.timestamp())


def _height(place: Place, unix_s: int) -> float:
    """Degrees of the sun's centre above the horizon, without refraction."""
    when = datetime.fromtimestamp(unix_s, UTC)
    return elevation(Observer(place.latitude, place.longitude), when, with_refraction=False)
