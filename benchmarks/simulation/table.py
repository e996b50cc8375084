"""Every policy and every fleet on a trace, as rows, and what must hold of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.results import Check, Row
from benchmarks.simulation import bound
from benchmarks.simulation.fleet import FLEETS, simulate
from benchmarks.simulation.outcome import Outcome
from benchmarks.simulation.policies import POLICIES, replay
from benchmarks.simulation.traces import Floats, Trace, all_traces

# What must hold.
OF_ORACLE = 0.95
OF_BELADY = 1.15
OF_GAP = 0.70
ROTATED = 0.02
# Of what LRU spends on loads: the pool and the cache see the same requests, but not each moment
# of an answer and a load.
OF_LRU = 1.01
# Models, and the scale of traces with more of them on a fleet with a tier.
MANY, BENEATH_SCALE = 200, 0.3


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds of loads, and misses a request where models are of one size; None: does not apply."""

    offline_s: float
    static_s: float | None
    belady: float | None
    belady_bypass: float | None


@dataclass(frozen=True, slots=True)
class Played:
    """One fleet and the caches it is compared with, under one trace and the same costs of loads."""

    fleet: str
    trace: Trace
    costs: Floats
    bounds: Bounds
    pool: Outcome
    caches: Mapping[str, Outcome]
    took_s: float

    @property
    def name(self) -> str:
        return f"{self.trace.name}, {self.fleet.removeprefix('pool, ')}"

    @property
    def outcomes(self) -> list[Outcome]:
        return [*self.caches.values(), self.pool]


def costs_of(trace: Trace, beneath: bool) -> Floats:
    """Seconds of one load of each model: from a tier beneath, or from the store."""
    costs = [model.swap_s + (0.0 if beneath else model.fetch_s) for model in trace.models]
    return np.array(costs, np.float64)


def games(scale: float, seed: int) -> Iterator[tuple[Trace, str]]:
    """Every trace and each fleet it is played on. A worker with a tier looks at all that it was
    assigned whenever it swaps, so that a thousand models take long: there the large traces are
    those of a few hundred.
    """
    smaller = all_traces(min(scale, BENEATH_SCALE), seed)
    for trace, less in zip(all_traces(scale, seed), smaller, strict=True):
        yield trace, "pool, no tier"
        yield (less if len(trace.models) > MANY else trace), "pool, a tier beneath"
        if trace.is_spread:
            yield trace, "pool, 4 workers"


def bounds_of(trace: Trace, costs: Floats) -> Bounds:
    ids, count = bound.counted(trace), len(trace) - trace.counted_from
    rates = trace.phases[0].rates
    room, sizes = float(trace.room_bytes), trace.sizes
    equal = trace.slots > 0
    return Bounds(
        bound.pfoo_lower(ids, sizes, costs, room),
        bound.static_knapsack(ids, rates, sizes, costs, room) if trace.is_random else None,
        bound.belady(ids, trace.slots) / count if equal else None,
        bound.belady(ids, trace.slots, bypass=True) / count if equal else None,
    )


def played(trace: Trace, fleet: str) -> Played:
    shapes = FLEETS[fleet](trace)
    costs = costs_of(trace, shapes[0].beneath)
    began = time.monotonic()
    pool = simulate(fleet, trace, shapes)
    took_s = time.monotonic() - began
    # A closed loop asks when it was answered: the caches see the moments of the pool.
    caches = {name: replay(pool.trace, costs, name) for name in POLICIES}
    return Played(fleet, pool.trace, costs, bounds_of(trace, costs), pool, caches, took_s)


def rows(one: Played) -> list[Row]:
    """A line for each policy; shares are of requests, or of loads where they say so."""
    return [
        {
            "trace": one.name,
            "policy": outcome.policy if outcome is not one.pool else "pool",
            "hit_rate": outcome.hit_rate,
            "loads_a_request": outcome.load_rate,
            "loads_s": outcome.cold_s,
            "waited_s": outcome.waited_total_s,
            "of_gap_closed": _closed(one, outcome.cold_s),
            "rotated_of_loads": outcome.in_rotation(one.costs),
            "of_best_set_of_loads": outcome.in_rotation(one.costs, clearly=1.0),
            "back_in_60s_of_loads": outcome.back_soon(),
            "p50_ms": outcome.latency_ms(0.5),
            "p99_ms": outcome.latency_ms(0.99),
            "loads_a_minute": outcome.loads_a_minute,
            "unanswered": outcome.unanswered,
        }
        for outcome in one.outcomes
    ]


