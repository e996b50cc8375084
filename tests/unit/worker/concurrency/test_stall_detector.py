"""When something has hung, and that a process which was frozen as a whole has not."""

from worker.concurrency.stall_detector import DeviceActivity, HangLimits, StallTimer
from worker.concurrency.thread_times import Spent

BOUNDS = HangLimits(floor_s=10.0, load_s=120.0)


def test_a_pass_may_take_twice_its_estimate_and_never_less_than_the_floor() -> None:
    assert BOUNDS.limit_s(DeviceActivity("a pass", 0.0, 0.02)) == 10.0
    assert BOUNDS.limit_s(DeviceActivity("a pass", 0.0, 8.0)) == 16.0


def test_what_nobody_can_estimate_has_a_bound_of_its_own() -> None:
    assert BOUNDS.limit_s(DeviceActivity("a load", 0.0, None)) == 120.0


def test_what_moves_does_not_stand() -> None:
    timer = StallTimer(max_step_s=0.2)
    assert [timer.look(mark, now) for now, mark in enumerate("abcc")][:3] == [0.0, 0.0, 0.0]


def test_standing_is_counted_by_looks() -> None:
    timer = StallTimer(max_step_s=1.0)
    assert [timer.look("a", now / 2) for now in range(4)] == [0.0, 0.5, 1.0, 1.5]
    assert timer.look("b", 9.0) == 0.0


def test_time_in_which_nobody_looked_is_one_look() -> None:
    timer = StallTimer(max_step_s=0.2)
    timer.look("a", 0.0)
    assert timer.look("a", 3600.0) == 0.2


def test_a_wait_for_a_processor_is_no_stall_and_is_excused() -> None:
    timer = StallTimer(max_step_s=1.0)
    timer.look("a", 0.0)
    assert timer.look("a", 1.0, lambda _: Spent(0.25, 0.75)) == 0.25
    assert (timer.excused_s, timer.is_starved) == (0.75, True)
    # It slept, or it waits still: the kernel says so only when the wait is over.
    assert timer.look("a", 2.0, lambda _: Spent(0.25, 0.0)) == 1.25
    assert not timer.is_starved
    assert timer.look("a", 3.0, lambda _: Spent(0.25, 1.5)) == 0.75, "it waited for most of both"
    assert timer.look("a", 4.0, lambda _: Spent(0.25, 9.0)) == 1.0, "what it ran always counts"
    assert timer.look("a", 5.0) == 2.0
    assert timer.look("b", 6.0) == 0.0
    assert (timer.excused_s, timer.is_starved) == (0.0, False)


def test_a_late_look_explains_all_that_threads_waited_meanwhile() -> None:
    """The watching thread, too, waits for a processor: most of what it missed was no stall."""
    timer = StallTimer(max_step_s=0.5)
    timer.look("a", 0.0)
    assert timer.look("a", 3.0, lambda _: Spent(0.6, 2.4)) == 0.5
    assert (timer.excused_s, timer.is_starved) == (2.5, True)
    # The whole process was frozen for the rest, which nothing explains.
    assert timer.look("a", 60.0, lambda _: Spent(0.5, 0.0)) == 1.0
    assert timer.excused_s == 2.5


def test_nothing_under_way_is_no_stall() -> None:
    timer = StallTimer(max_step_s=1.0)
    assert [timer.look(None, float(now)) for now in range(3)] == [0.0, 0.0, 0.0]
