"""Moments of cron lines, also when clocks change, and which schedules are due when."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.models.due import Due, due
from control_plane.types.cron import check_cron, latest_at, next_after, zone_of
from control_plane.types.schedule import Changeover, Preparation, Schedule
from yolopool.errors import InvalidSchedule

BERLIN = ZoneInfo("Europe/Berlin")
INFINITY = float("inf")


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


# --- moments ----------------------------------------------------------------------------------


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
def test_an_invalid_line_names_the_wrong_part(cron: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        check_cron(cron)


def test_a_line_is_kept_with_single_spaces() -> None:
    assert check_cron(" 0  6 * * mon-fri ") == "0 6 * * mon-fri"


@pytest.mark.parametrize("zone", ["Berlin", "Europe", "../etc/passwd", "/etc/localtime", "a\0b"])
def test_an_unknown_zone_is_rejected(zone: str) -> None:
    with pytest.raises(InvalidSchedule, match="IANA"):
        zone_of(zone)


LINES = st.builds(
    lambda minute, hour, day: f"{minute} {hour} * * {day}",
    st.sampled_from(["0", "30", "*/20", "15,45", "*"]),
    st.sampled_from(["*", "0", "1-3", "2", "*/2", "2,6,19"]),
    st.sampled_from(["*", "0", "1-5", "6,0"]),
)
ZONES = ["", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo"]
# Around the clock changes of these zones in 2026, and a week without one.
NIGHTS = [f"2026-{day}" for day in ("03-08", "03-29", "04-05", "04-24", "06-10", "10-04", "10-25")]


def walked(cron: str, zone: str, start: float, hours: int) -> list[float]:
    """Searches minute by minute: the first time that the wall clock shows each matching time, or,
    for a time that it skips, the next minute.
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
def test_moments_match_a_search_minute_by_minute(
    cron: str, zone: str, night: str, minute: int
) -> None:
    start = utc(f"{night}T00:00") - 12 * 3600
    moments = walked(cron, zone, start, 40)
    at = start + 60 * minute
    later = [moment for moment in moments if moment > at]
    if later:
        assert next_after(cron, zone, at) == later[0]
    # The search starts with its second minute.
    earlier = [moment for moment in moments if moment <= at]
    if earlier:
        assert latest_at(cron, zone, at) == earlier[-1]


# --- what is due ------------------------------------------------------------------------------

DAWN = berlin("2026-11-20T00:00")
DAY, NIGHT = berlin("2026-11-20T06:00"), berlin("2026-11-20T19:00")


def schedule(
    name: str, hour: int, prepare: str = "", release: str = "", **more: object
) -> Schedule:
    change = Changeover(tuple(map(Preparation, prepare.split())), tuple(release.split()))
    values = {"lead_s": 0.0, "since_unix_s": DAWN, **more}
    return Schedule(name, f"0 {hour} * * *", "Europe/Berlin", change=change, **values)  # type: ignore[arg-type] # of Schedule


def open_at(now: float, *schedules: Schedule) -> list[tuple[str, bool]]:
    return [(found.schedule.name, found.has_come) for found in due(schedules, now).due]


def test_preparation_begins_before_the_moment() -> None:
    day = schedule("day", 6, "a", "b", lead_s=1800.0)
    assert due([day], DAWN + 60).next_unix_s == DAY - 1800
    assert open_at(DAY - 1801, day) == []
    assert due([day], DAY - 1800).due == (Due(DAY, day, False),)
    assert due([day], DAY - 1800).next_unix_s == DAY
    assert due([day], DAY).due == (Due(DAY, day, True),)


def test_a_schedule_that_only_releases_prepares_nothing() -> None:
    clean = schedule("clean", 6, "", "b", lead_s=1800.0)
    assert open_at(DAY - 60, clean) == []
    assert due([clean], DAY - 60).next_unix_s == DAY
    assert open_at(DAY, clean) == [("clean", True)]


def test_a_moment_before_the_schedule_was_set_is_not_due() -> None:
    late = schedule("late", 6, "a", since_unix_s=DAY + 60)
    assert open_at(DAY + 120, late) == []
    assert open_at(DAY + 24 * 3600, late) == [("late", True)]


