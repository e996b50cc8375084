"""The knee: worth its latency beside all smaller ones, and no larger one is beside it."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolopool.evaluation.knee import GAIN, knee


@dataclass(frozen=True)
class Point:
    batch: int
    images_per_s: float

    @property
    def p50_ms(self) -> float:
        return 1000 * self.batch / self.images_per_s


def worth(larger: Point, smaller: Point, gain: float) -> bool:
    doublings = math.log2(larger.batch / smaller.batch)
    return larger.images_per_s >= smaller.images_per_s * math.pow(1 + gain, doublings)


points = st.lists(
    st.builds(Point, st.integers(1, 256), st.floats(0.1, 1e4)),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one.batch,
)


def test_a_device_that_is_full_at_four() -> None:
    curve = [Point(1, 100), Point(2, 190), Point(4, 300), Point(8, 310), Point(16, 315)]
    found = knee(curve)
    assert (found.batch, found.next_batch) == (4, 8)
    assert found.more_images == pytest.approx(10 / 300)
    assert found.more_latency == pytest.approx(2 / (310 / 300) - 1)
    assert found.says() == (
        "batch 4, 300 images/s at 13.3 ms a pass: 8 gives +3% images/s for +94% latency, and a "
        "doubling must give +10%"
    )


def test_one_slow_point_is_not_taken_for_the_knee() -> None:
    curve = [Point(1, 100), Point(2, 101), Point(4, 200), Point(8, 205)]
    assert knee(curve).batch == 4


def test_a_throughput_that_grows_has_its_knee_at_the_end() -> None:
    found = knee([Point(batch, 50.0 * batch) for batch in (8, 1, 2, 4)])
    assert (found.batch, found.next_batch) == (8, 0)
    assert found.says().endswith("no larger one was measured")


def test_a_flat_throughput_has_it_at_the_start() -> None:
    assert knee([Point(batch, 20.0) for batch in (1, 2, 4, 8)]).batch == 1


def test_nothing_has_no_knee() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        knee([])


@given(points)
def test_no_larger_one_is_worth_it_and_for_each_smaller_one_it_is(curve: list[Point]) -> None:
    at = next(one for one in curve if one.batch == knee(curve).batch)
    # Not just at the edge, where rounding decides.
    assert not any(worth(one, at, GAIN + 1e-6) for one in curve if one.batch > at.batch)
    assert all(worth(at, one, GAIN - 1e-6) for one in curve if one.batch < at.batch)


@given(points, st.integers(1, 256))
def test_it_does_not_depend_on_what_was_measured_beyond_it(curve: list[Point], last: int) -> None:
    found = knee(curve)
    shorter = [one for one in curve if one.batch <= max(last, found.batch)]
    assert knee(shorter).batch == found.batch


@given(points, st.sampled_from([0.25, 0.5, 2.0, 64.0]))
def test_it_does_not_depend_on_the_speed_of_the_device(curve: list[Point], factor: float) -> None:
    faster = [Point(one.batch, one.images_per_s * factor) for one in curve]
    assert knee(faster).batch == knee(curve).batch


@given(points, st.floats(0.01, 0.9), st.floats(0.01, 0.9))
def test_who_asks_for_more_gets_no_larger_one(curve: list[Point], a: float, b: float) -> None:
    assert knee(curve, max(a, b)).batch <= knee(curve, min(a, b)).batch
