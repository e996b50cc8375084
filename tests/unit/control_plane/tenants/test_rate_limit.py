"""A rate with a burst of one second: never more, and the delay that is told is the true one."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from control_plane.tenants.rate_limit import RateLimit

rates = st.floats(0.1, 200.0)
pauses = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60)


def limit(per_s: float) -> RateLimit:
    made = RateLimit()
    made.set_rate(per_s, 0.0)
    return made


def taken(made: RateLimit, times: Sequence[float]) -> list[float]:
    let_in = []
    for now in times:
        if made.wait_s(now) <= 0:
            made.take(now)
            let_in.append(now)
    return let_in


def moments(gaps: Sequence[float]) -> list[float]:
    now, found = 0.0, []
    for gap in gaps:
        now += gap
        found.append(now)
    return found


@given(rates, pauses)
def test_no_window_has_more_than_the_rate_and_one_second_of_burst(
    per_s: float, gaps: list[float]
) -> None:
    let_in = taken(limit(per_s), moments(gaps))
    for first, began in enumerate(let_in):
        for last in range(first, len(let_in)):
            window_s = let_in[last] - began
            assert last - first + 1 <= per_s * (window_s + 1.0) + 1 + 1e-6


@given(rates, pauses)
def test_the_delay_that_is_told_is_when_the_next_may_come_and_not_later(
    per_s: float, gaps: list[float]
) -> None:
    made = limit(per_s)
    for now in moments(gaps):
        wait_s = made.wait_s(now)
        if wait_s > 0:
            assert made.wait_s(now + wait_s * 0.99) > 0
            assert made.wait_s(now + wait_s + 1e-9) <= 1e-6
        else:
            made.take(now)


@given(st.integers(1, 100))
def test_a_second_of_it_may_come_at_once(per_s: int) -> None:
    assert len(taken(limit(per_s), [0.0] * 200)) in (per_s, per_s - 1 or 1)  # by rounding


def test_no_rate_is_no_limit_and_less_than_one_a_second_still_lets_one_in() -> None:
    assert len(taken(limit(0.0), [0.0] * 50)) == 50
    assert taken(limit(0.1), [0.0, 5.0, 9.9, 10.1]) == [0.0, 10.1]


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 100.0)), min_size=1, max_size=40))
def test_a_rate_that_changes_gives_no_burst_again(steps: list[tuple[float, float]]) -> None:
    """At most what was left, and what each rate gave in its time: a part that moves to and fro
    between control planes is no source of requests.
    """
    made, now = limit(100.0), 0.0
    let_in, given_ = 0, 100.0
    for gap, per_s in steps:
        now += gap
        given_ += gap * 100.0
        let_in += len(taken(made, [now] * 300))
        assert let_in <= given_ + len(steps) + 1
        made.set_rate(max(0.01, per_s), now)
