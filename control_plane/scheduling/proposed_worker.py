"""One worker as it will be once a plan is done: its replicas, its free memory, what leaves. Pure.

It changes only itself. Where a worker has host memory beneath its device (`assignable_bytes`), it
may take more replicas than fit the device at once: they take turns there.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from control_plane.types.footprint import Footprint
from control_plane.types.policy import BatchingConfig
from control_plane.types.snapshot import OutstandingCalls
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, Replica, ReplicaKey, WorkerInfo
from yolopool.vocabulary import ReplicaState

PRESENT = LOADED | {ReplicaState.ASSIGNED}
# A replica with a request at least this often counts in full in `crowding`.
ACTIVE_WITHIN_S = 60.0

Replicas = Mapping[VersionKey, Replica]


class ProposedWorker:
    """`replicas` stay, `leaving` are under release; `info` is the worker as it reported itself.

    A plan asks a thousand workers for their sums, so sums over replicas are kept, and replicas are
    copied only before the first change.
    """

    __slots__ = (
        "_calls", "_changed", "_device_bytes", "_kept", "_leaving", "_min_value", "_weights",
        "_workspace", "base_bytes", "build", "device_kind", "fixed_bytes", "id", "info",
        "released_now", "replicas",
    )  # fmt: skip

    def __init__(self, worker: WorkerInfo, calls: Mapping[ReplicaKey, OutstandingCalls]) -> None:
        self.info = worker
        self.id = worker.id
        self.device_kind = worker.device_kind
        self.build = worker.build
        self.replicas: Replicas = worker.replicas
        self.released_now: frozenset[VersionKey] = frozenset()
        self._calls = calls
        self._changed: dict[VersionKey, Replica] | None = None
        self._leaving: dict[VersionKey, Replica] = {}
        if any(replica.state is ReplicaState.RELEASING for replica in worker.replicas.values()):
            self._writable()
        ledger = worker.ledger
        replicas = worker.replicas.values()
        # Private bytes belong to their replicas where those are known, and leave with them.
        known = sum(private_bytes(replica) for replica in replicas)
        private = max(0, ledger.backend_private_bytes - known)
        # Context, graphs, and private bytes of no known replica.
        self.fixed_bytes = ledger.context_bytes + ledger.graph_pool_bytes + private
        # The worker may account for more than its replicas explain: plan with what it reports.
        self.base_bytes = max(self.fixed_bytes, ledger.used_bytes - total_bytes(replicas))
        self._update_sums()

    def _writable(self) -> dict[VersionKey, Replica]:
        if self._changed is None:
            releasing = ReplicaState.RELEASING
            self._leaving = {k: r for k, r in self.replicas.items() if r.state is releasing}
            self._changed = {k: r for k, r in self.replicas.items() if r.state is not releasing}
            self.replicas = self._changed
        return self._changed

    def _update_sums(self) -> None:
        kept = weights = workspace = 0
        for replica in self.replicas.values():
            if replica.state is ReplicaState.FAILED:
                continue
            weights += replica.weights_bytes
            kept += replica.weights_bytes
            if replica.footprint is not None:
                kept += replica.footprint.private_bytes
            if replica.workspace_bytes > workspace:
                workspace = replica.workspace_bytes
        self._kept, self._weights, self._workspace = kept, weights, workspace
        self._device_bytes = kept + workspace
        self._min_value: float | None = None

    # --- what is there ------------------------------------------------------------------------

    @property
    def leaving(self) -> Mapping[VersionKey, Replica]:
        return self._leaving

    @property
    def capacity_bytes(self) -> int:
        """Bytes of the budget that models may take once nothing is under way."""
        return self.info.ledger.budget_bytes - self.fixed_bytes

    @property
    def free_bytes(self) -> int:
        held = self._device_bytes
        if self._leaving:
            staying = [r for k, r in self._leaving.items() if k not in self.released_now]
            held = total_bytes([*staying, *self.replicas.values()])
        return self.info.ledger.budget_bytes - self.base_bytes - held

    @property
    def free_tier_bytes(self) -> int:
        """Weights that may still be assigned where there is host memory beneath the device."""
        leaving = sum(weights_bytes(replica) for replica in self._leaving.values())
        return self.info.ledger.assignable_bytes - self._weights - leaving

    def state_of(self, key: VersionKey) -> ReplicaState | None:
        replica = self.replicas.get(key)
        return replica.state if replica is not None else None

    def holds(self, key: VersionKey) -> bool:
        """Whether it has this version in a state that rules out another load there."""
        return key in self._leaving or self.state_of(key) not in (None, ReplicaState.FAILED)

    def outstanding(self, replica: Replica) -> int:
        """Open requests, with those of this process that the worker has not reported yet."""
        calls = self._calls.get((self.id, replica.key))
        return replica.outstanding if calls is None else calls.outstanding + calls.foreign

    def last_used(self, replica: Replica) -> float:
        """Unix seconds."""
        calls = self._calls.get((self.id, replica.key))
        known = replica.last_used_unix_s
        return known if calls is None else max(known, calls.last_used_unix_s)

    @property
    def busy(self) -> float:
        """Share of the last seconds that the device worked, 0..1."""
        return min(1.0, sum(replica.busy for replica in self.replicas.values()))

    @property
    def weights_share(self) -> float:
        """Weights of all replicas over the capacity of the device: above 1, they take turns."""
        return self._weights / max(1, self.capacity_bytes)

    @property
    def crowding(self) -> float:
        """As `weights_share`, of the models that are asked for: the others crowd nobody."""
        active = 0.0
        for replica in self.replicas.values():
            asked = max(replica.rates.estimate * ACTIVE_WITHIN_S, float(replica.pinned))
            active += weights_bytes(replica) * min(1.0, asked)
        return active / max(1, self.capacity_bytes)

    @property
    def min_value(self) -> float:
        """A rough lower bound of what an eviction here costs: tells preemption where to look."""
        if self._min_value is None:
            found = [
                replica.rates.slow / max(1, replica.weights_bytes)
                for replica in self.replicas.values()
                if not replica.pinned and replica.state in LOADED
            ]
            self._min_value = min(found, default=float("inf"))
        return self._min_value

    # --- what fits ----------------------------------------------------------------------------

    def fits_empty(self, size: Footprint) -> bool:
        ledger = self.info.ledger
        beneath = not ledger.assignable_bytes or size.weights_bytes <= ledger.assignable_bytes
        return beneath and size.device_bytes <= self.capacity_bytes

    def fits(
        self,
        size: Footprint,
        *,
        pinned: bool = False,
        without: Collection[VersionKey] = (),
        after_leaving: bool = False,
        before_leaving: bool = False,
    ) -> bool:
        """Whether `size` more can be assigned beside the replicas less `without`.

        With host memory beneath the device, all share that, and take turns on the device; without
        it all must be on the device at once.
        Replicas that earlier plans release count until they are gone (`after_leaving`: suppose
        they are). Those that this plan releases do not count, since the Assign waits for them
        (`before_leaving`: they do).
        """
        if not without and not self._leaving and not self._may_fit(size):
            return False
        held = self._held(without, after_leaving, before_leaving)
        if self.info.ledger.assignable_bytes:
            return self._fits_in_turn([*held, candidate(size, pinned)])
        base = self.fixed_bytes if after_leaving else self.base_bytes
        return self._fits_at_once([*held, candidate(size, pinned)], base)

    def _may_fit(self, size: Footprint) -> bool:
        """False if the sums alone rule it out, as they do on most workers."""
        ledger = self.info.ledger
        if ledger.assignable_bytes:
            return self._weights + size.weights_bytes <= ledger.assignable_bytes
        return self._kept + size.kept_bytes + self._workspace <= self.capacity_bytes

    def fits_hot(self, size: Footprint) -> bool:
        """Whether `size` more can be on the device beside all that is assigned."""
        if not self._leaving and not self.info.ledger.max_hot:
            workspace = max(self._workspace, size.workspace_bytes)
            return self._kept + size.kept_bytes + workspace <= self.capacity_bytes
        more = candidate(size, pinned=False)
        return self._fits_at_once([*self._held((), False, False), more], self.fixed_bytes)

    def can_pin(self, key: VersionKey, without: Collection[VersionKey] = ()) -> bool:
        """Whether a replica can be pinned and the others (less `without`) still come to the device
        in turn. Without host memory beneath it all are on the device anyway.
        """
        if not self.info.ledger.assignable_bytes:
            return True
        return self.fits(size_of(self.replicas[key]), pinned=True, without=[key, *without])

    def unschedulable(self) -> list[VersionKey]:
        """Replicas that can't come to the device any more beside the pinned ones."""
        if not self.info.ledger.assignable_bytes:
            return []
        pinned = [replica for replica in self.replicas.values() if replica.pinned]
        if not pinned and not self.info.ledger.max_hot:
            largest = max(
                (size_of(replica).device_bytes for replica in self.replicas.values()), default=0
            )
            if largest <= self.capacity_bytes:
                return []
        return [
            replica.key
            for replica in self.replicas.values()
            if not replica.pinned and not self._fits_at_once([*pinned, replica], self.fixed_bytes)
        ]

    def _held(
        self, without: Collection[VersionKey], after_leaving: bool, before_leaving: bool
    ) -> list[Replica]:
        held = [
            replica
            for replica in self._leaving.values()
            if (replica.key not in self.released_now or before_leaving) and not after_leaving
        ]
        return held + [replica for replica in self.replicas.values() if replica.key not in without]

    def _fits_at_once(self, replicas: Collection[Replica], base_bytes: int) -> bool:
        ledger = self.info.ledger
        hot = sum(weights_bytes(replica) > 0 for replica in replicas)
        if ledger.max_hot and hot > ledger.max_hot:
            return False
        return total_bytes(replicas) <= ledger.budget_bytes - base_bytes

    def _fits_in_turn(self, replicas: Collection[Replica]) -> bool:
        """All in host memory, the pinned ones on the device, and each other one beside them."""
        if sum(weights_bytes(replica) for replica in replicas) > self.info.ledger.assignable_bytes:
            return False
        pinned = [replica for replica in replicas if replica.pinned]
        others = [replica for replica in replicas if not replica.pinned]
        # Beside the same pinned ones only the largest matter, without or with workspace.
        largest = [] if not others else [max(others, key=device_bytes), max(others, key=kept_bytes)]
        return self._fits_at_once(pinned, self.fixed_bytes) and all(
            self._fits_at_once([*pinned, replica], self.fixed_bytes) for replica in largest
        )

    # --- changes ------------------------------------------------------------------------------

    def release(self, key: VersionKey) -> None:
        self._leaving[key] = self._writable().pop(key)
        self.released_now |= {key}
        self._update_sums()

    def assign(self, key: VersionKey, size: Footprint, pinned: bool) -> None:
        self._writable()[key] = candidate(size, pinned, key)
        self._update_sums()

    def pin(self, key: VersionKey, pinned: bool) -> None:
        self._writable()[key] = replace(self.replicas[key], pinned=pinned)

    def set_batching(self, key: VersionKey, batching: BatchingConfig | None) -> None:
        self._writable()[key] = replace(self.replicas[key], batching=batching)

    def reload(self, key: VersionKey) -> None:
        self._writable()[key] = replace(self.replicas[key], state=ReplicaState.ASSIGNED)


