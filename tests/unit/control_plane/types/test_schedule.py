"""Schedules: what is the same request, and which results are recorded."""

from dataclasses import replace

from control_plane.types.moments.sun import Place, sun_moment
from control_plane.types.schedule import NEVER
from tests.unit.control_plane.models.test_due import DAY, NIGHT, schedule


def test_a_note_of_another_time_is_dropped() -> None:
    day = schedule("day", 6, "a").noted(DAY, "x: y")
    assert day.noted(DAY - 86_400, "") == day  # before it was set
    assert day.noted(DAY, "") != day
    later = day.noted(DAY + 86_400, "")
    assert later.noted(DAY, "x: y") == later


def test_the_same_words_are_the_same_schedule() -> None:
    day = schedule("day", 6, "a", "b").noted(DAY, "x: y")
    assert day.same_request(schedule("day", 6, "a", "b", since_unix_s=NIGHT))
    assert not day.same_request(schedule("day", 7, "a", "b"))
    assert not day.same_request(schedule("day", 6, "a", "c"))


def test_one_by_the_sun_has_its_moments() -> None:
    at_dusk = replace(
        schedule("night", 19, "a"), cron=NEVER, sun=sun_moment("dusk", Place(52.52, 13.405))
    )
    # In November it is dark in Berlin before seven in the evening.
    assert NIGHT - 4 * 3600 < at_dusk.next_after(DAY) < NIGHT - 2 * 3600
    assert at_dusk.latest_at(NIGHT) == at_dusk.next_after(DAY)
    assert schedule("night", 19, "a").next_after(DAY) == NIGHT
    assert not at_dusk.same_request(schedule("night", 19, "a"))
