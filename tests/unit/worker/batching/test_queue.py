"""The queue: bounded, no ticket lost or doubled, urgent first, fair, equal shapes together."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batching import queue as batching
from worker.batching.admission import AdmissionRequest, room
from worker.batching.config import BULK, INTERACTIVE, NORMAL, BatchingConfig, due_at
from worker.batching.estimates import LatencyEstimates
from worker.batching.fair_share import SLACK_S, FairShare
from worker.batching.queue import BULK_PASS_S, INTERACTIVE_MEMORY_S, Batch, Ticket, TicketQueue
from yolopool.errors import DeadlineUnmeetable, QueueFull

FOREVER = 1e9
Cut = tuple[list[int], list[int]]
SQUARE = (640, 640)


def a_ticket(
    number: int,
    version: str = "m@1",
    shape: tuple[int, int] = SQUARE,
    priority: int = NORMAL,
    deadline: float = FOREVER,
    arrived: float = 0.0,
    batching: BatchingConfig = BatchingConfig(4),  # noqa: B008 - frozen
) -> Ticket[str]:
    payload = f"image {number}"
    return Ticket(number, version, shape, priority, deadline, arrived, batching, payload)


def taking(**seconds: float) -> LatencyEstimates:
    """Passes of one image take so long by version, and more of them in proportion."""
    estimates = LatencyEstimates()
    for name, one_s in seconds.items():
        estimates.record(f"{name}@1", SQUARE, 1, one_s)
    return estimates


def filled(
    tickets: Sequence[Ticket[str]], capacity: int = 1000, estimates: LatencyEstimates | None = None
) -> TicketQueue[str]:
    queue: TicketQueue[str] = TicketQueue(capacity, estimates or LatencyEstimates())
    for ticket in tickets:
        queue.add(ticket, now=ticket.arrived, done_s=0.0)
    return queue


def numbers(batch: Batch[str] | None) -> list[int]:
    assert batch is not None
    return [ticket.number for ticket in batch.tickets]


# --- order ------------------------------------------------------------------------------------


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


# --- who may wait -------------------------------------------------------------------------------


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
        if len(queue) < room(8, priority):
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


def test_a_discarded_ticket_frees_its_place_and_never_runs() -> None:
    tickets = [a_ticket(0), a_ticket(1)]
    queue = filled(tickets, capacity=2)
    assert queue.free(tickets[0].number)
    assert not queue.free(tickets[0].number)
    queue.add(a_ticket(2), now=0.0, done_s=0.0)
    assert numbers(queue.next_batch(0.0).batch) == [1, 2]


# --- what it takes ------------------------------------------------------------------------------


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


def test_another_versions_flood_delays_by_no_more_than_a_fair_share() -> None:
    one = BatchingConfig(1)
    flood = [a_ticket(n, "a@1", batching=one) for n in range(100)]
    queue = filled(flood, estimates=taking(a=1.0, b=1.0))
    assert queue.wait_s(
        AdmissionRequest("b@1", NORMAL, FOREVER, 0.0, one, SQUARE)
    ) == pytest.approx(2.0)
    assert queue.wait_s(
        AdmissionRequest("a@1", NORMAL, FOREVER, 0.0, one, SQUARE)
    ) == pytest.approx(101.0)


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


@pytest.mark.parametrize(("given_s", "rounded_up_s"), [(30.0, 30.1), (120.0, 121.0), (9.5, 9.51)])
def test_a_deadlines_rounding_changes_no_order(given_s: float, rounded_up_s: float) -> None:
    first = a_ticket(0, deadline=rounded_up_s)
    second = a_ticket(1, deadline=0.001 + given_s, arrived=0.001)
    assert numbers(filled([second, first]).next_batch(0.01).batch) == [0, 1]


@given(st.floats(0.001, 1e6), st.floats(0.0, 1e6))
def test_all_is_due_before_its_deadline_and_the_shorter_not_later(left: float, more: float) -> None:
    assert due_at(left, 0.0) <= left
    assert due_at(left, 0.0) <= due_at(left + more, 0.0)
    assert due_at(left, 0.0) >= 0.9 * left


# --- batches ------------------------------------------------------------------------------------


def test_a_batch_is_cut_to_a_preferred_size() -> None:
    four_or_eight = BatchingConfig(8, preferred_sizes=(4, 8))
    queue = filled([a_ticket(n, batching=four_or_eight) for n in range(15)])
    sizes = [len(numbers(queue.next_batch(0.0).batch)) for _ in range(3)]
    assert sizes == [8, 4, 3]


@pytest.mark.parametrize(
    ("batching", "sizes"),
    [
        (BatchingConfig(4), (1, 2, 3, 4)),
        (BatchingConfig(8, preferred_sizes=(4, 8)), (1, 2, 3, 4, 8)),
        (BatchingConfig(8, preferred_sizes=(2, 4)), (1, 2, 4)),
        (BatchingConfig(4, fixed=True), (4,)),
    ],
)
def test_the_sizes_that_a_pass_may_have(batching: BatchingConfig, sizes: tuple[int, ...]) -> None:
    assert batching.sizes == sizes
    seen = set()
    for waiting in range(1, 2 * batching.max_batch):
        batch = filled([a_ticket(n, batching=batching) for n in range(waiting)]).next_batch(0).batch
        assert batch is not None
        seen.add(batch.images)
    assert seen == set(sizes)


def test_the_newest_ticket_says_how_its_version_is_batched() -> None:
    queue = filled([a_ticket(n) for n in range(3)])
    queue.add(a_ticket(3, batching=BatchingConfig(2)), 0.0, 0.0)
    assert numbers(queue.next_batch(0.0).batch) == [0, 1]


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


# --- properties ---------------------------------------------------------------------------------

some_tickets = st.lists(
    st.builds(
        a_ticket,
        number=st.just(0),
        version=st.sampled_from(["a@1", "b@1"]),
        shape=st.sampled_from([SQUARE, (320, 640)]),
        priority=st.sampled_from([INTERACTIVE, NORMAL, BULK]),
        deadline=st.sampled_from([1.0, 2.0, 3.0, FOREVER]),
        batching=st.builds(
            BatchingConfig,
            max_batch=st.integers(1, 3),
            preferred_sizes=st.sampled_from([(), (2,), (2, 3)]),
            max_delay_s=st.sampled_from([0.0, 0.3]),
            fixed=st.booleans(),
        ).map(lambda one: one.within(one.max_batch)),
    ),
    max_size=30,
)


def numbered(drawn: Sequence[Ticket[str]]) -> list[Ticket[str]]:
    return [replace(ticket, number=number) for number, ticket in enumerate(drawn)]


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


@given(st.floats(0.001, 0.5), st.floats(0.001, 0.5), st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_two_versions_that_always_wait_have_equal_time(
    a_s: float, b_s: float, a_due: float, b_due: float
) -> None:
    one = BatchingConfig(1)
    queue = filled([], estimates=taking(a=a_s, b=b_s))
    count = itertools.count()
    given_s = dict.fromkeys(("a@1", "b@1"), 0.0)
    for version, more in (("a@1", a_due), ("b@1", b_due)):
        queue.add(a_ticket(next(count), version, deadline=1000 + more, batching=one), 0.0, 0.0)
    for _ in range(60):
        batch = queue.next_batch(0.0).batch
        assert batch is not None
        (ticket,) = batch.tickets
        given_s[ticket.version] += a_s if ticket.version == "a@1" else b_s
        queue.add(replace(ticket, number=next(count)), 0.0, 0.0)
        # Once both have waited, neither is further ahead than the slack and a pass.
        assert abs(given_s["a@1"] - given_s["b@1"]) <= SLACK_S + max(a_s, b_s) + 1e-9


@pytest.mark.parametrize(("share", "is_held_back"), [(0.45, False), (0.9, True)])
def test_only_who_takes_more_than_half_of_the_device_waits_for_others(
    share: float, is_held_back: bool
) -> None:
    shares, urgent_first = FairShare(), {"a@1": (1.0, 0), "b@1": (2.0, 1)}
    ran = []
    for number in range(30):
        ran.append(shares.choose(urgent_first, number * 0.01 / share))
        shares.charge(ran[-1], 0.01)
    assert ("b@1" in ran) is is_held_back


def test_who_was_away_has_no_time_saved_up() -> None:
    one = BatchingConfig(1)
    queue = filled(
        [a_ticket(n, "a@1", batching=one) for n in range(60)], estimates=taking(a=1, b=1)
    )
    for _ in range(20):
        queue.next_batch(0.0)
    for n in range(100, 140):
        queue.add(a_ticket(n, "b@1", deadline=5.0, batching=one), 0.0, 0.0)
    ran = [queue.next_batch(0.0).batch for _ in range(10)]
    shares = Counter(batch.version for batch in ran if batch is not None)
    assert abs(shares["a@1"] - shares["b@1"]) <= 2


@given(some_tickets, st.integers(1, 12))
def test_the_capacity_is_never_exceeded(drawn: list[Ticket[str]], capacity: int) -> None:
    queue: TicketQueue[str] = TicketQueue(capacity, LatencyEstimates())
    for ticket in numbered(drawn):
        try:
            queue.add(ticket, 0.0, 0.0)
        except QueueFull:
            assert len(queue) >= room(capacity, ticket.priority)
        assert len(queue) <= capacity


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
