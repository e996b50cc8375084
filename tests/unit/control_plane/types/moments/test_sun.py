"""The sun's moments beside the library's own, at the date line, the poles, in polar seasons."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from astral import Observer
from astral import sun as library
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.types.moments.sun import Place, SunEvent, SunMoment, sun_moment
from yolopool.errors import InvalidSchedule

BERLIN, TROMSO = Place(52.52, 13.405), Place(69.65, 18.96)
DAY_S = 86_400


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def local(unix_s: float, zone: str) -> str:
    return datetime.fromtimestamp(unix_s, ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M")


def next_of(event: str, place: Place, unix_s: float) -> float:
    return sun_moment(event, place).next_after(unix_s)


def test_a_summer_day_in_berlin() -> None:
    morning = utc("2026-06-21T00:00")
    found = [local(next_of(event, BERLIN, morning), "Europe/Berlin") for event in SunEvent]
    assert found == [
        "2026-06-21T03:53",
        "2026-06-21T04:43",
        "2026-06-21T21:33",
        "2026-06-21T22:24",
    ]


def test_an_offset_moves_the_moment() -> None:
    noon = utc("2026-06-21T12:00")
    dusk = next_of("dusk", BERLIN, noon)
    assert next_of("dusk-15m", BERLIN, noon) == dusk - 900
    assert next_of("dusk+1h30m", BERLIN, noon) == dusk + 5400
    # Within the offset the moment is over, and the event is not.
    assert next_of("dusk-15m", BERLIN, dusk - 60) > dusk + 12 * 3600
    assert sun_moment("dusk-15m", BERLIN).latest_at(dusk - 60) == dusk - 900


@pytest.mark.parametrize(
    ("text", "offset_s", "shown"),
    [
        ("dawn", 0, "dawn"),
        ("sunrise+30m", 1800, "sunrise+30m"),
        (" sunset-2h ", -7200, "sunset-2h"),
        ("dusk-1h05m", -3900, "dusk-1h5m"),
        ("dusk+90m", 5400, "dusk+1h30m"),
        ("dusk+0m", 0, "dusk"),
        ("dawn+12h", 43200, "dawn+12h"),
    ],
)
def test_what_is_read_is_shown(text: str, offset_s: int, shown: str) -> None:
    read = sun_moment(text, BERLIN)
    assert (read.offset_s, read.text) == (offset_s, shown)
    assert sun_moment(read.text, BERLIN) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        "noon",
        "dusk-",
        "dusk-15",
        "dusk -15m",
        "dusk-15s",
        "dusk+13h",
        "DUSK",
        "dusk+m",
        "duskk",
    ],
)
def test_what_is_no_moment_of_the_sun_is_refused(text: str) -> None:
    with pytest.raises(InvalidSchedule, match=r"dusk-15m|at most 12h"):
        sun_moment(text, BERLIN)


@pytest.mark.parametrize(
    "place", [Place(90.1, 0), Place(0, 180.5), Place(float("nan"), 0), Place(0, float("inf"))]
)
def test_what_is_no_place_is_refused(place: Place) -> None:
    with pytest.raises(InvalidSchedule, match="latitude"):
        sun_moment("dusk", place)


@given(
    event=st.sampled_from(SunEvent),
    latitude=st.floats(-55, 55),
    longitude=st.floats(-180, 180),
    unix_s=st.floats(utc("2020-01-01"), utc("2060-01-01")),
)
@example(SunEvent.DUSK, 0.0, 180.0, utc("2026-11-21T06:00"))
@example(SunEvent.DAWN, 0.0, -180.0, utc("2026-11-21T06:00"))
def test_every_day_has_one(
    event: SunEvent, latitude: float, longitude: float, unix_s: float
) -> None:
    moment = SunMoment(event, 0, Place(latitude, longitude))
    after, before = moment.next_after(unix_s), moment.latest_at(unix_s)
    assert before <= unix_s < after
    assert abs(after - before - DAY_S) <= 5 * 60
    assert moment.next_after(before - 1) == before
    assert moment.latest_at(after) == after
    assert moment.absence(unix_s) == ""
    observer = Observer(latitude, longitude)
    height = library.elevation(observer, datetime.fromtimestamp(after, UTC), with_refraction=False)
    assert abs(height - event.degrees) < 0.3


@given(
    latitude=st.floats(-60, 60),
    longitude=st.floats(-90, 90),
    days=st.integers(0, 10_000),
    event=st.sampled_from([SunEvent.DAWN, SunEvent.DUSK]),
)
def test_equals_the_library_away_from_the_date_line(
    latitude: float, longitude: float, days: int, event: SunEvent
) -> None:
    day = date(2020, 1, 1) + timedelta(days=days)
    there = Observer(latitude, longitude)
    try:
        said = getattr(library, event.value)(there, day, depression=6).timestamp()
    except ValueError:
        return  # no such moment on that day
    ours = SunMoment(event, 0, Place(latitude, longitude))
    nearest = min((ours.latest_at(said), ours.next_after(said)), key=lambda at: abs(at - said))
    # Near the longest day at 60 degrees the sun sinks so slowly that refraction counts: the library
    # adds some of it.
    assert abs(nearest - said) <= 240


def test_a_polar_summer_has_no_dusk_and_says_so() -> None:
    dusk, dawn = sun_moment("dusk-15m", TROMSO), sun_moment("dawn", TROMSO)
    june = utc("2026-06-21T12:00")
    assert local(dusk.latest_at(june), "Europe/Oslo")[:10] == "2026-04-27"
    assert local(dusk.next_after(june), "Europe/Oslo")[:10] == "2026-08-14"
    # It is day until then: of both the dawn came last.
    assert dusk.latest_at(june) < dawn.latest_at(june)
    assert "is higher than at dusk, -6 degrees" in dusk.absence(june)


def test_a_polar_winter_has_no_sunrise_and_says_so() -> None:
    sunrise, sunset = sun_moment("sunrise", TROMSO), sun_moment("sunset", TROMSO)
    christmas = utc("2026-12-24T11:00")
    assert local(sunrise.next_after(christmas), "Europe/Oslo")[:10] == "2027-01-15"
    assert sunrise.latest_at(christmas) < sunset.latest_at(christmas)
    assert "does not come as high as at sunrise" in sunrise.absence(christmas)
    # There is twilight at noon even then.
    assert sun_moment("dusk", TROMSO).absence(christmas) == ""


@pytest.mark.parametrize("latitude", [90.0, -90.0, 89.0, 78.2])
@pytest.mark.parametrize("event", SunEvent)
def test_each_place_has_each_event_once_a_year(latitude: float, event: SunEvent) -> None:
    moment = SunMoment(event, 0, Place(latitude, 15.0))
    since = utc("2026-01-01T00:00")
    seen = 0
    while since < utc("2028-01-01T00:00"):
        following = moment.next_after(since)
        assert since < following < since + 400 * DAY_S
        assert moment.latest_at(following - 1) <= since or seen == 0
        since, seen = following, seen + 1
    assert seen >= 2
