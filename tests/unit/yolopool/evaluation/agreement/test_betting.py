"""The test that may be looked at at any time: what it promises, and that sums add up."""

import numpy as np
import pytest

from yolopool.evaluation.agreement.betting import SHARES, Array, log_growth, log_mean

RUNS, LENGTH = 500, 200


def highest(samples: Array, bound: float) -> Array:
    """The largest wealth that each row of samples ever reaches, (2,) sides: logarithms."""
    grown = log_growth(samples.reshape(-1), np.full(samples.size, bound))
    logs = grown.reshape(*samples.shape, 2, len(SHARES)).cumsum(axis=1)
    return np.asarray(log_mean(logs).max(axis=1), np.float64)


@pytest.mark.parametrize("bound", [0.01, 0.2, 0.5, 0.8])
def test_looking_after_each_sample_is_wrong_no_more_often_than_stated(bound: float) -> None:
    # On the limit itself, where false alarms are most frequent: each of 400 samples is looked at.
    samples = (np.random.default_rng(7).random((RUNS, LENGTH)) < bound).astype(np.float64)
    most = highest(samples, bound)
    for rate in (0.1, 0.02):
        wrong = (most >= -np.log(rate)).mean(axis=0)
        # Three standard deviations of what is counted.
        assert (wrong <= rate + 3 * np.sqrt(rate / RUNS)).all(), wrong


def test_the_expected_factor_of_a_sample_on_the_limit_is_one() -> None:
    # Bernoulli samples with mean m: m x factor(1) + (1 - m) x factor(0) = 1 at every stake.
    for bound in (0.05, 0.5, 0.9):
        ones, zeros = np.exp(log_growth(np.array([1.0, 0.0]), np.array([bound, bound])))
        assert bound * ones + (1 - bound) * zeros == pytest.approx(1.0)


def test_what_is_beyond_the_limit_is_seen() -> None:
    samples = (np.random.default_rng(1).random((20, LENGTH)) < 0.5).astype(np.float64)
    most = highest(samples, 0.2)
    assert (most[:, 0] > np.log(1000)).all()
    assert (highest(samples, 0.8)[:, 1] > np.log(1000)).all()


def test_a_sample_that_is_unknown_changes_nothing() -> None:
    assert not log_growth(np.array([np.nan]), np.array([0.3])).any()


def test_an_average_of_wealths() -> None:
    assert log_mean(np.log(np.array([1.0, 3.0]))) == pytest.approx(np.log(2.0))
    weights = np.array([0.25, 0.75])
    assert log_mean(np.log(np.array([1.0, 3.0])), weights) == pytest.approx(np.log(2.5))
    # No overflow, however much was won.
    assert log_mean(np.array([2000.0, 0.0])) == pytest.approx(2000.0 - np.log(2.0))