def test_a_moment_that_succeeded_is_not_due_again() -> None:
    day = schedule("day", 6, "a").noted(DAY, "")
    assert open_at(DAY + 60, day) == []
    assert open_at(DAY + 24 * 3600, day) == [("day", True)]


def test_a_moment_that_failed_stays_due_while_it_is_the_latest() -> None:
    day = schedule("day", 6, "a").noted(DAY, "LEDGER_FULL: no room")
    assert open_at(DAY + 60, day) == [("day", True)]
    other = schedule("other", 7, "z")
    assert open_at(DAY + 4000, day, other) == [("day", True), ("other", True)]


def test_missed_moments_are_carried_out_in_order() -> None:
    day, night = schedule("day", 6, "a", "b"), schedule("night", 19, "b", "a")
    apart = schedule("apart", 20, "z")
    later = NIGHT + 2 * 3600
    # The night shares models with the day, and waits for it; the third shares none, and does not.
    assert open_at(later, night, apart, day) == [("day", True), ("apart", True)]
    done = day.noted(DAY, "")
    assert open_at(later, night, apart, done) == [("night", True), ("apart", True)]


def test_a_failed_change_is_not_retried_after_a_later_one() -> None:
    day = schedule("day", 6, "a", "b").noted(DAY, "LOAD_FAILED: a")
    night = schedule("night", 19, "b@2", "a")
    assert open_at(NIGHT, day, night) == [("night", True)]
    assert open_at(NIGHT, day, night.noted(NIGHT, "")) == []
    assert open_at(NIGHT, day, night.noted(NIGHT, "NO_WORKER: none")) == [("night", True)]


def test_two_at_one_moment_are_both_due() -> None:
    one, two = schedule("one", 6, "a"), schedule("two", 6, "a")
    assert open_at(DAY, two, one) == [("one", True), ("two", True)]
    failed = one.noted(DAY, "x: y"), two.noted(DAY, "")
    assert open_at(DAY, *failed) == [("one", True)]


def test_without_schedules_nothing_is_due() -> None:
    agenda = due([], DAWN)
    assert (agenda.due, agenda.next_unix_s) == ((), INFINITY)


def test_a_note_of_an_earlier_moment_is_dropped() -> None:
    day = schedule("day", 6, "a").noted(DAY, "x: y")
    assert day.noted(DAY - 86_400, "") == day  # before it was set
    assert day.noted(DAY, "") != day
    later = day.noted(DAY + 86_400, "")
    assert later.noted(DAY, "x: y") == later


def test_two_schedules_that_ask_for_the_same_are_one_request() -> None:
    day = schedule("day", 6, "a", "b").noted(DAY, "x: y")
    assert day.same_request(schedule("day", 6, "a", "b", since_unix_s=NIGHT))
    assert not day.same_request(schedule("day", 7, "a", "b"))
    assert not day.same_request(schedule("day", 6, "a", "c"))


HOURS = st.integers(0, 23)


@given(
    st.lists(st.tuples(HOURS, st.sampled_from("abc"), st.sampled_from("abc")), max_size=4),
    st.integers(0, 4 * 24 * 60),
)
def test_all_due_changes_are_carried_out_in_the_end(
    plans: list[tuple[int, str, str]], minute: int
) -> None:
    """One due change succeeds each round: soon every latest moment is done, in order."""
    now = DAWN + 60 * minute
    schedules = {
        f"s{i}": schedule(f"s{i}", hour, prepare, release)
        for i, (hour, prepare, release) in enumerate(plans)
    }
    order = []
    for _ in range(len(plans) + 1):
        come = [found for found in due(schedules.values(), now).due if found.has_come]
        if not come:
            break
        name = come[0].schedule.name
        order.append(come[0].moment_unix_s)
        schedules[name] = schedules[name].noted(come[0].moment_unix_s, "")
    agenda = due(schedules.values(), now)
    assert not [found for found in agenda.due if found.has_come]
    assert order == sorted(order)
    assert agenda.next_unix_s > now
