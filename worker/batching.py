"""The bounded queue of tickets before the device, and which of them run together.

Pure. Order is priority, then deadline, then arrival. Only tickets of one version and one
letterboxed shape share a batch, so that an image's answer does not depend on its neighbours.
"""

import heapq
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.estimates import Shape, Waiting
from yolopool.errors import DeadlineUnmeetable, QueueFull

P = TypeVar("P")
Lane = tuple[str, Shape, int]


def _any_version(version: str) -> bool:
    return True


def _no_limit(version: str, shape: Shape) -> int:
    return sys.maxsize


@dataclass(frozen=True, slots=True, eq=False)
class Ticket(Generic[P]):
    """One request before the device; the payload is the shell's and is not looked at here.

    `number` grows with arrival; a lower `priority` goes first; `deadline` and `arrived` are
    seconds of one clock; `max_batch` is that of the variant.
    """

    number: int
    version: str
    shape: Shape
    priority: int
    deadline: float
    arrived: float
    max_batch: int
    payload: P

    @property
    def order(self) -> tuple[int, float, int]:
        return (self.priority, self.deadline, self.number)

    @property
    def lane(self) -> Lane:
        return (self.version, self.shape, self.max_batch)


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits for one version: how many, and the order of the most urgent."""

    count: int
    order: tuple[int, float, int]

    @property
    def priority(self) -> int:
        return self.order[0]


@dataclass(frozen=True, slots=True)
class Batch(Generic[P]):
    """Tickets to run in one pass (never empty), all of one version and shape."""

    version: str
    shape: Shape
    tickets: tuple[Ticket[P], ...]


@dataclass(frozen=True, slots=True)
class Taken(Generic[P]):
    """What left the queue: a batch to run, if any, and tickets whose deadline has passed."""

    batch: Batch[P] | None
    late: tuple[Ticket[P], ...]


class Queue(Generic[P]):
    """Bounded: `capacity` tickets wait at most, and one more is refused at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Heaps of (order, ticket) by lane; discarded tickets are only marked, and leave when
        # they come up. `_live` is the truth about who waits.
        self._lanes: dict[Lane, list[tuple[tuple[int, float, int], int]]] = {}
        self._live: dict[int, Ticket[P]] = {}

    def __len__(self) -> int:
        return len(self._live)

    def add(self, ticket: Ticket[P], now: float, done_s: float) -> None:
        """Takes a ticket, or raises QueueFull (no room) or DeadlineUnmeetable (no time).

        `done_s` estimates when it would be answered. Time is a reason only behind others: an
        estimate that is wrong is put right by the pass it let through.
        """
        if len(self._live) >= self.capacity:
            raise QueueFull(
                f"{self.capacity} requests wait already: try again later or add workers",
                retry_after_s=done_s,
            )
        left_s = ticket.deadline - now
        if self._live and done_s >= left_s:
            raise DeadlineUnmeetable(
                f"would be done in {done_s:.3f} s and the deadline is in {left_s:.3f} s: allow "
                "more time, send fewer at a time, or add workers",
                retry_after_s=done_s,
                details={
                    "estimated_wait_s": f"{done_s:.3f}",
                    "deadline_in_s": f"{left_s:.3f}",
                },
            )
        self._live[ticket.number] = ticket
        heapq.heappush(self._lanes.setdefault(ticket.lane, []), (ticket.order, ticket.number))

    def discard(self, ticket: Ticket[P]) -> bool:
        """Frees the place of a ticket that nobody waits for; False if it left already."""
        return self._live.pop(ticket.number, None) is not None

    def next_batch(
        self,
        now: float,
        ready: Callable[[str], bool] = _any_version,
        most: Callable[[str, Shape], int] = _no_limit,
    ) -> Taken[P]:
        """Takes the most urgent ticket of a version that is `ready`, and those that may share
        its pass, `most` of a version and shape; never waits.

        Late tickets that come up on the way are taken out too, for the shell to answer.
        """
        late: list[Ticket[P]] = []
        while (lane := self._most_urgent(ready)) is not None:
            first = self._pop(lane, now, late)
            if first is None:
                continue
            tickets = [first]
            limit = min(first.max_batch, most(first.version, first.shape))
            while len(tickets) < limit:
                ticket = self._pop(lane, now, late)
                if ticket is None:
                    break
                tickets.append(ticket)
            return Taken(Batch(first.version, first.shape, tuple(tickets)), tuple(late))
        return Taken(None, tuple(late))

    def take(self, version: str) -> tuple[Ticket[P], ...]:
        """Takes all tickets of one version, in order of arrival."""
        taken = sorted(
            (ticket for ticket in self._live.values() if ticket.version == version),
            key=lambda ticket: ticket.number,
        )
        for ticket in taken:
            del self._live[ticket.number]
        return tuple(taken)

    def drain(self) -> tuple[Ticket[P], ...]:
        """Takes all that wait, in order of arrival."""
        tickets = tuple(sorted(self._live.values(), key=lambda ticket: ticket.number))
        self._live.clear()
        self._lanes.clear()
        return tickets

    def demand(self) -> dict[str, Demand]:
        """What waits, by version."""
        found: dict[str, Demand] = {}
        for ticket in self._live.values():
            known = found.get(ticket.version)
            found[ticket.version] = Demand(
                known.count + 1 if known is not None else 1,
                min(known.order, ticket.order) if known is not None else ticket.order,
            )
        return found

    def waiting(self, up_to: Ticket[P] | None = None) -> Iterator[Waiting]:
        """What waits, by lane, for `Estimates.wait_s`; `up_to`: what goes before a ticket that is
        not in the queue yet, and itself.
        """
        counts: dict[Lane, int] = {} if up_to is None else {up_to.lane: 1}
        for ticket in self._live.values():
            if up_to is None or ticket.order < up_to.order:
                counts[ticket.lane] = counts.get(ticket.lane, 0) + 1
        for (version, shape, max_batch), count in counts.items():
            yield Waiting(version, shape, count, max_batch)

    def _most_urgent(self, ready: Callable[[str], bool]) -> Lane | None:
        best = None
        for lane in list(self._lanes):
            if not ready(lane[0]):
                continue
            heap = self._lanes[lane]
            while heap and heap[0][1] not in self._live:
                heapq.heappop(heap)
            if not heap:
                del self._lanes[lane]
            elif best is None or heap[0] < self._lanes[best][0]:
                best = lane
        return best

    def _pop(self, lane: Lane, now: float, late: list[Ticket[P]]) -> Ticket[P] | None:
        """The next live ticket of a lane that is not late; late ones go to `late`."""
        heap = self._lanes[lane]
        while heap:
            ticket = self._live.pop(heapq.heappop(heap)[1], None)
            if ticket is None:
                continue
            if ticket.deadline > now:
                return ticket
            late.append(ticket)
        return None
