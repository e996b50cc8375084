"""The value of keeping a replica: it grows with demand and load time, and falls with size."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.scheduling import retention
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.footprint import Footprint
from control_plane.types.version import DeviceVariant
from tests.unit.control_plane.fleets import (
    NOW,
    key,
    measured,
    replica,
    snapshot,
    version,
    want,
    worker,
)
from yolopool.server.arrival_rates import ArrivalRates, Arrivals
from yolopool.vocabulary import Priority

SIM = DeviceVariant.usual("sim")


def value(
    rate: float = 1.0,
    weights: int = 10,
    swap_ms: float = 50.0,
    priority: Priority = Priority.NORMAL,
    copies: int = 1,
) -> float:
    held = replica("a", weights, rate=rate)
    fleet = [worker(f"w{n}", 10**6, [held]) for n in range(copies)]
    placed = version("a", weights)
    times = {measured("a"): Footprint(weights, 0, swap_ms=swap_ms, fetch_ms=50.0)}
    before = snapshot(fleet, [want("a")], [placed], footprints=times, unix_s=10.0)
    proposed = ProposedFleet.of(before, NOW)
    return retention.replica_value(proposed, before, proposed.workers["w0"], held, NOW, priority)


@given(st.floats(0.01, 100.0), st.integers(1, 1000), st.floats(1.0, 5000.0))
def test_more_demand_a_slower_load_and_fewer_bytes_are_worth_more(
    rate: float, weights: int, swap_ms: float
) -> None:
    base = value(rate, weights, swap_ms)
    assert value(2 * rate, weights, swap_ms) > base > value(rate, 2 * weights, swap_ms) > 0
    assert value(rate, weights, 2 * swap_ms) > base


def test_priorities_weigh_and_copies_share() -> None:
    base = value()
    assert value(priority=Priority.INTERACTIVE) == pytest.approx(4 * base)
    assert value(priority=Priority.BULK) == pytest.approx(base / 4)
    # Two copies see twice the requests in all, and share what they save.
    assert value(copies=2) == pytest.approx(base)
    assert value(rate=0.0) == 0.0


def test_a_cold_start_is_measured_or_estimated() -> None:
    fresh = version("a", 1_250_000_000)
    assert retention.cold_start_s(fresh, SIM, {}) == pytest.approx(1.05)
    times = {measured("a"): Footprint(10, 0, swap_ms=100.0, fetch_ms=400.0)}
    assert retention.cold_start_s(fresh, SIM, times) == pytest.approx(0.5)
    unfetched = {measured("a"): Footprint(10, 0, swap_ms=100.0)}
    assert retention.cold_start_s(fresh, SIM, unfetched) == pytest.approx(1.15)
    assert retention.cold_start_s(replace(fresh, pack=None), SIM, {}) == 0.0


def test_requests_to_workers_that_had_it_still_count() -> None:
    before = snapshot([worker("w", replicas=[replica("a", rate=2.0)])], [want("a")])
    gone = {key("a"): Arrivals(ArrivalRates(3.0, 3.0, 3.0), NOW)}
    before = replace(before, departed=gone)
    fleet = ProposedFleet.of(before, NOW)
    assert retention.rates(fleet, before, key("a"), NOW).slow == pytest.approx(5.0)


def test_per_gib() -> None:
    assert retention.per_gib(2.0, 0.5, retention.GIB // 2) == pytest.approx(2.0)
    assert retention.per_gib(2.0, 0.5, 0) > 0
