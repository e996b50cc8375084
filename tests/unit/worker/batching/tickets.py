"""Tickets and queues for the tests of this package."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from worker.batching.config import BULK, INTERACTIVE, NORMAL, BatchingConfig
from worker.batching.estimates import LatencyEstimates
from worker.batching.queue import Batch, Ticket, TicketQueue

FOREVER = 1e9
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


def numbered(drawn: Sequence[Ticket[str]]) -> list[Ticket[str]]:
    return [replace(ticket, number=number) for number, ticket in enumerate(drawn)]


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
