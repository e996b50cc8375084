"""Predicted times of batched requests, held against a simulated queue."""

import random

import pytest

from tests.unit.yolopool.tuning.simulated_queue import BATCHES, a_curve, simulated
from yolopool.tuning.pass_curve import PassCurve
from yolopool.tuning.pass_queue import Batched, predicted


@pytest.mark.parametrize("seed", range(6))
def test_what_is_predicted_is_what_a_simulated_queue_takes(seed: int) -> None:
    chance = random.Random(seed)
    fixed_s, image_s = chance.uniform(0.001, 0.03), chance.uniform(0.0002, 0.02)
    curve = a_curve(fixed_s, image_s, chance.choice([1.0, 1.1, 1.5]))
    largest = chance.choice(BATCHES)
    sizes = tuple(size for size in BATCHES if size <= largest) if seed % 2 else ()
    load = chance.uniform(0.05, 0.75)
    rate = load * curve.images_per_s(largest)
    expected = predicted(curve, Batched(largest, sizes), rate)
    assert expected is not None
    p99_s, busy = simulated(curve, Batched(largest, sizes), rate, chance)
    assert expected.p99_s == pytest.approx(p99_s, rel=0.2), (largest, sizes, load)
    assert expected.busy == pytest.approx(busy, abs=0.06)
    assert 1.0 <= expected.images <= largest + 1e-6


def test_a_rate_beyond_the_device_is_no_prediction() -> None:
    curve = a_curve(0.01, 0.001)
    most = curve.images_per_s(8)
    assert predicted(curve, Batched(8), 0.9 * most) is not None
    assert predicted(curve, Batched(8), most) is None
    assert predicted(curve, Batched(1), 0.9 * most) is None


def test_one_image_alone_takes_its_pass() -> None:
    expected = predicted(a_curve(0.01, 0.001), Batched(8), 0.01)
    assert expected is not None
    assert expected.p99_s == pytest.approx(0.011, rel=0.01)


def test_between_sizes_that_were_measured_a_pass_is_on_the_line() -> None:
    points = [Point(1, 10.0, 20.0), Point(4, 40.0, 40.0), Point(2, 9.0, 27.0)]
    curve = PassCurve.of("640x640", points)
    assert curve.batches == (1, 2, 4)
    assert curve.usual_s == pytest.approx((0.01, 0.01, 0.04))  # never less than a smaller one
    assert curve.slow_s == pytest.approx((0.02, 0.02, 0.08))  # the median spread is 2
    assert curve.usual_of(3) == pytest.approx(0.025)
    assert curve.usual_of(8) == pytest.approx(0.08)  # no gain beyond what was measured


class Point:
    def __init__(self, batch: int, p50_ms: float, p99_ms: float) -> None:
        self.batch, self.p50_ms, self.p99_ms = batch, p50_ms, p99_ms
