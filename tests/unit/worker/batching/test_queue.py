"""The queue: bounded, no ticket lost or doubled, urgent first, fair, equal shapes together."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import (
    FOREVER,
    SQUARE,
    a_ticket,
    filled,
    numbered,
    numbers,
    some_tickets,
    taking,
)
from worker.batching import queue as batching
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BULK, INTERACTIVE, NORMAL, BatchingConfig, due_at
from worker.batching.queue import BULK_PASS_S, INTERACTIVE_MEMORY_S, Ticket
from yolopool.errors import QueueFull


def test_an_empty_queue_gives_nothing() -> None:
    taken = filled([]).next_batch(0.0)
    assert (taken.batch, taken.late, taken.again_at) == (None, (), None)


def test_a_batch_is_bounded_and_in_order_of_arrival() -> None:
    queue = filled([a_ticket(n) for n in range(6)])
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 2, 3]
    assert numbers(queue.next_batch(0.0).batch) == [4, 5]
    assert len(queue) == 0


def test_only_equal_versions_shapes_and_priorities_share_a_batch() -> None:
    queue = filled(
        [
            a_ticket(0),
            a_ticket(1, shape=(480, 640)),
            a_ticket(2, version="other@1"),
            a_ticket(3),
            a_ticket(4, shape=(480, 640)),
            a_ticket(5, priority=BULK),
        ]
    )
    batches = [numbers(queue.next_batch(0.0).batch) for _ in range(4)]
    assert batches == [[0, 3], [1, 4], [2], [5]]


def test_priority_goes_before_deadline_and_deadline_before_arrival() -> None:
    one = BatchingConfig(1)
    queue = filled(
        [
            a_ticket(0, priority=BULK, deadline=5, batching=one),
            a_ticket(1, deadline=90, batching=one),
            a_ticket(2, deadline=9, batching=one),
            a_ticket(3, priority=INTERACTIVE, deadline=99, batching=one),
        ]
    )
    assert [numbers(queue.next_batch(0.0).batch)[0] for _ in range(4)] == [3, 2, 1, 0]


def test_late_tickets_come_out_as_late_and_never_run() -> None:
    queue = filled([a_ticket(0, deadline=1), a_ticket(1, deadline=3), a_ticket(2, deadline=2)])
    taken = queue.next_batch(now=2.0)
    assert numbers(taken.batch) == [1]
    assert [ticket.number for ticket in taken.late] == [0, 2]


def test_late_tickets_of_a_version_that_is_not_there_free_their_places() -> None:
    queue = filled([a_ticket(0, deadline=1)])
    taken = queue.next_batch(2.0, ready=lambda _: False)
    assert ([ticket.number for ticket in taken.late], len(queue)) == ([0], 0)


def test_a_discarded_ticket_frees_its_place_and_never_runs() -> None:
    tickets = [a_ticket(0), a_ticket(1)]
    queue = filled(tickets, capacity=2)
    assert queue.free(tickets[0].number)
    assert not queue.free(tickets[0].number)
    queue.add(a_ticket(2), now=0.0, done_s=0.0)
    assert numbers(queue.next_batch(0.0).batch) == [1, 2]


def test_a_wait_is_that_of_what_goes_before() -> None:
    one = BatchingConfig(1)
    queue = filled(
        [
            a_ticket(0, "a@1", batching=one, deadline=50),
            a_ticket(1, "a@1", batching=one, deadline=60),
            a_ticket(2, "a@1", priority=BULK, batching=one),
            a_ticket(3, "b@1", priority=INTERACTIVE, batching=one),
        ],
        estimates=taking(a=1.0, b=10.0),
    )
    assert queue.wait_s() == pytest.approx(13.0)
    ask = AdmissionRequest("a@1", NORMAL, 55.0, 0.0, one, SQUARE)
    assert queue.wait_s(ask) == pytest.approx(12.0)
    assert queue.wait_s(replace(ask, shape=None)) == pytest.approx(11.0)
    assert queue.wait_s(replace(ask, priority=INTERACTIVE)) == pytest.approx(2.0)
    away = {"b@1": 0.5}
    assert queue.wait_s(ask, lambda version: away.get(version, 0.0)) == pytest.approx(12.5)


def test_demand_is_the_count_and_the_most_urgent() -> None:
    queue = filled([a_ticket(0), a_ticket(1, priority=INTERACTIVE), a_ticket(2, "b@1", deadline=7)])
    demand = queue.demand()
    first = (INTERACTIVE, due_at(FOREVER, 0.0), 1)
    assert (demand["m@1"].count, demand["m@1"].order) == (2, first)
    assert (demand["b@1"].count, demand["b@1"].order) == (1, (NORMAL, due_at(7.0, 0.0), 2))


class Counting(float):
    """A deadline that counts how often one is compared with another."""

    looks = 0

    def __lt__(self, other: float) -> bool:
        Counting.looks += 1
        return float.__lt__(self, other)

    def __gt__(self, other: float) -> bool:
        Counting.looks += 1
        return float.__gt__(self, other)

    def __eq__(self, other: object) -> bool:
        Counting.looks += 1
        return float.__eq__(self, other)

    __hash__ = float.__hash__


@pytest.mark.parametrize("waiting", [100, 10_000])
def test_a_decision_does_not_look_at_all_that_wait(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "due_at", lambda deadline, arrived: deadline)
    tickets = [
        a_ticket(n, priority=INTERACTIVE, deadline=Counting(1000 + n)) for n in range(waiting)
    ]
    queue = filled(tickets, capacity=waiting, estimates=taking(m=0.01))
    Counting.looks = 0
    ask = AdmissionRequest("m@1", INTERACTIVE, Counting(5000), 0.0, BatchingConfig(4), SQUARE)
    with pytest.raises(QueueFull):
        queue.reserve(-1, ask, 0.0, queue.wait_s(ask))
    queue.demand()
    queue.wait_s()
    queue.free(tickets[waiting // 2].number)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 2, 3]
    assert Counting.looks < 150


def test_the_newest_ticket_says_how_its_version_is_batched() -> None:
    queue = filled([a_ticket(n) for n in range(3)])
    queue.add(a_ticket(3, batching=BatchingConfig(2)), 0.0, 0.0)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


def test_a_ticket_that_comes_back_does_not_say_how_newer_ones_are_batched() -> None:
    queue = filled([a_ticket(n, batching=BatchingConfig(1)) for n in range(2)])
    taken = queue.next_batch(0.0).batch
    assert taken is not None
    queue.add(a_ticket(2, batching=BatchingConfig(4)), now=0.0, done_s=0.0)
    queue.put_back(taken.tickets[0])
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 2]


def test_bulk_is_cut_short_while_interactive_tickets_come() -> None:
    eight = BatchingConfig(8)
    estimates = taking(m=BULK_PASS_S / 2)
    bulk = [a_ticket(n, priority=BULK, batching=eight) for n in range(26)]
    queue = filled(bulk, estimates=estimates)
    assert len(numbers(queue.next_batch(0.0).batch)) == 8
    queue.add(a_ticket(99, priority=INTERACTIVE, batching=eight), 1.0, 0.0)
    assert numbers(queue.next_batch(1.0).batch) == [99]
    assert len(numbers(queue.next_batch(1.0).batch)) == 2
    assert len(numbers(queue.next_batch(1.0 + INTERACTIVE_MEMORY_S).batch)) == 8


@given(some_tickets, st.sets(st.integers(0, 29)), st.integers(1, 4), st.booleans())
def test_no_ticket_is_lost_doubled_or_run_late(
    drawn: list[Ticket[str]], discarded: set[int], step: int, measured: bool
) -> None:
    tickets = numbered(drawn)
    estimates = taking(a=0.02, b=0.3)
    for version, size in itertools.product(("a@1", "b@1"), (1, 2, 3)):
        estimates.record(version, SQUARE, size, 0.2 * size)
        estimates.record(version, SQUARE, size, 0.3 * size)
    queue = filled(tickets, estimates=estimates if measured else None)
    gone = {n for n in discarded if n < len(tickets) and queue.free(tickets[n].number)}
    newest = {ticket.version: ticket.batching for ticket in tickets}
    seen: list[int] = []
    for pops in itertools.count():
        now = pops * step / 4
        taken = queue.next_batch(now)
        seen += [ticket.number for ticket in (*taken.late, *taken.shed)]
        assert all(ticket.deadline <= now for ticket in taken.late)
        ran = 0 if taken.batch is None else len(taken.batch.tickets)
        assert len(taken.shed) <= ran * measured
        if taken.batch is None and taken.again_at is None:
            break
        if taken.batch is None:
            continue
        run = taken.batch.tickets
        seen += [ticket.number for ticket in run]
        assert len({(ticket.version, ticket.shape, ticket.priority) for ticket in run}) == 1
        assert len(run) <= taken.batch.images <= newest[run[0].version].max_batch
        assert all(ticket.deadline > now for ticket in run)
        assert [ticket.key for ticket in run] == sorted(ticket.key for ticket in run)
    assert sorted(seen) == sorted(set(range(len(tickets))) - gone)
    assert len(queue) == 0
    assert queue.wait_s() == 0.0
    assert queue.demand() == {}


@given(some_tickets)
def test_a_free_device_takes_who_is_most_urgent_by_class_and_then_by_deadline(
    drawn: list[Ticket[str]],
) -> None:
    plain = BatchingConfig(2)
    tickets = numbered([replace(ticket, batching=plain) for ticket in drawn])
    queue = filled(tickets)  # nothing measured: all shares are even
    left = {ticket.number: ticket for ticket in tickets}
    while left:
        batch = queue.next_batch(0.0).batch
        assert batch is not None
        first = min(left.values(), key=lambda ticket: (ticket.priority, ticket.key))
        assert batch.tickets[0] is first
        for ticket in batch.tickets:
            del left[ticket.number]


@given(some_tickets)
def test_bulk_never_runs_beyond_its_bound_beside_interactive_tickets(
    drawn: list[Ticket[str]],
) -> None:
    one_s = BULK_PASS_S / 2.5
    queue = filled(numbered(drawn), estimates=taking(a=one_s, b=one_s))
    queue.add(a_ticket(99, "a@1", priority=INTERACTIVE), 0.0, 0.0)
    # Not preemptive: whoever comes while a pass of bulk runs waits for that one alone.
    while (batch := queue.next_batch(0.5).batch) is not None:
        first = batch.tickets[0]
        if first.priority == BULK and not newest_is_fixed(drawn, first.version):
            pixels = first.shape[0] * first.shape[1] / (640 * 640)
            assert batch.images == 1 or batch.images * one_s * pixels <= BULK_PASS_S + 1e-9


def newest_is_fixed(tickets: Sequence[Ticket[str]], version: str) -> bool:
    return next(t.batching.fixed for t in reversed(tickets) if t.version == version)


def test_it_says_who_waits() -> None:
    queue = filled([a_ticket(0), a_ticket(1, "b@1"), a_ticket(2, "b@1")], capacity=64)
    assert repr(queue) == "<TicketQueue 3 waiting, 0 decoding, of 64: b@1 2, m@1 1>"
    queue.reserve(3, AdmissionRequest("m@1", NORMAL, FOREVER, 0.0, BatchingConfig(4)), 0.0, 0.0)
    queue.pop_version("b@1")
    assert repr(queue) == "<TicketQueue 1 waiting, 1 decoding, of 64: m@1 2>"
    assert repr(filled([], capacity=8)) == "<TicketQueue 0 waiting, 0 decoding, of 8>"
