"""What was under way while the machine stood still, and for how long it did."""

from benchmarks.harness.loadgen import Load, Outcome, Window
from benchmarks.harness.standstill import stood_s, undisturbed


def load(*times: tuple[float, float]) -> Load:
    """Requests by when they were meant to start and ended, of a load that began at 100 s."""
    outcomes = tuple(Outcome(begin, begin, end, "", {}) for begin, end in times)
    return Load(outcomes, Window(1.0, 11.0), 0.0, began_s=100.0)


def test_what_was_under_way_in_a_standstill_and_as_long_behind_it_is_left_out() -> None:
    before, within, behind, later = (1.9, 2.0), (2.1, 2.3), (2.55, 2.56), (2.7, 2.8)
    across, warm_up = (1.5, 3.0), (0.5, 0.6)
    one = load(before, within, behind, later, across, warm_up)
    left = [(o.intended_s, o.finished_s) for o in undisturbed(one, [(102.05, 102.35)])]
    assert left == [before, later]


def test_with_no_standstill_everything_measured_is_left() -> None:
    one = load((1.0, 2.0), (3.0, 4.0), (0.5, 2.0))
    assert undisturbed(one, []) == one.measured() == one.outcomes[:2]


def test_cores_that_stood_at_once_count_once_and_only_in_the_window() -> None:
    spans = [(100.5, 101.5), (103.0, 104.0), (103.5, 104.5), (110.5, 112.0), (103.2, 103.4)]
    assert stood_s(load(), spans) == 0.5 + 1.5 + 0.5
