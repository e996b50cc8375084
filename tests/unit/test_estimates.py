"""Estimates: medians of a window, scaled where nothing was measured, summed over a queue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.estimates import Estimates, Waiting

SQUARE = (640, 640)


def test_nothing_is_known_before_the_first_pass() -> None:
    estimates = Estimates()
    assert estimates.pass_s("a@1", SQUARE, 1) is None
    assert estimates.wait_s([Waiting("a@1", SQUARE, 5, 2)]) == 0.0


def test_an_outlier_does_not_move_the_estimate() -> None:
    estimates = Estimates()
    for seconds in (0.010, 0.011, 0.012, 5.0, 0.011):
        estimates.record("a@1", SQUARE, 1, seconds)
    assert estimates.pass_s("a@1", SQUARE, 1) == pytest.approx(0.0115)


def test_the_first_pass_of_a_kind_counts_only_until_the_second() -> None:
    estimates = Estimates()
    estimates.record("a@1", SQUARE, 1, 5.0)
    assert estimates.pass_s("a@1", SQUARE, 1) == 5.0
    for seconds in (0.010, 0.012):
        estimates.record("a@1", SQUARE, 1, seconds)
        assert estimates.pass_s("a@1", SQUARE, 1) == pytest.approx(0.010, abs=0.002)


def test_old_passes_are_forgotten() -> None:
    estimates = Estimates(window=3)
    for seconds in (9.0, 9.0, 9.0, 1.0, 1.0, 1.0):
        estimates.record("a@1", SQUARE, 1, seconds)
    assert estimates.pass_s("a@1", SQUARE, 1) == 1.0
    estimates.forget("a@1")
    assert estimates.pass_s("a@1", SQUARE, 1) is None


def test_what_was_not_measured_is_scaled_from_the_nearest() -> None:
    estimates = Estimates()
    estimates.record("a@1", SQUARE, 1, 0.01)
    estimates.record("a@1", SQUARE, 4, 0.02)
    assert estimates.pass_s("a@1", SQUARE, 8) == pytest.approx(0.04)
    assert estimates.pass_s("a@1", (320, 640), 1) == pytest.approx(0.005)
    assert estimates.pass_s("b@1", SQUARE, 1) is None


def test_a_queue_takes_its_passes() -> None:
    estimates = Estimates()
    estimates.record("a@1", SQUARE, 4, 0.4)
    estimates.record("a@1", SQUARE, 1, 0.3)
    estimates.record("b@1", SQUARE, 1, 1.0)
    waiting = [Waiting("a@1", SQUARE, 9, 4), Waiting("b@1", SQUARE, 2, 1)]
    assert estimates.wait_s(waiting) == pytest.approx(0.4 + 0.4 + 0.3 + 2.0)


@given(st.lists(st.floats(0.001, 10.0), min_size=1), st.integers(1, 16))
def test_an_estimate_lies_within_what_was_seen(times: list[float], batch: int) -> None:
    estimates = Estimates()
    for seconds in times:
        estimates.record("a@1", SQUARE, batch, seconds)
    estimate = estimates.pass_s("a@1", SQUARE, batch)
    assert estimate is not None
    assert min(times) <= estimate <= max(times)
