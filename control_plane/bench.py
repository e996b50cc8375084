"""One worker's memory while a plan is made: who sits there, what is free, who leaves.

Pure; it changes only itself. A worker may take more than fits its device: it has them take turns.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

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
    """`fixed_bytes` are context, graphs and private bytes of nobody known; `base_bytes` are those
    and what loads under way take beside their seats.
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
        # Private bytes are their replicas' where those are known: they leave the device with them.
        known = sum(seat.size.private_bytes for seat in all_seats.values())
        private = max(0, ledger.backend_private_bytes - known)
        fixed = ledger.context_bytes + ledger.graph_pool_bytes + private
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

    @property
    def load_share(self) -> float:
        """Weights of all seats over the room on the device: above 1, they take turns."""
        weights = sum(seat.size.weights_bytes for seat in self.seats.values())
        return weights / max(1, self.room_bytes)

    def fits_empty(self, size: Footprint) -> bool:
        ledger = self.worker.ledger
        beneath = not ledger.assignable_bytes or size.weights_bytes <= ledger.assignable_bytes
        return beneath and size.device_bytes <= self.room_bytes

    def fits(
        self,
        size: Footprint,
        *,
        pinned: bool = False,
        without: Collection[VersionKey] = (),
        after_leaving: bool = False,
        before_leaving: bool = False,
    ) -> bool:
        """Whether `size` more can be assigned beside the seats less `without`.

        Where the worker has a tier beneath its device, all share that, and the device in turn;
        else all have to be on the device at once.
        What other plans release is there until it is gone (`after_leaving`: suppose that all
        under way is done); what this plan releases is gone, since an Assign names it
        (`before_leaving`: not yet).
        """
        held = self._held(without, after_leaving, before_leaving)
        more = Seat(VersionKey("", 0), ReplicaState.ASSIGNED, size, pinned)
        if self.worker.ledger.assignable_bytes:
            return self._fits_in_turn([*held, more])
        base = self.fixed_bytes if after_leaving else self.base_bytes
        return self._fits_at_once([*held, more], base)

    def fits_hot(self, size: Footprint) -> bool:
        """Whether `size` more can be on the device beside all that is assigned."""
        more = Seat(VersionKey("", 0), ReplicaState.ASSIGNED, size, pinned=False)
        return self._fits_at_once([*self._held((), False, False), more], self.fixed_bytes)

    def can_pin(self, key: VersionKey, without: Collection[VersionKey] = ()) -> bool:
        """Whether a seat can be pinned, and the others (less `without`) still come to the device
        in turn. Where there is no tier all are on the device anyway.
        """
        if not self.worker.ledger.assignable_bytes:
            return True
        return self.fits(self.seats[key].size, pinned=True, without=[key, *without])

    def stranded(self) -> list[VersionKey]:
        """Seats that can't come to the device any more, for those that are pinned there."""
        if not self.worker.ledger.assignable_bytes:
            return []
        pinned = [seat for seat in self.seats.values() if seat.pinned]
        return [
            seat.key
            for seat in self.seats.values()
            if not seat.pinned and not self._fits_at_once([*pinned, seat], self.fixed_bytes)
        ]

    def _held(
        self, without: Collection[VersionKey], after_leaving: bool, before_leaving: bool
    ) -> list[Seat]:
        held = [
            seat
            for seat in self.leaving.values()
            if (seat.key not in self.released_now or before_leaving) and not after_leaving
        ]
        return held + [seat for seat in self.seats.values() if seat.key not in without]

    def _fits_at_once(self, seats: Sequence[Seat], base_bytes: int) -> bool:
        ledger = self.worker.ledger
        hot = sum(seat.size.weights_bytes > 0 for seat in seats)
        if ledger.max_hot and hot > ledger.max_hot:
            return False
        return _total(seats) <= ledger.budget_bytes - base_bytes

    def _fits_in_turn(self, seats: Sequence[Seat]) -> bool:
        """All in the tier, the pinned ones on the device, and each other one beside them."""
        weights = sum(seat.size.weights_bytes for seat in seats)
        if weights > self.worker.ledger.assignable_bytes:
            return False
        pinned = [seat for seat in seats if seat.pinned]
        others = [seat for seat in seats if not seat.pinned]
        # Beside the same pinned ones only the largest matter, without or with workspace.
        largest = sorted(others, key=lambda seat: -seat.size.device_bytes)[:1]
        largest += sorted(others, key=lambda seat: -seat.size.kept_bytes)[:1]
        return self._fits_at_once(pinned, self.fixed_bytes) and all(
            self._fits_at_once([*pinned, seat], self.fixed_bytes) for seat in largest
        )

    def release(self, key: VersionKey) -> None:
        self.leaving[key] = self.seats.pop(key)
        self.released_now |= {key}

    def assign(self, key: VersionKey, size: Footprint, pinned: bool) -> None:
        self.seats[key] = Seat(key, ReplicaState.ASSIGNED, size, pinned)

    def pin(self, key: VersionKey, pinned: bool) -> None:
        self.seats[key] = replace(self.seats[key], pinned=pinned)


def _size(replica: Replica) -> Footprint:
    private = replica.footprint.private_bytes if replica.footprint is not None else 0
    return Footprint(replica.weights_bytes, replica.workspace_bytes, private)


def _total(seats: Collection[Seat]) -> int:
    """Sum of what each keeps and the largest workspace: one pass runs at a time."""
    kept = sum(seat.size.kept_bytes for seat in seats)
    return kept + max((seat.size.workspace_bytes for seat in seats), default=0)
