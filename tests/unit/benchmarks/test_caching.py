"""Bounds and caches of the simulator, against every choice that there is on tiny traces."""

from functools import cache
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation import bound
from benchmarks.simulation.outcome import keepers
from benchmarks.simulation.policies import POLICIES, in_order, replay
from benchmarks.simulation.sizes import Model
from benchmarks.simulation.traces import Ids, Phase, Trace, cyclic, mix, zipf

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=8)


def least_cost(
    ids: list[int], sizes: list[float], costs: list[float], room: float, *, bypass: bool
) -> float:
    """Over all that may be held at the beginning, and all that may leave at every miss."""
    everything = [frozenset(some) for some in subsets(range(len(sizes)))]
    fitting = [some for some in everything if sum(sizes[one] for one in some) <= room]

    @cache
    def rest(number: int, held: frozenset[int]) -> float:
        if number == len(ids):
            return 0.0
        one = ids[number]
        if one in held:
            return rest(number + 1, held)
        after = [some for some in fitting if one in some and some - {one} <= held]
        if bypass:
            after.append(held)
        return costs[one] + min(rest(number + 1, some) for some in after)

    return min(rest(0, held) for held in fitting)


def subsets(ids: range) -> chain[tuple[int, ...]]:
    return chain.from_iterable(combinations(ids, size) for size in range(len(ids) + 1))


def array(ids: list[int]) -> Ids:
    return np.array(ids, np.int64)


def trace_of(ids: list[int], weights: list[int], room: int) -> Trace:
    counts = np.bincount(ids, minlength=len(weights)).astype(float)
    return Trace(
        "t",
        tuple(Model("n", size) for size in weights),
        array(ids),
        np.arange(len(ids), dtype=np.float64),
        room,
        room if set(weights) == {1} else 0,
        (Phase(0, counts),),
        0,
        0,
    )


@given(IDS, st.integers(1, 3), st.booleans())
def test_belady_is_the_least_of_all_choices(ids: list[int], slots: int, bypass: bool) -> None:
    least = least_cost(ids, [1.0] * 4, [1.0] * 4, slots, bypass=bypass)
    assert bound.belady(array(ids), slots, bypass=bypass) == least


@given(
    IDS,
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(4, 8),
)
def test_nothing_is_below_the_bound_of_variable_sizes(
    ids: list[int], weights: list[int], costs: list[int], room: int
) -> None:
    sizes, seconds = [float(size) for size in weights], [float(cost) for cost in costs]
    least = least_cost(ids, sizes, seconds, room, bypass=True)
    found = bound.pfoo_lower(array(ids), np.array(sizes), np.array(seconds), room)
    assert -1e-9 <= found <= least + 1e-9


@given(
    IDS,
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.lists(st.integers(1, 9), min_size=4, max_size=4),
    st.integers(1, 8),
)
def test_no_choice_of_what_stays_for_ever_is_below_the_static_bound(
    ids: list[int], weights: list[int], costs: list[int], room: int
) -> None:
    counts = np.bincount(ids, minlength=4).astype(float)
    sizes, seconds = np.array(weights, float), np.array(costs, float)
    best = min(
        sum(costs[one] for one in ids if one not in some)
        for some in subsets(range(4))
        if sum(weights[one] for one in some) <= room
    )
    assert bound.static_knapsack(array(ids), counts, sizes, seconds, room) <= best + 1e-9


@pytest.mark.parametrize(("models", "slots", "misses"), [(10, 3, 0.78), (20, 10, 0.53)])
def test_belady_on_a_cycle(models: int, slots: int, misses: float) -> None:
    """(models - slots) / (models - 1)."""
    trace = cyclic(models, slots, 4000, 10.0, 0)
    found = bound.belady(bound.counted(trace), slots) / (len(trace) - trace.counted_from)
    assert found == pytest.approx(misses, abs=0.005)


