"""Estimates: medians of a window, lines between batch sizes, shapes scaled by pixels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batching.estimates import LatencyEstimates

SQUARE = (640, 640)


def measured(**seconds_by_batch: float) -> LatencyEstimates:
    estimates = LatencyEstimates()
    for batch, seconds in seconds_by_batch.items():
        estimates.record("a@1", SQUARE, int(batch[1:]), seconds)
    return estimates


def test_nothing_is_known_before_the_first_pass() -> None:
    estimates = LatencyEstimates()
    assert estimates.pass_s("a@1", SQUARE, 1) is None
    assert estimates.passes_s("a@1", SQUARE, 5, 2) == 0.0
    assert estimates.max_within("a@1", SQUARE, 8, 1.0) == 1


def test_an_outlier_does_not_move_the_estimate() -> None:
    estimates = LatencyEstimates()
    for seconds in (0.010, 0.011, 0.012, 5.0, 0.011):
        estimates.record("a@1", SQUARE, 1, seconds)
    assert estimates.pass_s("a@1", SQUARE, 1) == pytest.approx(0.0115)


def test_the_first_pass_of_a_kind_counts_only_until_the_second() -> None:
    estimates = LatencyEstimates()
    estimates.record("a@1", SQUARE, 1, 5.0)
    assert estimates.pass_s("a@1", SQUARE, 1) == 5.0
    for seconds in (0.010, 0.012):
        estimates.record("a@1", SQUARE, 1, seconds)
        assert estimates.pass_s("a@1", SQUARE, 1) == pytest.approx(0.010, abs=0.002)


def test_old_passes_are_forgotten() -> None:
    estimates = LatencyEstimates(window=3)
    for seconds in (9.0, 9.0, 9.0, 1.0, 1.0, 1.0):
        estimates.record("a@1", SQUARE, 1, seconds)
    assert estimates.pass_s("a@1", SQUARE, 1) == 1.0
    estimates.forget("a@1")
    assert estimates.pass_s("a@1", SQUARE, 1) is None


def test_what_was_not_measured_lies_on_the_line_through_its_neighbours() -> None:
    estimates = measured(n2=0.03, n4=0.05, n16=0.11)
    assert estimates.pass_s("a@1", SQUARE, 3) == pytest.approx(0.04)
    assert estimates.pass_s("a@1", SQUARE, 1) == pytest.approx(0.02)
    assert estimates.pass_s("a@1", SQUARE, 10) == pytest.approx(0.08)
    assert estimates.pass_s("a@1", SQUARE, 32) == pytest.approx(0.19)
    assert estimates.pass_s("b@1", SQUARE, 1) is None


def test_one_size_alone_is_scaled_in_proportion_and_shapes_by_pixels() -> None:
    estimates = measured(n4=0.04)
    assert estimates.pass_s("a@1", SQUARE, 8) == pytest.approx(0.08)
    assert estimates.pass_s("a@1", (320, 640), 2) == pytest.approx(0.01)


def test_images_take_their_passes() -> None:
    estimates = measured(n1=0.3, n4=0.4)
    assert estimates.passes_s("a@1", SQUARE, 9, 4) == pytest.approx(0.4 + 0.4 + 0.3)
    assert estimates.passes_s("a@1", SQUARE, 0, 4) == 0.0


def test_the_largest_batch_within_a_time() -> None:
    estimates = measured(n1=0.02, n16=0.17)
    assert estimates.max_within("a@1", SQUARE, 16, 0.0701) == 6
    assert estimates.max_within("a@1", SQUARE, 16, 9.0) == 16
    assert estimates.max_within("a@1", SQUARE, 16, 0.001) == 1


@given(st.lists(st.floats(0.001, 10.0), min_size=1), st.integers(1, 16))
def test_an_estimate_lies_within_what_was_seen(times: list[float], batch: int) -> None:
    estimates = LatencyEstimates()
    for seconds in times:
        estimates.record("a@1", SQUARE, batch, seconds)
    estimate = estimates.pass_s("a@1", SQUARE, batch)
    assert estimate is not None
    assert min(times) <= estimate <= max(times)


@given(st.dictionaries(st.integers(1, 32), st.floats(0.001, 10.0), min_size=1), st.integers(1, 64))
def test_a_guess_is_positive_and_no_wilder_than_proportion(
    times: dict[int, float], batch: int
) -> None:
    estimates = LatencyEstimates()
    for size, seconds in times.items():
        estimates.record("a@1", SQUARE, size, seconds)
    guess = estimates.pass_s("a@1", SQUARE, batch)
    assert guess is not None
    least = min(seconds * min(1.0, batch / size) for size, seconds in times.items())
    most = max(seconds * max(1.0, batch / size) for size, seconds in times.items())
    assert least * 0.999 <= guess <= most * 1.001
