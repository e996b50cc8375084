"""The bounded queue of tickets before the device, and which of them run together.

Pure. Priority is strict: while an urgent ticket can run, no other does. Of one priority tenants
take turns (`tenant_turns`), the versions of a tenant share its turns fairly (`fair_share`), and of
a version the ticket that is due first goes first. Admission looks at counts and at each lane's
work, never at single tickets.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.batching.admission import AdmissionRequest, Flow, Places, check_room, check_time
from worker.batching.config import BULK, INTERACTIVE, SUSPECT, BatchingConfig, Key, due_at
from worker.batching.estimates import MARGIN, LatencyEstimates, Shape
from worker.batching.lane import Lane
from worker.batching.priority_class import PriorityClass

P = TypeVar("P")

# A pass can't be preempted. While interactive tickets come, and INTERACTIVE_MEMORY_S after the
# last, a bulk pass is cut to what is expected to end within this time.
BULK_PASS_S = 0.05
INTERACTIVE_MEMORY_S = 10.0


def _any_version(version: str) -> bool:
    return True


def _no_limit(version: str, shape: Shape) -> int:
    return sys.maxsize


def _no_time(version: str) -> float:
    return 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Ticket(Generic[P]):
    """One request before the device; the payload belongs to the caller and is not looked at here.

    `number` grows with arrival; `deadline` and `arrived` are seconds of one clock. The `batching`
    of a version's newest ticket applies to all its tickets that wait, and the `weight` of a
    tenant's newest to all of the tenant's.
    """

    number: int
    version: str
    shape: Shape
    priority: int
    deadline: float
    arrived: float
    batching: BatchingConfig
    payload: P
    tenant: str = ""
    weight: float = 1.0

    @property
    def key(self) -> Key:
        return (due_at(self.deadline, self.arrived), self.number)

    @property
    def ask(self) -> AdmissionRequest:
        return AdmissionRequest(
            self.version,
            self.priority,
            self.deadline,
            self.arrived,
            self.batching,
            self.shape,
            self.tenant,
            self.weight,
        )

    @property
    def flow(self) -> Flow:
        return self.tenant, self.version


@dataclass(frozen=True, slots=True)
class Demand:
    """The tickets that wait for one version: how many, and the order of the most urgent."""

    count: int
    order: tuple[int, float, int]

    @property
    def priority(self) -> int:
        return self.order[0]


@dataclass(frozen=True, slots=True)
class Batch(Generic[P]):
    """Tickets to run in one pass (never empty), all of one priority, version and shape. The pass
    has `images` images: where that is more than tickets, it is filled up with grey ones.
    """

    version: str
    shape: Shape
    tickets: tuple[Ticket[P], ...]
    images: int


@dataclass(frozen=True, slots=True)
class Dequeued(Generic[P]):
    """What left the queue: a batch to run, if any; `late` tickets, whose deadline has passed; and
    `shed` ones, which would be late while others can be in time.

    `again_at`: without a batch, when one may begin though no ticket comes; None: not before.
    """

    batch: Batch[P] | None
    late: tuple[Ticket[P], ...]
    shed: tuple[Ticket[P], ...] = ()
    again_at: float | None = None


class TicketQueue(Generic[P]):
    """At most `capacity` tickets wait; one more is refused at once. Where several tenants wait each
    has a part of it (`admission.Places`).
    """

    def __init__(self, capacity: int, estimates: LatencyEstimates) -> None:
        self.capacity = capacity
        self._estimates = estimates
        self._places = Places()
        self._classes = {
            priority: PriorityClass(self._places.weight) for priority in range(SUSPECT, BULK + 1)
        }
        self._live: dict[int, Ticket[P]] = {}
        # By the numbers of the tickets whose images are being decoded.
        self._reserved: dict[int, Flow] = {}
        self._interactive_at = -INTERACTIVE_MEMORY_S

    def __len__(self) -> int:
        return len(self._live)

    def __repr__(self) -> str:
        """`3 waiting, 1 decoding, of 64: a@1 2, b@1 1`, the versions with the most places first."""
        by_version: Counter[str] = Counter()
        for (_, version), count in self._places.of_flow.items():
            by_version[version] += count
        places = ", ".join(f"{version} {count}" for version, count in by_version.most_common())
        counts = f"{len(self._live)} waiting, {len(self._reserved)} decoding, of {self.capacity}"
        return f"<TicketQueue {counts}{': ' if places else ''}{places}>"

    # --- admission ----------------------------------------------------------------------------

    def reserve(self, number: int, ask: AdmissionRequest, now: float, done_s: float) -> None:
        """Reserves a place for the ticket of this number; raises as `add` does."""
        check_room(ask, self.capacity, self._places, done_s)
        check_time(ask, self._places.total, done_s, now)
        self._reserved[number] = ask.flow
        self._places.take(ask.flow, ask.weight)
        self._note_priority(ask.priority, now)

    def reserved(self, number: int) -> bool:
        """Whether a place is reserved for the ticket of this number, which has not come yet."""
        return number in self._reserved

    def alone(self, number: int) -> bool:
        """Whether no other ticket has a place: then `check_time` admits this one."""
        return self._places.total == self.reserved(number)

    def free(self, number: int) -> bool:
        """Releases a place, reserved or of a ticket that waits; False if there was none."""
        flow = self._reserved.pop(number, None)
        if flow is not None:
            self._places.release(flow)
            return True
        ticket = self._live.pop(number, None)
        if ticket is None:
            return False
        lanes = self._classes[ticket.priority]
        lane = lanes.tenants[ticket.tenant][ticket.version][ticket.shape]
        lane.discard(ticket.key, self._estimates)
        self._places.release(ticket.flow)
        lanes.drop_if_empty(lane)
        return True

    def add(self, ticket: Ticket[P], now: float, done_s: float) -> None:
        """Adds a ticket, into its reserved place if it has one. `done_s` estimates in how many
        seconds it would be answered. Raises QueueFull and DeadlineUnmeetable.
        """
        margin = MARGIN
        if self.reserved(ticket.number):
            self.free(ticket.number)
            margin = 1.0  # admitted with the margin before, and its image is decoded
        else:
            check_room(ticket.ask, self.capacity, self._places, done_s)
        check_time(ticket.ask, self._places.total, done_s, now, margin)
        self._insert(ticket, ticket.batching)
        self._note_priority(ticket.priority, now)

    def put_back(self, ticket: Ticket[P]) -> None:
        """Adds a ticket that has left the queue and is to run again. It was admitted before, so
        there is a place for it whatever the capacity.
        """
        newest = next((lane.batching for lane in self._lanes_of(ticket.version)), ticket.batching)
        self._insert(ticket, newest)

    def wait_s(
        self, ask: AdmissionRequest | None = None, swap_s: Callable[[str], float] = _no_time
    ) -> float:
        """Seconds until all tickets are done; with `ask`, until that request is done, or until its
        turn while its shape is not known. `swap_s`: how long a version's swap onto the device takes
        first.

        Before a request go all more urgent tickets, those of its tenant and version that are due
        earlier, and of others of its priority as much as their shares let go first.
        """
        total = 0.0
        versions: set[str] = set()
        for priority, lanes in self._classes.items():
            if not lanes.tenants and (ask is None or priority != ask.priority):
                continue
            if ask is None or priority < ask.priority:
                for lane in lanes:
                    versions.add(lane.version)
                    total += lane.work_s
            elif priority == ask.priority:
                versions.update(*lanes.tenants.values())
                own = self._own_s(ask, lanes.tenants.get(ask.tenant, {}).get(ask.version, {}))
                total += own + lanes.before_s(ask.tenant, ask.version, own, ask.weight)
        if ask is not None:
            versions.add(ask.version)
        return total + sum(map(swap_s, versions))

    def demand(self) -> dict[str, Demand]:
        """The tickets that wait, by version."""
        found: dict[str, Demand] = {}
        for lane in self._lanes():
            order = (lane.priority, *lane.keys[0])
            known = found.get(lane.version)
            if known is None:
                found[lane.version] = Demand(len(lane.keys), order)
            else:
                count = known.count + len(lane.keys)
                found[lane.version] = Demand(count, min(known.order, order))
        return found

    # --- dispatch -----------------------------------------------------------------------------

    def next_batch(
        self,
        now: float,
        ready: Callable[[str], bool] = _any_version,
        max_images: Callable[[str, Shape], int] = _no_limit,
        begins: float | None = None,
    ) -> Dequeued[P]:
        """Removes the next batch, of versions that are `ready`, and of at most `max_images` for its
        version and shape; never waits. The batch `begins` on the device then; None: now.

        Late tickets of any version are removed too, and shed ones: the caller answers them.
        """
        late = self._pop_late(now)
        begins = now if begins is None else begins
        later: list[float] = []
        for lanes in self._classes.values():
            if not lanes.tenants:
                continue
            firsts, at = lanes.ready(now, ready, max_images, self._arrived, self._estimates)
            later += at
            if firsts:
                lane = lanes.choose(firsts, now)
                batch, shed = self._cut(lanes, lane, now, begins, max_images)
                return Dequeued(batch, late, shed)
        return Dequeued(None, late, again_at=min(later, default=None))

    def pop_version(self, version: str) -> tuple[Ticket[P], ...]:
        """Removes all tickets of one version; returns them in order of arrival."""
        return self._pop_all(list(self._lanes_of(version)))

    def drain(self) -> tuple[Ticket[P], ...]:
        """Removes all tickets; returns them in order of arrival."""
        return self._pop_all(list(self._lanes()))

    # --- shared by both -----------------------------------------------------------------------

    def _insert(self, ticket: Ticket[P], batching: BatchingConfig) -> None:
        self._places.take(ticket.flow, ticket.weight)
        self._live[ticket.number] = ticket
        for lane in self._lanes_of(ticket.version):
            lane.batching = batching
        lanes, shape = self._classes[ticket.priority], ticket.shape
        own = lanes.lane(ticket.tenant, ticket.version, shape)
        if own is None:
            own = Lane(ticket.priority, ticket.version, shape, batching, ticket.tenant)
            lanes.put(own)
        own.add(ticket.key, self._estimates)

    def _own_s(self, ask: AdmissionRequest, lanes: dict[Shape, Lane]) -> float:
        """Seconds of its own version's tickets that go before a request, and of its own pass where
        its shape is known.
        """
        total = 0.0
        for shape, lane in lanes.items():
            own = int(shape == ask.shape)
            total += lane.seconds_before(due_at(ask.deadline, ask.arrived), own, self._estimates)
        if ask.shape is not None and ask.shape not in lanes:
            total += self._estimates.pass_s(ask.version, ask.shape, 1) or 0.0
        return total

    def _cut(
        self,
        lanes: PriorityClass,
        lane: Lane,
        now: float,
        begins: float,
        max_images: Callable[[str, Shape], int],
    ) -> tuple[Batch[P], tuple[Ticket[P], ...]]:
        """The next batch of a lane, and the tickets shed for it."""
        limit = max_images(lane.version, lane.shape)
        if lane.priority == BULK and not lane.batching.fixed:
            limit = min(limit, self._bulk_limit(lane, now))
        shed_count, count = lane.cut(limit, begins, self._deadline, self._estimates)
        shed: tuple[Ticket[P], ...] = ()
        if shed_count:
            shed = self._remove(lane, lane.pop(shed_count, self._estimates))
        parts = [(lane, lane.pop(count, self._estimates))]
        if not lane.keys and len(lanes.tenants) > 1:
            parts += lanes.company(*parts[0], limit, begins, self._deadline, self._estimates)
        total = sum(len(keys) for _, keys in parts)
        spent_s = lane.pass_s(total, limit, self._estimates) / total
        tickets: list[Ticket[P]] = []
        for one, keys in parts:
            lanes.charge(one, spent_s * len(keys))
            tickets += self._remove(one, keys)
        images = lane.batching.images(total, limit)
        return Batch(lane.version, lane.shape, tuple(tickets), images), shed

    def _bulk_limit(self, lane: Lane, now: float) -> int:
        if now - self._interactive_at >= INTERACTIVE_MEMORY_S:
            return sys.maxsize
        full = lane.batching.full
        return self._estimates.max_within(lane.version, lane.shape, full, BULK_PASS_S)

    def _pop_late(self, now: float) -> tuple[Ticket[P], ...]:
        late: list[Ticket[P]] = []
        for lane in list(self._lanes()):
            if keys := lane.pop_late(now, self._deadline, self._estimates):
                late += self._remove(lane, keys)
        return tuple(late)

    def _pop_all(self, lanes: list[Lane]) -> tuple[Ticket[P], ...]:
        popped: list[Ticket[P]] = []
        for lane in lanes:
            popped += self._remove(lane, lane.pop(len(lane.keys), self._estimates))
        return tuple(sorted(popped, key=lambda ticket: ticket.number))

    def _remove(self, lane: Lane, keys: list[Key]) -> tuple[Ticket[P], ...]:
        """The tickets of keys that were popped from a lane; their places are released."""
        for _ in keys:
            self._places.release((lane.tenant, lane.version))
        self._classes[lane.priority].drop_if_empty(lane)
        return tuple(self._live.pop(number) for _, number in keys)

    def _note_priority(self, priority: int, now: float) -> None:
        if priority == INTERACTIVE:
            self._interactive_at = now

    def _arrived(self, number: int) -> float:
        return self._live[number].arrived

    def _deadline(self, number: int) -> float:
        return self._live[number].deadline

    def _lanes_of(self, version: str) -> Iterator[Lane]:
        for lanes in self._classes.values():
            if lanes.tenants:
                yield from lanes.of_version(version)

    def _lanes(self) -> Iterator[Lane]:
        for lanes in self._classes.values():
            if lanes.tenants:
                yield from lanes
