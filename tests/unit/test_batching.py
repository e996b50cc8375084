"""The queue: bounded, no ticket lost or doubled, urgent first, equal shapes together."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batching import Batch, Queue, Ticket
from yolopool.errors import DeadlineUnmeetable, QueueFull

FOREVER = 1e9


def a_ticket(
    number: int,
    version: str = "m@1",
    shape: tuple[int, int] = (640, 640),
    priority: int = 2,
    deadline: float = FOREVER,
    max_batch: int = 4,
) -> Ticket[str]:
    return Ticket(number, version, shape, priority, deadline, 0.0, max_batch, f"image {number}")


def filled(tickets: Sequence[Ticket[str]], capacity: int = 1000) -> Queue[str]:
    queue: Queue[str] = Queue(capacity)
    for ticket in tickets:
        queue.add(ticket, now=0.0, done_s=0.0)
    return queue


def numbers(batch: Batch[str] | None) -> list[int]:
    assert batch is not None
    return [ticket.number for ticket in batch.tickets]


def test_an_empty_queue_gives_nothing() -> None:
    taken = filled([]).next_batch(0.0)
    assert (taken.batch, taken.late) == (None, ())


def test_a_batch_is_bounded_and_in_order_of_arrival() -> None:
    queue = filled([a_ticket(n) for n in range(6)])
    assert numbers(queue.next_batch(0.0).batch) == [0, 1, 2, 3]
    assert numbers(queue.next_batch(0.0).batch) == [4, 5]
    assert len(queue) == 0


def test_only_equal_versions_and_shapes_share_a_batch() -> None:
    queue = filled(
        [
            a_ticket(0),
            a_ticket(1, shape=(480, 640)),
            a_ticket(2, version="other@1"),
            a_ticket(3),
            a_ticket(4, shape=(480, 640)),
        ]
    )
    batches = [numbers(queue.next_batch(0.0).batch) for _ in range(3)]
    assert batches == [[0, 3], [1, 4], [2]]


def test_priority_goes_before_deadline_and_deadline_before_arrival() -> None:
    queue = filled(
        [
            a_ticket(0, priority=3, deadline=5, max_batch=1),
            a_ticket(1, priority=2, deadline=90, max_batch=1),
            a_ticket(2, priority=2, deadline=9, max_batch=1),
            a_ticket(3, priority=1, deadline=99, max_batch=1),
        ]
    )
    assert [numbers(queue.next_batch(0.0).batch)[0] for _ in range(4)] == [3, 2, 1, 0]


def test_a_full_queue_refuses_at_once_with_the_wait() -> None:
    queue = filled([a_ticket(0), a_ticket(1)], capacity=2)
    with pytest.raises(QueueFull, match="2 requests wait already") as full:
        queue.add(a_ticket(2), now=0.0, done_s=0.4)
    assert full.value.retry_after_s == 0.4
    queue.next_batch(0.0)
    queue.add(a_ticket(2), now=0.0, done_s=0.4)


def test_what_cannot_make_its_deadline_is_refused_unless_nobody_waits() -> None:
    queue = filled([a_ticket(0)])
    why = r"would be done in 2\.000 s and the deadline is in 1\.500 s"
    with pytest.raises(DeadlineUnmeetable, match=why) as refused:
        queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=2.0)
    assert refused.value.details == {"estimated_wait_s": "2.000", "deadline_in_s": "1.500"}
    assert len(queue) == 1
    queue.add(a_ticket(1, deadline=11.5), now=10.0, done_s=1.45)
    filled([]).add(a_ticket(1, deadline=11.5), now=10.0, done_s=2.6)


def test_late_tickets_come_out_as_late_and_never_run() -> None:
    queue = filled([a_ticket(0, deadline=1), a_ticket(1, deadline=3), a_ticket(2, deadline=2)])
    taken = queue.next_batch(now=2.0)
    assert numbers(taken.batch) == [1]
    assert [ticket.number for ticket in taken.late] == [0, 2]


def test_a_discarded_ticket_frees_its_place_and_never_runs() -> None:
    tickets = [a_ticket(0), a_ticket(1)]
    queue = filled(tickets, capacity=2)
    assert queue.discard(tickets[0])
    assert not queue.discard(tickets[0])
    queue.add(a_ticket(2), now=0.0, done_s=0.0)
    assert numbers(queue.next_batch(0.0).batch) == [1, 2]


def test_what_waits_is_counted_by_lane() -> None:
    queue = filled([a_ticket(0), a_ticket(1), a_ticket(2, shape=(32, 32))])
    assert sorted((lane.shape, lane.count) for lane in queue.waiting()) == [
        ((32, 32), 1),
        ((640, 640), 2),
    ]


def test_what_goes_before_a_ticket_is_counted_with_it() -> None:
    queue = filled([a_ticket(0), a_ticket(1, priority=3), a_ticket(2, "other@1", priority=1)])
    normal = [(lane.version, lane.count) for lane in queue.waiting(a_ticket(3))]
    assert sorted(normal) == [("m@1", 2), ("other@1", 1)]
    urgent = [(lane.version, lane.count) for lane in queue.waiting(a_ticket(4, priority=0))]
    assert urgent == [("m@1", 1)]


some_tickets = st.lists(
    st.builds(
        a_ticket,
        number=st.just(0),
        version=st.sampled_from(["a@1", "b@1"]),
        shape=st.sampled_from([(64, 64), (32, 64)]),
        priority=st.integers(1, 3),
        deadline=st.sampled_from([1.0, 2.0, 3.0, FOREVER]),
        max_batch=st.integers(1, 3),
    ),
    max_size=30,
)


@given(some_tickets, st.sets(st.integers(0, 29)), st.integers(1, 4))
def test_no_ticket_is_lost_doubled_or_run_late(
    drawn: list[Ticket[str]], discarded: set[int], step: int
) -> None:
    tickets = [
        a_ticket(n, t.version, t.shape, t.priority, t.deadline, t.max_batch)
        for n, t in enumerate(drawn)
    ]
    queue = filled(tickets)
    gone = {n for n in discarded if n < len(tickets) and queue.discard(tickets[n])}
    seen: list[int] = []
    for pops in itertools.count():
        now = pops * step / 4
        taken = queue.next_batch(now)
        seen += [ticket.number for ticket in taken.late]
        assert all(ticket.deadline <= now for ticket in taken.late)
        if taken.batch is None:
            break
        run = taken.batch.tickets
        seen += [ticket.number for ticket in run]
        assert len({ticket.lane for ticket in run}) == 1
        assert len(run) <= run[0].max_batch
        assert all(ticket.deadline > now for ticket in run)
        assert [ticket.order for ticket in run] == sorted(ticket.order for ticket in run)
    assert sorted(seen) == sorted(set(range(len(tickets))) - gone)
    assert len(queue) == 0


@given(some_tickets)
def test_the_most_urgent_is_always_in_the_next_batch(drawn: list[Ticket[str]]) -> None:
    tickets = [
        a_ticket(n, t.version, t.shape, t.priority, t.deadline, t.max_batch)
        for n, t in enumerate(drawn)
    ]
    queue = filled(tickets)
    left = {ticket.number: ticket for ticket in tickets}
    while left:
        batch = queue.next_batch(0.0).batch
        assert batch is not None
        assert batch.tickets[0] is min(left.values(), key=lambda ticket: ticket.order)
        for ticket in batch.tickets:
            del left[ticket.number]
