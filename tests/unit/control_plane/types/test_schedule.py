"""Schedules: what is the same request, and which results are recorded."""

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