def lru_misses(ids: list[int], slots: int) -> list[bool]:
    held: list[int] = []
    missed = []
    for one in ids:
        missed.append(one not in held)
        held = [other for other in held if other != one][-(slots - 1) :] if slots > 1 else []
        held.append(one)
    return missed


@given(IDS, st.integers(1, 3))
def test_lru_is_lru(ids: list[int], slots: int) -> None:
    found = replay(trace_of(ids, [1] * 4, slots), np.ones(4), "LRU")
    assert [not hot for hot in found.hot] == lru_misses(ids, slots)


@given(
    IDS,
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.integers(4, 8),
    st.sampled_from(sorted(POLICIES)),
)
def test_a_cache_holds_what_fits_and_loads_what_it_misses(
    ids: list[int], weights: list[int], room: int, policy: str
) -> None:
    found = replay(trace_of(ids, weights, room), np.ones(4), policy)
    events = sorted(
        [(left.at, 0, left.id) for left in found.drainer]
        + [(load.at, 1, load.id) for load in found.loads]
    )
    held: set[int] = set()
    for _, came, one in events:
        assert (one in held) is not bool(came)
        held ^= {one}
        assert not came or sum(weights[other] for other in held) <= room
    assert len(found.loads) == int((~found.hot).sum())


def test_greedy_dual_keeps_what_is_dear_and_small() -> None:
    """Loaded once each: the cheapest a byte leaves, and its worth is the clock from then on."""
    found = replay(trace_of([0, 1, 2, 0, 3, 1], [2, 1, 1, 1], 4), np.array([2.0, 3, 2, 9]), "GDSF")
    # 0: 1 then 2 by its second use; 1: 3; 2: 2. 0 and 2 are worth 2; 0 leaves by its number.
    assert [left.id for left in found.drainer] == [0]
    assert list(found.hot) == [False, False, False, True, False, True]


def test_the_oracle_keeps_the_busiest_by_the_rates_of_the_phase() -> None:
    rates = (Phase(0, np.array([3.0, 2.0, 1.0])), Phase(4, np.array([1.0, 2.0, 3.0])))
    plain = trace_of([0, 1, 2, 1, 2, 0, 2, 0], [1, 1, 1], 2)
    trace = Trace("t", plain.models, plain.ids, plain.at, 2, 2, rates, 0, 0)
    found = replay(trace, np.ones(3), "popularity oracle")
    # 2 comes and 1 goes, then 1 comes and 2 goes; in the second phase 0 is the least.
    assert [left.id for left in found.drainer] == [1, 2, 0, 1]
    assert [sorted(some) for some in keepers(trace, np.ones(3))] == [[0], [2]]


@given(
    st.lists(
        st.tuples(st.floats(0, 5, width=32), st.floats(0, 5, width=32)), min_size=1, max_size=20
    )
)
def test_service_in_order_of_arrival(steps: list[tuple[float, float]]) -> None:
    at = np.cumsum([gap for gap, _ in steps])
    service = np.array([seconds for _, seconds in steps])
    free, expected = 0.0, []
    for moment, seconds in zip(at, service, strict=True):
        free = max(free, moment) + seconds
        expected.append(free - moment)
    assert in_order(at, service) == pytest.approx(expected, abs=1e-6)


def test_traces_are_the_same_for_a_seed_and_have_their_shares() -> None:
    one, again = zipf(10, 3, 1.0, 4000, 10.0, 7), zipf(10, 3, 1.0, 4000, 10.0, 7)
    assert (one.ids == again.ids).all()
    assert (one.at == again.at).all()
    shares = np.bincount(one.ids) / len(one)
    assert shares == pytest.approx(one.phases[0].rates / 10.0, abs=0.03)
    assert one.at[-1] == pytest.approx(400, rel=0.1)


def test_sizes_of_a_mix_do_not_depend_on_rank() -> None:
    trace = mix(1000, 10**10, 100, 5.0, 3)
    ranks = np.argsort(np.argsort(trace.phases[0].rates))
    assert abs(np.corrcoef(ranks, trace.sizes)[0, 1]) < 0.1