def candidate(
    size: Footprint,
    pinned: bool,
    key: VersionKey = VersionKey("", 0),  # noqa: B008 - frozen
) -> Replica:
    """A replica of this size that a plan may assign."""
    return Replica(
        key,
        ReplicaState.ASSIGNED,
        size.weights_bytes,
        size.workspace_bytes,
        pinned,
        footprint=size,
    )


def size_of(replica: Replica) -> Footprint:
    """Bytes that a replica takes; a failed load keeps none."""
    if replica.state is ReplicaState.FAILED:
        return Footprint(0, 0)
    return Footprint(replica.weights_bytes, replica.workspace_bytes, private_bytes(replica))


def weights_bytes(replica: Replica) -> int:
    return 0 if replica.state is ReplicaState.FAILED else replica.weights_bytes


def private_bytes(replica: Replica) -> int:
    known = replica.footprint is not None and replica.state is not ReplicaState.FAILED
    return replica.footprint.private_bytes if known and replica.footprint is not None else 0


def kept_bytes(replica: Replica) -> int:
    return weights_bytes(replica) + private_bytes(replica)


def total_bytes(replicas: Iterable[Replica]) -> int:
    """What all keep and the largest workspace, since one pass runs at a time."""
    kept = workspace = 0
    for replica in replicas:
        if replica.state is not ReplicaState.FAILED:
            kept += replica.weights_bytes + private_bytes(replica)
            workspace = max(workspace, replica.workspace_bytes)
    return kept + workspace


def device_bytes(replica: Replica) -> int:
    return size_of(replica).device_bytes