def bound_row(one: Played) -> Row:
    bounds = one.bounds
    return {
        "trace": one.name,
        "requests": len(one.trace),
        "seed": one.trace.seed,
        "belady_misses_a_request": bounds.belady,
        "belady_with_bypass": bounds.belady_bypass,
        "pfoo_lower_loads_s": bounds.offline_s,
        "static_knapsack_loads_s": bounds.static_s,
        "simulated_s": float(one.trace.at[-1]),
        "took_s": one.took_s,
    }


def checks(found: Sequence[Played]) -> list[Check]:
    """Every criterion on every trace it is about."""
    made = []
    for one in found:
        made += [*_against_oracle(one), *_against_belady(one), *_gap(one), _against_lru(one)]
        made += [*_rotation(one), _answered(one)]
    return made


def _against_oracle(one: Played) -> list[Check]:
    if not one.trace.name.startswith("zipf"):
        return []
    oracle, pool = one.caches["popularity oracle"].hit_rate, one.pool.hit_rate
    ratio = pool / oracle
    detail = f"{ratio:.3f} ({pool:.3f} of {oracle:.3f})"
    return [Check(f"{one.name}: hit rate >= {OF_ORACLE} x oracle", ratio >= OF_ORACLE, detail)]


def _against_belady(one: Played) -> list[Check]:
    if not one.trace.name.startswith("cyclic") or one.bounds.belady is None:
        return []
    ratio = one.pool.load_rate / one.bounds.belady
    detail = f"{ratio:.3f} ({one.pool.load_rate:.3f} of {one.bounds.belady:.3f})"
    return [Check(f"{one.name}: loads <= {OF_BELADY} x Belady", ratio <= OF_BELADY, detail)]


def _gap(one: Played) -> list[Check]:
    share = _closed(one, one.pool.cold_s)
    if not one.trace.name.startswith("mix") or share is None or one.bounds.static_s is None:
        return []
    lru_s = one.caches["LRU"].cold_s
    offline = (lru_s - one.pool.cold_s) / (lru_s - one.bounds.offline_s)
    detail = (
        f"{share:.3f} (LRU {lru_s:.1f} s, pool {one.pool.cold_s:.1f} s, known rates "
        f"{one.bounds.static_s:.1f} s; of the gap to PFOO-L's {one.bounds.offline_s:.1f} s, which "
        f"sees the future: {offline:.3f})"
    )
    return [
        Check(f"{one.name}: >= {OF_GAP} of the gap LRU - bound closed", share >= OF_GAP, detail)
    ]


def _against_lru(one: Played) -> Check:
    ratio = one.pool.cold_s / max(one.caches["LRU"].cold_s, 1e-9)
    detail = f"{ratio:.3f} of its seconds of loads"
    return Check(f"{one.name}: never worse than LRU", ratio <= OF_LRU, detail)


def _rotation(one: Played) -> list[Check]:
    if not one.trace.is_random:
        return []
    share = one.pool.in_rotation(one.costs)
    name = f"{one.name}: models in rotation released <= {ROTATED} of loads"
    return [Check(name, share <= ROTATED, f"{share:.4f}")]


def _answered(one: Played) -> Check:
    count = one.pool.unanswered
    return Check(f"{one.name}: every request answered", count == 0, f"{count} were not")


def _closed(one: Played, cold_s: float) -> float | None:
    """Share of the gap between LRU and the bound of known rates (else the offline one)."""
    lru_s = one.caches["LRU"].cold_s
    least_s = one.bounds.static_s if one.bounds.static_s is not None else one.bounds.offline_s
    return (lru_s - cold_s) / (lru_s - least_s) if lru_s > least_s else None
