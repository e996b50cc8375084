"""The largest size that is in time: at once smaller, slowly larger, and never late without need."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import mean

from hypothesis import given
from hypothesis import strategies as st

from control_plane.routing.families.sizes import (
    CALM_S,
    MARGIN,
    STALE_S,
    Standing,
    choose_size,
    class_of,
    stepped_down,
)

RUNS_S = (0.003, 0.006, 0.010, 0.014, 0.018)  # as n to x of one design


def chosen(
    finishes: Sequence[float | None],
    left_s: float,
    standing: Standing | None = None,
    now: float = 0.0,
) -> Standing:
    return choose_size(standing, len(finishes), finishes.__getitem__, left_s, now)


def test_at_first_the_largest_that_is_in_time() -> None:
    assert chosen(RUNS_S, 1.0).size == 4
    assert chosen(RUNS_S, 0.0128).size == 2
    assert chosen(RUNS_S, 0.004).size == 0


def test_only_what_is_loaded_counts() -> None:
    assert chosen((0.003, None, 0.010, None, None), 1.0).size == 2
    assert chosen((None, None, 0.010, None, 0.018), 0.001).size == 2
    assert chosen((None, None, None), 1.0).size == 0


def test_where_none_is_in_time_the_soonest() -> None:
    # The smallest stands behind a long queue of its own worker.
    assert chosen((0.5, 0.2, 0.4), 0.1).size == 1
    assert chosen((0.5, 0.2, 0.4), 0.1, Standing(2, 0.0)).size == 1


def test_smaller_at_once() -> None:
    standing = Standing(4, 0.0)
    assert chosen([run + 0.050 for run in RUNS_S], 0.080, standing, 0.1).size == 3
    assert chosen([run + 0.072 for run in RUNS_S], 0.080, standing, 0.1).size == 0


def test_larger_after_a_calm_and_one_at_a_time() -> None:
    standing, sizes = Standing(1, 0.0), []
    for step in range(60):
        standing = chosen(RUNS_S, 0.1, standing, step / 10)
        sizes.append(standing.size)
    assert sizes == sorted(sizes)
    assert set(sizes) == {1, 2, 3, 4}
    assert sizes.index(2) == round(CALM_S * 10)


def test_a_size_that_is_not_loaded_is_stepped_over() -> None:
    finishes = (0.003, None, 0.010)
    standing = Standing(0, 0.0, roomy_since_s=0.0)
    assert chosen(finishes, 0.1, standing, CALM_S).size == 2


def test_a_moment_without_room_begins_the_calm_anew() -> None:
    standing = chosen(RUNS_S, 0.1, Standing(1, 0.0), 0.0)
    assert standing.roomy_since_s == 0.0
    standing = chosen([run + 0.06 for run in RUNS_S], 0.1, standing, CALM_S / 2)
    assert (standing.size, standing.roomy_since_s) == (1, None)
    assert chosen(RUNS_S, 0.1, standing, CALM_S + 0.1).size == 1


def test_what_was_chosen_long_ago_does_not_count() -> None:
    assert chosen(RUNS_S, 0.1, Standing(0, 0.0), STALE_S + 0.1).size == 4
    # The family had more members then.
    assert chosen(RUNS_S[:2], 0.1, Standing(4, 0.0), 0.1).size == 1


def test_a_refused_size_is_not_taken_next() -> None:
    assert stepped_down(Standing(3, 0.0), 3, 1.0).size == 2
    assert stepped_down(Standing(0, 0.0), 0, 1.0).size == 0
    # Meanwhile others were refused too.
    assert stepped_down(Standing(1, 0.0), 3, 1.0).size == 1


def test_deadlines_within_a_factor_of_two_stand_together() -> None:
    assert class_of(0.07) == class_of(0.12)
    assert class_of(0.07) != class_of(0.2)
    assert class_of(-1.0) == class_of(0.0)


FINISH = st.one_of(st.none(), st.floats(0.001, 2.0))


@given(
    finishes=st.lists(FINISH, min_size=1, max_size=6),
    left_s=st.floats(0.001, 4.0),
    size=st.integers(0, 6),
    calm_s=st.one_of(st.none(), st.floats(0.0, 10.0)),
)
def test_never_late_where_another_size_would_be_in_time(
    finishes: list[float | None], left_s: float, size: int, calm_s: float | None
) -> None:
    now = 10.0
    since = None if calm_s is None else now - calm_s
    found = chosen(finishes, left_s, Standing(size, now - 1.0, since), now)
    loaded = [seconds for seconds in finishes if seconds is not None]
    if not loaded:
        assert found.size == 0
        return
    took = finishes[found.size]
    assert took is not None, "a size that is not loaded was chosen"
    if took * MARGIN > left_s:
        assert took == min(loaded)
        assert all(seconds * MARGIN > left_s for seconds in loaded)


@given(
    waits=st.lists(st.floats(0.0, 0.2), min_size=2, max_size=200),
    left_s=st.floats(0.02, 0.5),
)
def test_it_never_grows_twice_within_a_calm(waits: list[float], left_s: float) -> None:
    standing: Standing | None = None
    grown_s: list[float] = []
    for step, wait_s in enumerate(waits):
        now = step * 0.05
        found = chosen([run + wait_s for run in RUNS_S], left_s, standing, now)
        if standing is not None and found.size > standing.size:
            grown_s.append(now)
        standing = found
    assert all(later - sooner >= CALM_S - 1e-9 for sooner, later in pairwise(grown_s))


@dataclass(frozen=True)
class Served:
    at_s: float
    size: int
    late: bool
    could: bool  # whether the smallest size would have been in time


def device(rates: Sequence[float], left_s: float, seed: int, seconds: float = 8.0) -> list[Served]:
    """One device, one request after the other, at one rate of arrivals after another."""
    rng, moment, free_s = Random(seed), 0.0, 0.0
    standing: Standing | None = None
    served: list[Served] = []
    while moment < seconds * len(rates):
        moment += rng.expovariate(rates[int(moment / seconds)])
        wait_s = max(0.0, free_s - moment)
        standing = chosen([run + wait_s for run in RUNS_S], left_s, standing, moment)
        took_s = wait_s + RUNS_S[standing.size]
        could = wait_s + RUNS_S[0] <= left_s
        served.append(Served(moment, standing.size, took_s > left_s, could))
        free_s = moment + took_s
    return served


@given(seed=st.integers(0, 1000), left_s=st.floats(0.04, 0.5))
def test_as_load_rises_the_size_falls_and_nothing_is_late_that_the_smallest_could_meet(
    seed: int, left_s: float
) -> None:
    # The largest can do 55 a second, the smallest 333.
    served = device((5.0, 40.0, 90.0, 180.0), left_s, seed)
    assert not [one for one in served if one.late and one.could]
    sizes = [mean(one.size for one in served if int(one.at_s / 8.0) == n) for n in range(4)]
    assert sizes[0] > 3.5
    assert all(later < sooner + 0.2 for sooner, later in pairwise(sizes))
    assert sizes[-1] < sizes[0] - 1.0
    grown = sum(later.size > sooner.size for sooner, later in pairwise(served))
    assert grown <= 32.0 / CALM_S
