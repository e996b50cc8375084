"""The verdict on a curve: what grows is seen, what swings or starts is not."""

import math
from random import Random

import pytest

from benchmarks.soaking.slopes import HOUR_S, Bound, judge, slope

MINUTES = [10.0 * look for look in range(240)]  # forty minutes, a look each ten seconds
BOUND = Bound(0.05, 2.0)


def noisy(level: float, per_h: float, seed: int = 1) -> list[float]:
    rng = Random(seed)
    return [level + per_h * at / HOUR_S + rng.gauss(0, 0.5) for at in MINUTES]


def test_a_slope_is_that_of_most_pairs() -> None:
    assert slope([0, 1, 2, 3], [0, 2, 4, 6]) == 2.0
    assert slope([0, 1, 2, 3, 4], [0, 2, 400, 6, 8]) == 2.0


def test_of_one_moment_there_is_no_slope() -> None:
    with pytest.raises(ValueError, match="sample for longer"):
        slope([1.0], [5.0])


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_seen_above_the_noise(seed: int) -> None:
    assert not judge(MINUTES, noisy(100.0, 10.0, seed), BOUND).is_flat


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_leak(seed: int) -> None:
    assert judge(MINUTES, noisy(100.0, 0.0, seed), BOUND).is_flat


def test_what_fills_at_the_start_is_no_leak() -> None:
    filled = [100.0 * (1 - math.exp(-at / 200)) for at in MINUTES]
    verdict = judge(MINUTES, filled, BOUND)
    assert verdict.is_flat
    assert verdict.level == pytest.approx(100.0, abs=1.0)


def test_a_burst_now_and_then_is_no_leak() -> None:
    bursts = [100.0 + (300.0 if index % 17 == 0 else 0.0) for index in range(len(MINUTES))]
    assert judge(MINUTES, bursts, BOUND).growth_per_h == 0.0


def test_a_small_figure_may_grow_by_the_least() -> None:
    grown = [10.0 + 1.5 * at / HOUR_S for at in MINUTES]
    assert judge(MINUTES, grown, BOUND).allowed_per_h == 2.0
    assert judge(MINUTES, grown, BOUND).is_flat
