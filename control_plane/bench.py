"""One worker's memory while a plan is made: who sits there, what is free, who leaves.

Pure; it changes only itself. All sizes are bytes of the device.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from control_plane.fleet import Footprint, Replica, ReplicaState, VersionKey, WorkerInfo


@dataclass(frozen=True, slots=True)
class Seat:
    """A replica as the plan sees it. `last_used` is Unix seconds."""

    key: VersionKey
    state: ReplicaState
    size: Footprint
    pinned: bool
    outstanding: int = 0
    last_used: float = 0.0

    @classmethod
    def of(cls, replica: Replica) -> "Seat":
        # A failed load keeps no memory, whatever it was to take.
        failed = replica.state is ReplicaState.FAILED
        size = Footprint(0, 0) if failed else _size(replica)
        return cls(
            replica.key,
            replica.state,
            size,
            replica.pinned,
            replica.outstanding,
            replica.last_used_unix_s,
        )


@dataclass(slots=True)
class Bench:
    """`fixed_bytes` are context, graphs and private bytes; `base_bytes` are those and what loads
    under way take beside their seats.
    """

    worker: WorkerInfo
    fixed_bytes: int
    base_bytes: int
    seats: dict[VersionKey, Seat] = field(default_factory=dict)
    leaving: dict[VersionKey, Seat] = field(default_factory=dict)
    released_now: frozenset[VersionKey] = frozenset()

    @classmethod
    def of(cls, worker: WorkerInfo) -> "Bench":
        all_seats = {key: Seat.of(replica) for key, replica in worker.replicas.items()}
        leaving = {k: s for k, s in all_seats.items() if s.state is ReplicaState.RELEASING}
        seats = {k: s for k, s in all_seats.items() if k not in leaving}
        ledger = worker.ledger
        fixed = ledger.context_bytes + ledger.graph_pool_bytes + ledger.backend_private_bytes
        # The worker may know of more than its replicas explain; never plan with less than it says.
        base = max(fixed, ledger.used_bytes - _total(all_seats.values()))
        return cls(worker, fixed, base, seats, leaving)

    @property
    def room_bytes(self) -> int:
        """What models may take of the budget once nothing is under way."""
        return self.worker.ledger.budget_bytes - self.fixed_bytes

    @property
    def free_bytes(self) -> int:
        staying = [s for s in self.leaving.values() if s.key not in self.released_now]
        held = _total([*staying, *self.seats.values()])
        return self.worker.ledger.budget_bytes - self.base_bytes - held

    def state_of(self, key: VersionKey) -> ReplicaState | None:
        seat = self.seats.get(key)
        return seat.state if seat is not None else None

    def holds(self, key: VersionKey) -> bool:
        """Whether it has this version in any state from which it can't be loaded anew."""
        return key in self.leaving or self.state_of(key) not in (None, ReplicaState.FAILED)

    def fits_empty(self, size: Footprint) -> bool:
        return size.weights_bytes + size.workspace_bytes <= self.room_bytes

    def fits(
        self,
        size: Footprint,
        *,
        without: Collection[VersionKey] = (),
        after_leaving: bool = False,
        before_leaving: bool = False,
    ) -> bool:
        """Whether `size` more fits beside the seats less `without`.

        What other plans release is there until it is gone (`after_leaving`: suppose that all
        under way is done); what this plan releases is gone, since an Assign names it
        (`before_leaving`: not yet).
        """
        held = [
            seat
            for seat in self.leaving.values()
            if (seat.key not in self.released_now or before_leaving) and not after_leaving
        ]
        held += [seat for seat in self.seats.values() if seat.key not in without]
        more = Seat(VersionKey("", 0), ReplicaState.ASSIGNED, size, pinned=False)
        base = self.fixed_bytes if after_leaving else self.base_bytes
        return _total([*held, more]) <= self.worker.ledger.budget_bytes - base

    def release(self, key: VersionKey) -> None:
        self.leaving[key] = self.seats.pop(key)
        self.released_now |= {key}

    def assign(self, key: VersionKey, size: Footprint, pinned: bool) -> None:
        self.seats[key] = Seat(key, ReplicaState.ASSIGNED, size, pinned)


def _size(replica: Replica) -> Footprint:
    return Footprint(replica.weights_bytes, replica.workspace_bytes)


def _total(seats: Collection[Seat]) -> int:
    """Sum of the weights and the largest workspace: one pass runs at a time."""
    weights = sum(seat.size.weights_bytes for seat in seats)
    return weights + max((seat.size.workspace_bytes for seat in seats), default=0)
