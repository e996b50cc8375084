"""When something has hung, and that a process which was frozen as a whole has not."""

from worker.concurrency.stall_detector import DeviceActivity, HangLimits, StallTimer

BOUNDS = HangLimits(floor_s=10.0, load_s=120.0)


def test_a_pass_may_take_twice_its_estimate_and_never_less_than_the_floor() -> None:
    assert BOUNDS.limit_s(DeviceActivity("a pass", 0.0, 0.02)) == 10.0
    assert BOUNDS.limit_s(DeviceActivity("a pass", 0.0, 8.0)) == 16.0


def test_what_nobody_can_estimate_has_a_bound_of_its_own() -> None:
    assert BOUNDS.limit_s(DeviceActivity("a load", 0.0, None)) == 120.0


def test_what_moves_does_not_stand() -> None:
    standing = StallTimer(max_step_s=0.2)
    assert [standing.look(mark, now) for now, mark in enumerate("abcc")][:3] == [0.0, 0.0, 0.0]


def test_standing_is_counted_by_looks() -> None:
    standing = StallTimer(max_step_s=1.0)
    assert [standing.look("a", now / 2) for now in range(4)] == [0.0, 0.5, 1.0, 1.5]
    assert standing.look("b", 9.0) == 0.0


def test_time_in_which_nobody_looked_is_one_look() -> None:
    standing = StallTimer(max_step_s=0.2)
    standing.look("a", 0.0)
    assert standing.look("a", 3600.0) == 0.2
