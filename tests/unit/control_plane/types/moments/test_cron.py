"""Cron expressions in local time, across the nights on which clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.types.moments.cron import check_cron, latest_at, next_after, zone_of
from yolopool.errors import InvalidSchedule

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def following(cron: str, since: float, count: int, zone: str = "Europe/Berlin") -> list[float]:
    found = []
    for _ in range(count):
        since = next_after(cron, zone, since)
        found.append(since)
    return found


def test_six_in_the_morning_is_local_in_summer_and_winter() -> None:
    spring = following("0 6 * * *", utc("2026-03-28T00:00"), 2)
    assert spring == [utc("2026-03-28T05:00"), utc("2026-03-29T04:00")]
    autumn = following("0 6 * * *", utc("2026-10-24T00:00"), 2)
    assert autumn == [utc("2026-10-24T04:00"), utc("2026-10-25T05:00")]
    assert next_after("0 6 * * *", "", utc("2026-03-28T00:00")) == utc("2026-03-28T06:00")


def test_weekdays_and_days_of_the_month_are_as_cron_has_them() -> None:
    weekdays = following("0 7 * * 1-5", berlin("2026-11-20T08:00"), 2)  # a Friday
    assert weekdays == [berlin("2026-11-23T07:00"), berlin("2026-11-24T07:00")]
    either = following("0 0 13 * 5", berlin("2026-11-01T00:00"), 3)
    assert either == [berlin(f"2026-11-{day:02}T00:00") for day in (6, 13, 20)]


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/30 2 * * *", "0,30 2 29 3 *"])
def test_a_time_that_spring_skips_is_the_next_there_is(cron: str) -> None:
    (moment,) = following(cron, berlin("2026-03-29T00:00"), 1)
    assert moment == berlin("2026-03-29T03:00") == utc("2026-03-29T01:00")
    assert next_after(cron, "Europe/Berlin", moment) > moment + 12 * 3600
    assert latest_at(cron, "Europe/Berlin", berlin("2026-03-29T05:00")) == moment


def test_a_time_that_autumn_repeats_counts_once() -> None:
    first, second = utc("2026-10-25T00:30"), utc("2026-10-25T01:30")
    assert (berlin("2026-10-25T02:30"), berlin("2026-10-25T02:30", 1)) == (first, second)
    next_day = utc("2026-10-26T01:30")
    assert following("30 2 * * *", berlin("2026-10-25T00:00"), 2) == [
        first,
        utc("2026-10-26T01:30"),
    ]
    for now in (first, second - 1200, second, second + 1200, utc("2026-10-25T05:00")):
        assert latest_at("30 2 * * *", "Europe/Berlin", now) == first
        assert next_after("30 2 * * *", "Europe/Berlin", now) == next_day
    every_hour = following("0 * * * *", berlin("2026-10-25T00:30"), 4)
    assert every_hour == [
        utc(f"2026-10-{day}") for day in ("24T23:00", "25T00:00", "25T02:00", "25T03:00")
    ]


def test_a_midnight_that_is_not_there() -> None:
    gone = utc("2026-04-23T22:00")  # in Cairo the clock goes from 00:00 to 01:00
    assert next_after("0 0 * * *", "Africa/Cairo", gone - 60) == gone
    assert latest_at("0 0 * * *", "Africa/Cairo", gone + 60) == gone
    assert latest_at("0 0 * * *", "Africa/Cairo", gone - 60) == utc("2026-04-22T22:00")


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("", "five fields"),
        ("0 6 * *", "five fields"),
        ("0 0 6 * * *", "five fields"),
        ("@daily", "five fields"),
        ("61 6 * * *", "minute"),
        ("0 24 * * *", "hour"),
        ("0 6 * * MOON", "day-of-week"),
        ("0 6 ½ * *", "day-of-month"),
        ("0 0 31 2 *", "day-of-month"),
        ("0 0 30 2 *", "day-of-month"),
        ("0 0 " + ",".join(["1"] * 200) + " * *", "five fields"),
    ],
)
def test_a_line_that_is_none_says_where(cron: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        check_cron(cron)


def test_a_line_is_kept_with_single_spaces() -> None:
    assert check_cron(" 0  6 * * mon-fri ") == "0 6 * * mon-fri"


@pytest.mark.parametrize(
    "zone", ["Berlin", "Europe", "../etc/passwd", "/etc/localtime", "a\0b", "Europe" + "/e" * 300]
)
def test_a_zone_that_is_none_is_said(zone: str) -> None:
    with pytest.raises(InvalidSchedule, match="IANA"):
        zone_of(zone)


LINES = st.builds(
    lambda minute, hour, day: f"{minute} {hour} * * {day}",
    st.sampled_from(["0", "30", "*/20", "15,45", "*"]),
    st.sampled_from(["*", "0", "1-3", "2", "*/2", "2,6,19"]),
    st.sampled_from(["*", "0", "1-5", "6,0"]),
)


ZONES = ["", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]


# Around the changes of all of them in 2026, and a quiet week.
NIGHTS = [f"2026-{day}" for day in ("03-08", "03-29", "04-05", "04-24", "06-10", "10-04", "10-25")]


def walked(cron: str, zone: str, start: float, hours: int) -> list[float]:
    """By looking at every minute: the first time that the wall clock shows each matching time, or
    for one that it never shows, the next minute that there is.
    """
    line = cron.split()
    tz = ZoneInfo(zone or "UTC")
    moments, previous = [], None
    for minute in range(hours * 60):
        at = start + 60 * minute
        wall = datetime.fromtimestamp(at, tz).replace(tzinfo=None, fold=0)
        if previous is not None and wall > previous:
            shown, skipped = [wall], previous + timedelta(minutes=1)
            while skipped < wall:
                shown.append(skipped)
                skipped += timedelta(minutes=1)
            if any(matches(line, one) for one in shown):
                moments.append(at)
        previous = wall if previous is None else max(previous, wall)
    return moments


def matches(line: list[str], wall: datetime) -> bool:
    minute, hour, _, _, day = line
    values = ((minute, wall.minute), (hour, wall.hour), (day, wall.isoweekday() % 7))
    return all(in_field(text, value) for text, value in values)


def in_field(text: str, value: int) -> bool:
    if text.startswith("*"):
        return value % int(text.partition("/")[2] or 1) == 0
    ranges = (part.partition("-") for part in text.split(","))
    return any(int(low) <= value <= int(high or low) for low, _, high in ranges)


@given(LINES, st.sampled_from(ZONES), st.sampled_from(NIGHTS), st.integers(0, 36 * 60))
def test_moments_are_what_a_walk_over_the_minutes_finds(
    cron: str, zone: str, night: str, minute: int
) -> None:
    start = utc(f"{night}T00:00") - 12 * 3600
    moments = walked(cron, zone, start, 40)
    at = start + 60 * minute
    later = [moment for moment in moments if moment > at]
    if later:
        assert next_after(cron, zone, at) == later[0]
    # The walk begins with its second minute.
    earlier = [moment for moment in moments if moment <= at]
    if earlier:
        assert latest_at(cron, zone, at) == earlier[-1]
