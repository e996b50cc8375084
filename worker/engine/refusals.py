"""The errors that tickets get when no pass runs them."""

from collections.abc import Iterable
from typing import Any

from worker.batching.queue import Ticket
from worker.concurrency.reply import deliver
from worker.engine.runner import TicketWork
from yolopool.errors import (
    DeadlineExceeded,
    DeadlineUnmeetable,
    Draining,
    NotAssigned,
    YolopoolError,
)


def draining() -> Draining:
    return Draining("this worker is ending: ask another")


def left(version: str) -> NotAssigned:
    return NotAssigned(f"{version} left this worker: ask another")


def too_late(ticket: Ticket[Any], now: float) -> DeadlineExceeded:
    waited_s = now - ticket.arrived
    return DeadlineExceeded(f"the deadline passed after {waited_s:.3f} s in the queue")


def shed(ticket: Ticket[Any], now: float) -> DeadlineUnmeetable:
    waited_s, left_s = now - ticket.arrived, ticket.deadline - now
    return DeadlineUnmeetable(
        f"after {waited_s:.3f} s in the queue a pass would end after the deadline in {left_s:.3f} "
        "s, and others wait who can be in time: allow more time, or add workers",
        details={"waited_s": f"{waited_s:.3f}", "deadline_in_s": f"{left_s:.3f}"},
    )


def refuse(tickets: Iterable[Ticket[TicketWork]], error: YolopoolError) -> None:
    """Answers all of them with one error."""
    deliver((ticket.payload.reply, None, error) for ticket in tickets)
