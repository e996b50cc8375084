"""The pool against caches and bounds on short traces: the criteria of benchmarks.simulate, with
floors for traces that are too short to learn rates from.
"""

from dataclasses import replace

import pytest

from benchmarks.simulation.table import Played, bound_row, checks, played, rows
from benchmarks.simulation.traces import Trace, cyclic, mix, scan, zipf

SEED = 11
TRACES = (
    zipf(10, 3, 1.0, 800, 10.0, SEED),
    zipf(60, 8, 1.0, 1000, 15.0, SEED),
    cyclic(20, 10, 500, 10.0, SEED),
    scan(60, 10, 600, 10.0, SEED),
    mix(60, 1_100_000_000, 800, 3.0, SEED),
)
FLEETS = ("pool, no tier", "pool, a tier beneath")


def told(one: Played) -> str:
    return f"seed {one.trace.seed}: {[str(check) for check in checks([one])]}"


@pytest.mark.matrix(sample=3)
@pytest.mark.parametrize("trace", TRACES, ids=str)
@pytest.mark.parametrize("fleet", FLEETS)
def test_short_traces(trace: Trace, fleet: str) -> None:
    one = played(trace, fleet)
    pool, lru = one.pool, one.caches["LRU"]
    assert pool.unanswered == 0, told(one)
    # No simulation is better than what sees the future; requests that wait share a load.
    assert pool.cold_s >= 0.97 * one.bounds.offline_s, told(one)
    assert pool.cold_s <= 1.02 * lru.cold_s, told(one)
    if one.trace.is_random:
        assert pool.hit_rate >= 0.8 * one.caches["popularity oracle"].hit_rate, told(one)
    # What came and did not leave is there: as much as fits at most.
    on_device = len(pool.loads) - len(pool.drainer)
    assert on_device > 0
    assert not trace.slots or on_device <= trace.slots
    assert [row["policy"] for row in rows(one)] == [*one.caches, "pool"]
    assert bound_row(one)["trace"] == one.name


def test_callers_wait_for_their_answers() -> None:
    trace = replace(TRACES[0], callers=2)
    one = played(trace, "pool, a tier beneath")
    assert one.pool.unanswered == 0
    # Two at a time: whoever is third to begin does so after one of them has ended.
    ends = one.pool.trace.at + one.pool.latency_s
    begins = one.pool.trace.at
    assert all(sum(ends[:number] > begins[number]) < 2 for number in range(2, len(begins)))


def test_several_workers_hold_more_than_one_of_them() -> None:
    trace = zipf(120, 40, 1.0, 800, 15.0, SEED)
    one = played(trace, "pool, 4 workers")
    assert one.pool.unanswered == 0, told(one)
    assert one.pool.cold_s <= 1.1 * one.caches["LRU"].cold_s, told(one)
