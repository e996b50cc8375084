"""A lane cut into passes: who shares one, who is shed, and how long a pass waits for others."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import (
    SQUARE,
    a_ticket,
    filled,
    numbered,
    numbers,
    some_tickets,
    taking,
)
from worker.batching.config import BatchingConfig, due_at
from worker.batching.queue import Ticket

Cut = tuple[list[int], list[int]]


def cut(deadlines: Sequence[float], one_s: float, most: int = 4, begins: float = 0.0) -> Cut:
    """Numbers that run, and that give way, of tickets in a queue whose passes are known."""
    estimates = taking(m=one_s)
    for size in range(1, most + 1):
        for _ in range(2):
            estimates.record("m@1", SQUARE, size, size * one_s)
    tickets = [
        a_ticket(n, deadline=at, batching=BatchingConfig(most)) for n, at in enumerate(deadlines)
    ]
    taken = filled(tickets, estimates=estimates).next_batch(0.0, begins=begins)
    return numbers(taken.batch), [ticket.number for ticket in taken.shed]


def test_who_would_be_late_gives_way_to_as_many_who_can_be_in_time() -> None:
    assert cut((0.9, 1.9, 3.1, 3.2), 1.0, most=2) == ([2, 3], [0, 1])
    assert cut((0.9, 0.9, 0.9, 9.0, 9.0, 9.0), 1.0, most=2) == ([2, 3], [0, 1])
    # The device is busy until then.
    assert cut((1.3, 1.3, 9.0, 9.0), 0.1, most=2, begins=1.2) == ([2, 3], [0, 1])
    # A flood, every place of which is at its deadline.
    assert cut([0.1 * n for n in range(1, 40)], 0.1) == ([4, 5, 6, 7], [0, 1, 2, 3])


def test_nobody_gives_way_where_the_pass_would_be_smaller_for_it() -> None:
    assert cut((0.5, 0.5), 1.0) == ([0, 1], [])
    assert cut((0.5, 9.0, 9.0, 9.0, 9.0), 1.0) == ([1, 2, 3, 4], [0])
    # Neither both nor one after the other: at least the first.
    assert cut((1.5, 1.6), 1.0) == ([0], [])


def test_nobody_gives_way_before_such_passes_were_measured() -> None:
    tickets = [a_ticket(n, deadline=0.5, batching=BatchingConfig(2)) for n in range(4)]
    queue = filled(tickets, estimates=taking(m=1.0))
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


def test_who_is_in_a_hurry_goes_in_smaller_passes_where_nobody_is_late_by_it() -> None:
    patient = [20.0] * 5
    assert cut((1.5, *patient), 1.0) == ([0], [])
    assert cut((1.5, 3.5, 3.6, *patient), 1.0) == ([0], [])
    # Whoever fits beside them goes with them.
    assert cut((3.5, *patient), 1.0) == ([0, 1, 2], [])
    # Three now and one after them, all in time.
    assert cut((3.5, 3.5, 3.5, 4.45), 1.0) == ([0, 1, 2], [])
    # Those behind would be late by it.
    assert cut((1.5, 5.0, 5.0, 5.0, 5.0), 1.0) == ([1, 2, 3, 4], [0])


def test_a_batch_is_cut_to_a_preferred_size() -> None:
    four_or_eight = BatchingConfig(8, preferred_sizes=(4, 8))
    queue = filled([a_ticket(n, batching=four_or_eight) for n in range(15)])
    sizes = [len(numbers(queue.next_batch(0.0).batch)) for _ in range(3)]
    assert sizes == [8, 4, 3]


def test_a_batch_that_is_not_full_waits_as_long_as_is_asked_for() -> None:
    patient = BatchingConfig(3, max_delay_s=0.5)
    queue = filled([a_ticket(0, arrived=1.0, batching=patient)])
    queue.add(a_ticket(1, arrived=1.2, batching=patient), 1.2, 0.0)
    assert queue.next_batch(1.2).batch is None
    assert queue.next_batch(1.2).again_at == pytest.approx(1.5)
    queue.add(a_ticket(2, version="hasty@1"), 1.2, 0.0)
    assert numbers(queue.next_batch(1.3).batch) == [2]
    assert numbers(queue.next_batch(1.5).batch) == [0, 1]
    for number in (3, 4, 5):
        queue.add(a_ticket(number, arrived=2.0, batching=patient), 2.0, 0.0)
    assert numbers(queue.next_batch(2.0).batch) == [3, 4, 5]


def test_no_deadline_is_missed_by_waiting_for_company() -> None:
    patient = BatchingConfig(4, max_delay_s=5.0)
    ticket = a_ticket(0, deadline=3.0, batching=patient)
    queue = filled([ticket], estimates=taking(m=1.0))
    assert queue.next_batch(1.0).again_at == pytest.approx(due_at(3.0, 0.0) - 1.0)
    assert numbers(queue.next_batch(2.0).batch) == [0]


def test_a_fixed_batch_is_filled_up() -> None:
    fixed = BatchingConfig(4, max_delay_s=0.5, fixed=True)
    queue = filled([a_ticket(n, batching=fixed) for n in range(5)])
    full = queue.next_batch(0.0).batch
    assert full is not None
    assert (len(full.tickets), full.images) == (4, 4)
    assert queue.next_batch(0.0).batch is None
    rest = queue.next_batch(0.5).batch
    assert rest is not None
    assert (len(rest.tickets), rest.images) == (1, 4)


@given(some_tickets, st.floats(0.0, 1.0))
def test_nobody_waits_longer_than_the_delay_for_company(
    drawn: list[Ticket[str]], now: float
) -> None:
    queue = filled(numbered(drawn))
    longest = max((ticket.batching.max_delay_s for ticket in drawn), default=0.0)
    while (taken := queue.next_batch(now)).batch is not None:
        pass
    if taken.again_at is not None:
        assert now < taken.again_at <= longest
    assert not len(queue) or now < longest
