"""Rates: what arrivals alone tell of how often something is asked for."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.replicas.usage import ReplicaUsage
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates, Arrivals


def poisson(rate: float, seconds: float, start: float = 0.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    times, now = [], start
    while (now := now + rng.expovariate(rate)) < start + seconds:
        times.append(now)
    return times


def after(times: list[float], arrivals: Arrivals | None = None) -> Arrivals:
    known = arrivals or Arrivals(NO_ARRIVALS, 0.0)
    for time in times:
        known = known.arrived(time)
    return known


@pytest.mark.parametrize("rate", [0.02, 0.2, 2.0])
def test_a_steady_rate_is_found(rate: float) -> None:
    found = [after(poisson(rate, 7200, seed=s)).now(7200.0).estimate for s in range(5)]
    assert sum(found) / 5 == pytest.approx(rate, rel=0.25)


@pytest.mark.parametrize("seconds", [20.0, 200.0, 2000.0])
def test_who_counts_since_lately_knows_as_much_as_it_saw(seconds: float) -> None:
    found = [
        after(poisson(1.0, seconds, seed=s), Arrivals(since=0.0)).now(seconds).estimate
        for s in range(9)
    ]
    assert sum(found) / 9 == pytest.approx(1.0, rel=0.25)


def test_a_burst_is_seen_in_seconds() -> None:
    cold = after(poisson(0.002, 7200))
    busy = after(poisson(2.0, 30.0, start=7200.0), cold)
    assert busy.now(7230.0).estimate > 0.5


def test_silence_is_seen_in_minutes() -> None:
    busy = after(poisson(2.0, 7200))
    assert busy.now(7200.0 + 120).estimate < 0.1 * busy.now(7200.0).estimate


def test_what_falls_silent_never_seems_busier() -> None:
    busy = after(poisson(1.0, 7200))
    estimates = [busy.now(7200.0 + wait).estimate for wait in range(0, 20_000, 40)]
    assert all(late <= early * 1.0001 for early, late in pairwise(estimates))


def test_rates_of_two_workers_add_up() -> None:
    times = poisson(1.0, 600)
    both = after(times).now(600.0)
    apart = after(times[::2]).now(600.0) + after(times[1::2]).now(600.0)
    for name in ("fast", "middle", "slow"):
        assert getattr(both, name) == pytest.approx(getattr(apart, name))


@given(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(-10, 1e5))
def test_estimates_are_rates(fast: float, middle: float, slow: float, wait: float) -> None:
    rates = ArrivalRates(fast, middle, slow).later(wait)
    assert 0.0 <= rates.estimate <= max(fast, middle, slow) + 0.1


def test_usage_tells_waits_and_share_and_forgets() -> None:
    usage = ReplicaUsage()
    for step in range(600):
        usage = usage.answered(step * 0.1, waited_s=0.2, device_s=0.05)
    assert usage.queue_s(60.0) == pytest.approx(0.2, rel=0.01)
    assert usage.busy(60.0) == pytest.approx(0.5 * (1 - 0.135), rel=0.05)
    assert usage.queue_s(160.0) < 0.01
    assert usage.busy(260.0) < 0.001
