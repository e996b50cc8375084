"""The bounded queue of tickets before the device, and which of them run together.

Pure. Priority is strict: while an urgent ticket can run, no other does. Versions of one priority
share the device fairly (`fair_share`), and of a version the ticket that is due first goes first.
Admission looks at counts and at each lane's work, never at single tickets.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.batching.admission import AdmissionRequest, check_room, check_time
from worker.batching.config import BULK, INTERACTIVE, SUSPECT, BatchingConfig, Key, due_at
from worker.batching.estimates import MARGIN, LatencyEstimates, Shape
from worker.batching.fair_share import FairShare
from worker.batching.lane import Lane

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
    of a version's newest ticket applies to all its tickets that wait.
    """

    number: int
    version: str
    shape: Shape
    priority: int
    deadline: float
    arrived: float
    batching: BatchingConfig
    payload: P

    @property
    def key(self) -> Key:
        return (due_at(self.deadline, self.arrived), self.number)

    @property
    def ask(self) -> AdmissionRequest:
        return AdmissionRequest(
            self.version, self.priority, self.deadline, self.arrived, self.batching, self.shape
        )


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
    """At most `capacity` tickets wait; one more is refused at once."""

    def __init__(self, capacity: int, estimates: LatencyEstimates) -> None:
        self.capacity = capacity
        self._estimates = estimates
        # Lanes by priority, version and shape; none is empty.
        self._classes: dict[int, dict[str, dict[Shape, Lane]]] = {
            p: {} for p in range(SUSPECT, BULK + 1)
        }
        self._fair_share = {priority: FairShare() for priority in self._classes}
        self._live: dict[int, Ticket[P]] = {}
        # Versions, by the numbers of the tickets whose images are being decoded.
        self._reserved: dict[int, str] = {}
        self._places: Counter[str] = Counter()
        self._interactive_at = -INTERACTIVE_MEMORY_S

    def __len__(self) -> int:
        return len(self._live)

    def __repr__(self) -> str:
        """`3 waiting, 1 decoding, of 64: a@1 2, b@1 1`, the versions with the most places first."""
        places = ", ".join(f"{version} {count}" for version, count in self._places.most_common())
        counts = f"{len(self._live)} waiting, {len(self._reserved)} decoding, of {self.capacity}"
        return f"<TicketQueue {counts}{': ' if places else ''}{places}>"

    # --- admission ----------------------------------------------------------------------------

    def reserve(self, number: int, ask: AdmissionRequest, now: float, done_s: float) -> None:
        """Reserves a place for the ticket of this number; raises as `add` does."""
        self._check_room(ask, done_s)
        check_time(ask, self._waiting, done_s, now)
        self._reserved[number] = ask.version
        self._places[ask.version] += 1
        self._note_priority(ask.priority, now)

    def reserved(self, number: int) -> bool:
        """Whether a place is reserved for the ticket of this number, which has not come yet."""
        return number in self._reserved

    def alone(self, number: int) -> bool:
        """Whether no other ticket has a place: then `check_time` admits this one."""
        return self._waiting == self.reserved(number)

    def free(self, number: int) -> bool:
        """Releases a place, reserved or of a ticket that waits; False if there was none."""
        version = self._reserved.pop(number, None)
        if version is not None:
            self._release_place(version)
            return True
        ticket = self._live.pop(number, None)
        if ticket is None:
            return False
        lane = self._classes[ticket.priority][ticket.version][ticket.shape]
        lane.discard(ticket.key, self._estimates)
        self._release_place(ticket.version)
        self._drop_if_empty(lane)
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
            self._check_room(ticket.ask, done_s)
        check_time(ticket.ask, self._waiting, done_s, now, margin)
        self._insert(ticket)
        self._note_priority(ticket.priority, now)

    def put_back(self, ticket: Ticket[P]) -> None:
        """Adds a ticket that has left the queue and is to run again. It was admitted before, so
        there is a place for it whatever the capacity.
        """
        self._insert(ticket)

    def wait_s(
        self, ask: AdmissionRequest | None = None, swap_s: Callable[[str], float] = _no_time
    ) -> float:
        """Seconds until all tickets are done; with `ask`, until that request is done, or until its
        turn while its shape is not known. `swap_s`: how long a version's swap onto the device takes
        first.

        Before a request go all more urgent tickets, those of its version that are due earlier, and
        of each other version of its priority as much as fair share lets go first.
        """
        total = 0.0
        versions: set[str] = set()
        for priority, flows in self._classes.items():
            if ask is None or priority < ask.priority:
                versions.update(flows)
                total += sum(lane.work_s for lanes in flows.values() for lane in lanes.values())
            elif priority == ask.priority:
                own = self._own_s(ask, flows.get(ask.version, {}))
                total += own
                for version, lanes in flows.items():
                    if version != ask.version:
                        versions.add(version)
                        work_s = sum(lane.work_s for lane in lanes.values())
                        fair_share = self._fair_share[priority]
                        total += fair_share.before_s(ask.version, own, version, work_s)
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
        for priority, flows in self._classes.items():
            firsts: dict[str, Lane] = {}
            for version, lanes in flows.items():
                if not ready(version):
                    continue
                for lane in lanes.values():
                    limit = max_images(version, lane.shape)
                    at = lane.ready_at(limit, self._arrived, self._estimates)
                    if at is not None and at > now:
                        later.append(at)
                    elif version not in firsts or lane.keys[0] < firsts[version].keys[0]:
                        firsts[version] = lane
            if firsts:
                fair_share = self._fair_share[priority]
                keys = {version: lane.keys[0] for version, lane in firsts.items()}
                chosen = fair_share.choose(keys, now)
                batch, shed = self._cut(firsts[chosen], now, begins, max_images)
                return Dequeued(batch, late, shed)
        return Dequeued(None, late, again_at=min(later, default=None))

    def pop_version(self, version: str) -> tuple[Ticket[P], ...]:
        """Removes all tickets of one version; returns them in order of arrival."""
        return self._pop_all(list(self._lanes_of(version)))

    def drain(self) -> tuple[Ticket[P], ...]:
        """Removes all tickets; returns them in order of arrival."""
        return self._pop_all(list(self._lanes()))

    # --- shared by both -----------------------------------------------------------------------

    def _insert(self, ticket: Ticket[P]) -> None:
        self._places[ticket.version] += 1
        self._live[ticket.number] = ticket
        for lane in self._lanes_of(ticket.version):
            lane.batching = ticket.batching
        lanes = self._classes[ticket.priority].setdefault(ticket.version, {})
        if ticket.shape not in lanes:
            lane = Lane(ticket.priority, ticket.version, ticket.shape, ticket.batching)
            lanes[ticket.shape] = lane
        lanes[ticket.shape].add(ticket.key, self._estimates)

    @property
    def _waiting(self) -> int:
        return len(self._live) + len(self._reserved)

    def _check_room(self, ask: AdmissionRequest, done_s: float) -> None:
        of_version = self._places[ask.version]
        check_room(ask, self.capacity, self._waiting, of_version, done_s)

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
        self, lane: Lane, now: float, begins: float, max_images: Callable[[str, Shape], int]
    ) -> tuple[Batch[P], tuple[Ticket[P], ...]]:
        """The next batch of a lane, and the tickets shed for it."""
        limit = max_images(lane.version, lane.shape)
        if lane.priority == BULK and not lane.batching.fixed:
            limit = min(limit, self._bulk_limit(lane, now))
        shed_count, count = lane.cut(limit, begins, self._deadline, self._estimates)
        shed = self._remove(lane, lane.pop(shed_count, self._estimates))
        keys = lane.pop(count, self._estimates)
        spent_s = lane.pass_s(count, limit, self._estimates)
        self._fair_share[lane.priority].charge(lane.version, spent_s)
        images = lane.batching.images(count, limit)
        return Batch(lane.version, lane.shape, self._remove(lane, keys), images), shed

    def _bulk_limit(self, lane: Lane, now: float) -> int:
        if now - self._interactive_at >= INTERACTIVE_MEMORY_S:
            return sys.maxsize
        full = lane.batching.full
        return self._estimates.max_within(lane.version, lane.shape, full, BULK_PASS_S)

    def _pop_late(self, now: float) -> tuple[Ticket[P], ...]:
        late: list[Ticket[P]] = []
        for lane in list(self._lanes()):
            late += self._remove(lane, lane.pop_late(now, self._deadline, self._estimates))
        return tuple(late)

    def _pop_all(self, lanes: list[Lane]) -> tuple[Ticket[P], ...]:
        popped: list[Ticket[P]] = []
        for lane in lanes:
            popped += self._remove(lane, lane.pop(len(lane.keys), self._estimates))
        return tuple(sorted(popped, key=lambda ticket: ticket.number))

    def _remove(self, lane: Lane, keys: list[Key]) -> tuple[Ticket[P], ...]:
        """The tickets of keys that were popped from a lane; their places are released."""
        for _ in keys:
            self._release_place(lane.version)
        self._drop_if_empty(lane)
        return tuple(self._live.pop(number) for _, number in keys)

    def _drop_if_empty(self, lane: Lane) -> None:
        flows = self._classes[lane.priority]
        if not lane.keys:
            del flows[lane.version][lane.shape]
            if not flows[lane.version]:
                del flows[lane.version]
        if not flows:
            self._fair_share[lane.priority].reset()

    def _release_place(self, version: str) -> None:
        self._places[version] -= 1
        if not self._places[version]:
            del self._places[version]

    def _note_priority(self, priority: int, now: float) -> None:
        if priority == INTERACTIVE:
            self._interactive_at = now

    def _arrived(self, number: int) -> float:
        return self._live[number].arrived

    def _deadline(self, number: int) -> float:
        return self._live[number].deadline

    def _lanes_of(self, version: str) -> Iterator[Lane]:
        for flows in self._classes.values():
            yield from flows.get(version, {}).values()

    def _lanes(self) -> Iterator[Lane]:
        for flows in self._classes.values():
            for lanes in flows.values():
                yield from lanes.values()
