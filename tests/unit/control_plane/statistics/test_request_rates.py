"""Rates and quantiles of the last minute, and that they take no more memory than they may."""

import tracemalloc
from random import Random

import numpy as np
import pytest

from control_plane.statistics import request_rates
from control_plane.statistics.histogram import BUCKETS, bucket_of, quantiles_ms
from control_plane.statistics.request_rates import (
    MAX_BYTES,
    STEP_S,
    STEPS,
    WINDOW_S,
    RequestRates,
)
from control_plane.types.version import VersionKey

A, B = VersionKey("a", 1), VersionKey("b", 2)


@pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
def test_a_quantile_is_right_within_an_eighth(part: float) -> None:
    rng = Random(part)
    histograms, known = np.zeros((4, BUCKETS), np.int64), [0.0]
    for number, scale in enumerate((0.5, 20.0, 3000.0)):
        taken = sorted(scale * rng.lognormvariate(0, 0.7) for _ in range(2000))
        for one in taken:
            histograms[number + 1, bucket_of(one)] += 1
        known.append(taken[int(part * len(taken))])
    assert quantiles_ms(histograms, part) == pytest.approx(known, rel=0.15)


def test_what_is_no_duration_has_a_place_too() -> None:
    for odd in (0.0, -1.0, float("nan")):
        assert bucket_of(odd) == 0
    assert bucket_of(1e12) == BUCKETS - 1


def test_the_last_minute_is_told_and_nothing_before_it() -> None:
    rates = RequestRates()
    for second in range(120):
        for _ in range(4):
            rates.answered(A, True, 20.0, 5.0, 10.0, 2, 1000.0 + second)
        rates.failed(A, False, 1000.0 + second)
    (told,) = rates.figures(1119.9)
    assert told.key == A
    assert told.requests_per_s == pytest.approx(5.0, rel=0.01)
    assert told.errors_per_s == pytest.approx(1.0, rel=0.01)
    assert told.hit_ratio == pytest.approx(0.8)
    assert (told.queue_ms, told.inference_ms, told.batch_size) == (5.0, 10.0, 2.0)
    assert told.p50_ms == told.p99_ms == pytest.approx(20.0, rel=0.13)
    assert told.steps == (5.0,) * STEPS
    assert rates.figures(1119.9 + 2 * WINDOW_S) == ()


def test_a_pause_is_in_the_steps_and_the_busiest_comes_first() -> None:
    rates = RequestRates()
    for number in range(10):
        rates.answered(A, True, 1.0, 0.0, 1.0, 1, 1000.0 + number * 0.1)
    rates.answered(B, True, 1.0, 0.0, 1.0, 1, 1000.0 + 2 * STEP_S)
    first, second = rates.figures(1000.0 + 2 * STEP_S)
    assert (first.key, second.key) == (A, B)
    assert first.steps[-3:] == (2.0, 0.0, 0.0)
    assert second.steps[-3:] == (0.0, 0.0, 0.2)
    assert first.requests_per_s == pytest.approx(10 / (WINDOW_S - STEP_S + 0.1))


def test_versions_are_bounded_and_the_one_asked_least_lately_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_rates, "MAX_VERSIONS", 3)
    rates = RequestRates()
    for number in range(3):
        rates.failed(VersionKey(f"m{number}", 1), True, 1000.0)
    rates.failed(VersionKey("m0", 1), True, 1000.0 + STEP_S)  # is asked again
    rates.failed(VersionKey("m3", 1), True, 1000.0 + STEP_S)
    assert {one.key.model for one in rates.figures(1010.0)} == {"m0", "m2", "m3"}


def test_a_version_takes_no_more_bytes_than_it_may() -> None:
    rng, count = Random(1), 50
    keys = [VersionKey(f"team/model-{number}", 1) for number in range(count)]
    tracemalloc.start()
    try:
        rates = RequestRates()
        before, _ = tracemalloc.get_traced_memory()
        for step in range(2 * STEPS):
            for key in keys:
                for _ in range(3):
                    took = rng.uniform(1, 500)
                    rates.answered(key, True, took, took / 7, took / 3, 3, step * STEP_S)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rates.figures(2 * STEPS * STEP_S)) == count
    assert after - before < count * MAX_BYTES
