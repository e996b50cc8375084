"""What is due when, and in which order."""

from datetime import datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from control_plane.models.due import Due, due
from control_plane.types.schedule import Changeover, Preparation, Schedule

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


INFINITY = float("inf")


DAWN = berlin("2026-11-20T00:00")


DAY, NIGHT = berlin("2026-11-20T06:00"), berlin("2026-11-20T19:00")


def schedule(
    name: str, hour: int, prepare: str = "", release: str = "", **more: object
) -> Schedule:
    change = Changeover(tuple(Preparation(one) for one in prepare.split()), tuple(release.split()))
    values = {"lead_s": 0.0, "since_unix_s": DAWN, **more}
    return Schedule(name, f"0 {hour} * * *", "Europe/Berlin", change=change, **values)  # type: ignore[arg-type] # of Schedule


def open_at(now: float, *schedules: Schedule) -> list[tuple[str, bool]]:
    return [(one.schedule.name, one.has_come) for one in due(schedules, now).due]


def test_preparation_begins_before_the_moment() -> None:
    day = schedule("day", 6, "a", "b", lead_s=1800.0)
    assert due([day], DAWN + 60).next_unix_s == DAY - 1800
    assert open_at(DAY - 1801, day) == []
    assert due([day], DAY - 1800).due == (Due(DAY, day, False),)
    assert due([day], DAY - 1800).next_unix_s == DAY
    assert due([day], DAY).due == (Due(DAY, day, True),)


def test_what_releases_only_has_nothing_to_prepare() -> None:
    clean = schedule("clean", 6, "", "b", lead_s=1800.0)
    assert open_at(DAY - 60, clean) == []
    assert due([clean], DAY - 60).next_unix_s == DAY
    assert open_at(DAY, clean) == [("clean", True)]


def test_a_moment_before_it_was_set_is_none_of_it() -> None:
    late = schedule("late", 6, "a", since_unix_s=DAY + 60)
    assert open_at(DAY + 120, late) == []
    assert open_at(DAY + 24 * 3600, late) == [("late", True)]


def test_done_is_done_until_the_next_moment() -> None:
    day = schedule("day", 6, "a").noted(DAY, "")
    assert open_at(DAY + 60, day) == []
    assert open_at(DAY + 24 * 3600, day) == [("day", True)]


def test_what_failed_stays_due_while_it_is_the_latest() -> None:
    day = schedule("day", 6, "a").noted(DAY, "LEDGER_FULL: no room")
    assert open_at(DAY + 60, day) == [("day", True)]
    other = schedule("other", 7, "z")
    assert open_at(DAY + 4000, day, other) == [("day", True), ("other", True)]


def test_missed_moments_are_made_up_for_in_their_order() -> None:
    day, night = schedule("day", 6, "a", "b"), schedule("night", 19, "b", "a")
    apart = schedule("apart", 20, "z")
    later = NIGHT + 2 * 3600
    # The night waits for the day, with which it shares models; what shares none does not.
    assert open_at(later, night, apart, day) == [("day", True), ("apart", True)]
    done = day.noted(DAY, "")
    assert open_at(later, night, apart, done) == [("night", True), ("apart", True)]


def test_an_earlier_change_that_failed_gives_way_to_a_later_one() -> None:
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


def test_nothing_is_due_and_nothing_to_look_for_without_schedules() -> None:
    agenda = due([], DAWN)
    assert (agenda.due, agenda.next_unix_s) == ((), INFINITY)


HOURS = st.integers(0, 23)


@given(
    st.lists(st.tuples(HOURS, st.sampled_from("abc"), st.sampled_from("abc")), max_size=4),
    st.integers(0, 4 * 24 * 60),
)
def test_whatever_is_due_comes_to_an_end(plans: list[tuple[int, str, str]], minute: int) -> None:
    """Each round one due change comes true: every latest moment is soon done, in order."""
    now = DAWN + 60 * minute
    schedules = {
        f"s{i}": schedule(f"s{i}", hour, prepare, release)
        for i, (hour, prepare, release) in enumerate(plans)
    }
    order = []
    for _ in range(len(plans) + 1):
        come = [one for one in due(schedules.values(), now).due if one.has_come]
        if not come:
            break
        name = come[0].schedule.name
        order.append(come[0].moment_unix_s)
        schedules[name] = schedules[name].noted(come[0].moment_unix_s, "")
    agenda = due(schedules.values(), now)
    assert not [one for one in agenda.due if one.has_come]
    assert order == sorted(order)
    assert agenda.next_unix_s > now
