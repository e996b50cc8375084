"""Sides take turns; nothing is lost, and of one side the oldest goes first."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.concurrency.turn_backlog import TurnBacklog


def test_a_backlog_of_one_delays_another_by_one_of_each() -> None:
    backlog: TurnBacklog[str] = TurnBacklog()
    for number in range(5):
        backlog.put("b", f"b{number}")
    assert backlog.take() == "b0"
    backlog.put("a", "a0")
    backlog.put("a", "a1")
    assert [backlog.take() for _ in range(6)] == ["b1", "a0", "b2", "a1", "b3", "b4"]
    with pytest.raises(IndexError):
        backlog.take()


sides = st.sampled_from("abc")


@given(st.lists(st.one_of(st.none(), sides), max_size=80))
def test_all_come_out_once_and_each_side_in_order(steps: list[str | None]) -> None:
    backlog: TurnBacklog[tuple[str, int]] = TurnBacklog()
    put: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []
    for number, side in enumerate(steps):
        if side is not None:
            put.append((side, number))
            backlog.put(side, put[-1])
        elif len(taken) < len(put):
            taken.append(backlog.take())
    while len(taken) < len(put):
        taken.append(backlog.take())
    assert sorted(taken) == sorted(put)
    for side in "abc":
        own = [item for item in taken if item[0] == side]
        assert own == sorted(own, key=lambda item: item[1])


@given(st.integers(1, 30), st.integers(1, 30))
def test_of_two_that_wait_neither_is_served_twice_before_the_other(a: int, b: int) -> None:
    backlog: TurnBacklog[str] = TurnBacklog()
    for side, count in (("a", a), ("b", b)):
        for _ in range(count):
            backlog.put(side, side)
    shared = Counter(backlog.take() for _ in range(2 * min(a, b)))
    assert shared == {"a": min(a, b), "b": min(a, b)}
