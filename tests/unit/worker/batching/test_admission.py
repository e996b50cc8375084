"""Who may wait: bounded, by priority and version, and by the deadline."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.batching.tickets import FOREVER, a_ticket, filled, numbered, some_tickets
from worker.batching.admission import AdmissionRequest, places
from worker.batching.config import BULK, INTERACTIVE, NORMAL, BatchingConfig
from worker.batching.estimates import LatencyEstimates
from worker.batching.queue import Ticket, TicketQueue
from yolopool.errors import DeadlineUnmeetable, QueueFull


def test_a_full_queue_refuses_at_once_with_the_wait() -> None:
    queue = filled([a_ticket(0), a_ticket(1)], capacity=2)
    with pytest.raises(QueueFull, match="2 requests wait already") as full:
        queue.add(a_ticket(2), now=0.0, done_s=0.4)
    assert full.value.retry_after_s == 0.4
    queue.next_batch(0.0)
    queue.add(a_ticket(2), now=0.0, done_s=0.4)


def test_a_version_has_a_capacity_of_its_own() -> None:
    small = BatchingConfig(4, queue_capacity=2)
    queue = filled([a_ticket(n, batching=small) for n in range(2)])
    with pytest.raises(QueueFull, match="2 requests of m@1 wait already"):
        queue.add(a_ticket(2, batching=small), 0.0, 0.0)
    queue.add(a_ticket(3, version="other@1", batching=small), 0.0, 0.0)


def test_a_flood_of_bulk_leaves_room_for_others() -> None:
    queue = filled([a_ticket(n, priority=BULK) for n in range(6)], capacity=8)
    for priority, number in ((BULK, 6), (NORMAL, 7), (NORMAL, 8), (INTERACTIVE, 9)):
        ticket = a_ticket(number, priority=priority)
        if len(queue) < places(8, priority):
            queue.add(ticket, 0.0, 0.0)
            continue
        with pytest.raises(QueueFull):
            queue.add(ticket, 0.0, 0.0)
    assert len(queue) == 8
    with pytest.raises(QueueFull):
        queue.add(a_ticket(10, priority=INTERACTIVE), 0.0, 0.0)


def test_a_reserved_place_counts_and_is_its_tickets() -> None:
    queue = filled([a_ticket(0)], capacity=2)
    ask = AdmissionRequest("m@1", NORMAL, FOREVER, 0.0, BatchingConfig(4))
    queue.reserve(1, ask, 0.0, 0.0)
    with pytest.raises(QueueFull):
        queue.add(a_ticket(2), 0.0, 0.0)
    assert queue.reserved(1)
    queue.add(a_ticket(1), 0.0, 0.0)
    assert not queue.reserved(1)
    assert len(queue) == 2
    queue.next_batch(0.0)
    assert not queue.free(1)
    queue.reserve(3, ask, 0.0, 0.0)
    queue.reserve(4, ask, 0.0, 0.0)
    assert queue.free(3)
    assert not queue.free(3)
    queue.reserve(5, ask, 0.0, 0.0)
    with pytest.raises(QueueFull):
        queue.reserve(6, ask, 0.0, 0.0)


def test_a_reserved_place_is_kept_though_more_urgent_ones_came() -> None:
    queue = filled([], capacity=8)
    queue.reserve(0, AdmissionRequest("m@1", BULK, FOREVER, 0.0, BatchingConfig(4)), 0.0, 0.0)
    for number in range(1, 8):
        queue.add(a_ticket(number, priority=INTERACTIVE), 0.0, 0.0)
    queue.add(a_ticket(0, priority=BULK), 0.0, 0.0)
    assert len(queue) == 8


def test_what_cannot_make_its_deadline_is_refused_unless_nobody_waits() -> None:
    queue = filled([a_ticket(0)])
    why = r"would be done in 2\.000 s and the deadline is in 1\.500 s"
    with pytest.raises(DeadlineUnmeetable, match=why) as refused:
        queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=2.0)
    assert refused.value.details == {"estimated_wait_s": "2.000", "deadline_in_s": "1.500"}
    assert len(queue) == 1
    queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=1.35)
    filled([]).add(a_ticket(1, deadline=11.5), now=10.0, done_s=2.6)


def test_who_is_alone_is_let_in_whatever_an_estimate_says() -> None:
    queue, ask = filled([]), AdmissionRequest("m@1", NORMAL, 11.5, 10.0, BatchingConfig(4))
    assert queue.alone(1)
    queue.reserve(1, ask, now=10.0, done_s=99.0)
    assert queue.alone(1)
    assert not queue.alone(2)
    queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=99.0)
    assert not queue.alone(2)
    with pytest.raises(DeadlineUnmeetable):
        queue.reserve(2, ask, now=10.0, done_s=99.0)


def test_who_was_let_in_with_time_to_spare_may_use_it_up_while_its_image_is_decoded() -> None:
    queue = filled([a_ticket(0)])
    ask = AdmissionRequest("m@1", NORMAL, 11.5, 10.0, BatchingConfig(4))
    with pytest.raises(DeadlineUnmeetable, match="a tenth to spare"):
        queue.reserve(1, ask, now=10.0, done_s=1.45)
    queue.reserve(1, ask, now=10.0, done_s=1.35)
    queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=1.45)
    queue.reserve(2, ask, now=10.0, done_s=1.35)
    with pytest.raises(DeadlineUnmeetable):
        queue.add(a_ticket(2, deadline=11.5), now=10.0, done_s=1.55)


@given(some_tickets, st.integers(1, 12))
def test_the_capacity_is_never_exceeded(drawn: list[Ticket[str]], capacity: int) -> None:
    queue: TicketQueue[str] = TicketQueue(capacity, LatencyEstimates())
    for ticket in numbered(drawn):
        try:
            queue.add(ticket, 0.0, 0.0)
        except QueueFull:
            assert len(queue) >= places(capacity, ticket.priority)
        assert len(queue) <= capacity
