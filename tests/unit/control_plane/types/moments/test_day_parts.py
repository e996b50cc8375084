"""Which part of the day it is: by the clock, by the sun, in polar seasons, and with odd offsets."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.moments.day_parts import (
    by_clock,
    by_sun,
    check_pair,
    clock_line,
    is_clock,
)
from control_plane.types.moments.sun import Place, sun_moment
from yolopool.errors import InvalidSchedule

BERLIN, TROMSO = Place(52.52, 13.405), Place(69.65, 18.96)


def local(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def is_day(place: Place, unix_s: float, day: str = "dawn", night: str = "dusk") -> bool:
    return by_sun(sun_moment(day, place), sun_moment(night, place), unix_s).number == 0


@pytest.mark.parametrize(
    ("text", "line"), [("6:30", "30 6 * * *"), ("06:05", "5 6 * * *"), ("23:59", "59 23 * * *")]
)
def test_a_time_of_day_is_a_line_of_cron(text: str, line: str) -> None:
    assert is_clock(text)
    assert clock_line(text) == line


@pytest.mark.parametrize("text", ["", "24:00", "6", "6:5", "06:60", "dusk", "0 6 * * *"])
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    assert not is_clock(text)
    with pytest.raises(InvalidSchedule, match="06:30"):
        clock_line(text)


def test_by_the_clock_the_part_that_began_last() -> None:
    begins = ("06:00", "14:00", "22:00")
    found = [
        by_clock(begins, "Europe/Berlin", local(f"2026-06-21T{hour:02}:00")).number
        for hour in (5, 6, 13, 14, 21, 22, 0)
    ]
    assert found == [2, 0, 0, 1, 1, 2, 2]
    until = by_clock(begins, "Europe/Berlin", local("2026-06-21T07:00")).until_unix_s
    assert until == local("2026-06-21T14:00")


def test_by_the_sun_day_and_night_in_berlin() -> None:
    found = [is_day(BERLIN, local(f"2026-06-21T{hour:02}:00")) for hour in (3, 4, 12, 22, 23)]
    assert found == [False, True, True, True, False]
    # Dusk is at 22:24.
    assert not is_day(BERLIN, local("2026-06-21T22:10"), night="dusk-15m")
    day, night = sun_moment("dawn", BERLIN), sun_moment("dusk", BERLIN)
    part = by_sun(day, night, local("2026-06-21T12:00"))
    assert part.until_unix_s == local("2026-06-21T22:24")


def test_where_the_sun_does_not_set_it_is_day_and_where_it_does_not_rise_night() -> None:
    for hour in (0, 6, 12, 18):
        assert is_day(TROMSO, local(f"2026-06-21T{hour:02}:00", "Europe/Oslo"))
        night = local(f"2026-12-24T{hour:02}:00", "Europe/Oslo")
        assert not is_day(TROMSO, night, "sunrise", "sunset")
    # Twilight is day enough for dawn and dusk, for some hours.
    assert is_day(TROMSO, local("2026-12-24T11:00", "Europe/Oslo"))


def test_a_day_of_which_offsets_leave_nothing_is_none() -> None:
    # From dawn to dusk it is 4 h 20 min in Tromso that day.
    for minute in range(0, 24 * 60, 20):
        at = local("2026-12-24T00:00", "Europe/Oslo") + minute * 60
        assert not is_day(TROMSO, at, "dawn+2h30m", "dusk-2h30m")


def test_offsets_outwards_can_leave_no_night() -> None:
    for minute in range(0, 24 * 60, 20):
        assert is_day(BERLIN, local("2026-06-21T00:00") + minute * 60, "dawn-4h", "dusk+4h")


@given(
    latitude=st.floats(-70, 70),
    longitude=st.floats(-180, 180),
    unix_s=st.floats(1.6e9, 2.4e9),
    offset=st.integers(-180, 180),
)
def test_it_is_the_same_until_it_is_asked_again(
    latitude: float, longitude: float, unix_s: float, offset: int
) -> None:
    place = Place(latitude, longitude)
    sign = "-" if offset < 0 else "+"
    day, night = sun_moment(f"dawn{sign}{abs(offset)}m", place), sun_moment("dusk", place)
    part = by_sun(day, night, unix_s)
    assert part.until_unix_s > unix_s
    for share in (0.3, 0.9):
        later = unix_s + share * (part.until_unix_s - unix_s)
        assert by_sun(day, night, later).number == part.number


@pytest.mark.parametrize(
    ("day", "night"), [("dusk", "dawn"), ("dawn", "sunset"), ("sunrise", "dusk"), ("dawn", "dawn")]
)
def test_a_day_begins_and_ends_at_one_height_of_the_sun(day: str, night: str) -> None:
    with pytest.raises(InvalidSchedule, match="dawn and then dusk"):
        check_pair(sun_moment(day, BERLIN), sun_moment(night, BERLIN))
