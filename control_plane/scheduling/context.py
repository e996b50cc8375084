"""One plan in the making: the board and the wants as they will be once its commands are done.

Pure; the rooms that decide (leaving, room, scaling, placement) share it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import PRESENT, ProposedWorker
from control_plane.scheduling.retention import replica_value
from control_plane.types.command import Assign, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import Footprint, footprint
from control_plane.types.policy import BatchingConfig, Placement
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from control_plane.types.worker import LOADED, Replica, ReplicaKey
from yolopool.vocabulary import Priority

CPU = "cpu"
ANYWHERE = Placement()
PRIORITY_LEVELS = {Priority.INTERACTIVE: 0, Priority.NORMAL: 1, Priority.BULK: 2}
# A want that waits for so long counts as one of the next higher priority.
AGING_S = 60.0


class ProposedWants:
    """The wants of desired state, less what a plan forgets, and what it adds."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._desired = snapshot.desired
        self._dropped: set[VersionKey] = set(snapshot.releasing)
        self._added: dict[VersionKey, Want] = {}
        self._all: dict[VersionKey, Want] | None = None

    def get(self, key: VersionKey) -> Want | None:
        if key in self._dropped:
            return None
        added = self._added.get(key)
        if added is not None:
            return added
        return self._all.get(key) if self._all is not None else self._desired.want(key)

    def __contains__(self, key: VersionKey) -> bool:
        return self.get(key) is not None

    def of(self, keys: Collection[VersionKey] | None) -> list[Want]:
        """Those of some versions, or all."""
        if keys is None:
            self._all = self._desired.all_wants()
            return [want for key, want in self._all.items() if key not in self._dropped]
        return [want for key in keys if (want := self.get(key)) is not None]

    @property
    def dropped(self) -> Collection[VersionKey]:
        return self._dropped

    def drop(self, key: VersionKey) -> None:
        self._dropped.add(key)

    def add(self, want: Want) -> None:
        self._added[want.key] = want


@dataclass(slots=True)
class PlanContext:
    """`about` are the versions this plan looks at; None: all."""

    snapshot: Snapshot
    fleet: ProposedFleet
    now: float
    wants: ProposedWants
    about: Collection[VersionKey] | None = None
    only_cpus: bool = False
    assigned: set[VersionKey] = field(default_factory=set)
    _values: dict[ReplicaKey, float] = field(default_factory=dict)
    _sizes: dict[tuple[VersionKey, DeviceVariant], Footprint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.only_cpus = all(w.device_kind == CPU for w in self.snapshot.workers.values())

    # --- what is known ------------------------------------------------------------------------

    def version(self, key: VersionKey) -> ModelVersion | None:
        return self.snapshot.desired.versions.get(key)

    def size(self, version: ModelVersion, worker: ProposedWorker) -> Footprint:
        kind = (version.key, worker.build)
        known = self._sizes.get(kind)
        if known is None:
            known = footprint(version, worker.build, self.snapshot.footprints)
            self._sizes[kind] = known
        return known

    def replicas(self, worker: ProposedWorker) -> list[Replica]:
        """Those of a bench that this plan looks at."""
        if self.about is None:
            return list(worker.replicas.values())
        return [replica for key in self.about if (replica := worker.replicas.get(key)) is not None]

    def present(self, key: VersionKey) -> list[ProposedWorker]:
        """Benches where a version is, or is being loaded."""
        return [worker for worker in self.fleet.holders(key) if worker.state_of(key) in PRESENT]

    def is_still_at(self, worker: ProposedWorker, key: VersionKey) -> bool:
        """Whether it is still there, after what this plan released."""
        return worker.state_of(key) in PRESENT

    def is_eligible(self, key: VersionKey, worker: ProposedWorker) -> bool:
        """Whether the version may stay on this worker: it takes work, and the placement allows."""
        if self.snapshot.desired.cordons and self.snapshot.desired.is_cordoned(worker.info):
            return False
        version = self.version(key)
        if version is None:
            return True
        if not version.given.runs_on(worker.device_kind):
            return False
        if version.given.placement == ANYWHERE:
            return True
        return version.given.placement.allows(worker.info.labels)

    def may_use_cpus(self, version: ModelVersion) -> bool:
        """In a fleet with accelerators a CPU takes only what was built for it, and what falls back
        to it.
        """
        return self.only_cpus or version.given.build_of is not None

    def failure(self, worker: ProposedWorker, key: VersionKey) -> LoadFailure | None:
        """The failure that forbids a load there now."""
        found = self.snapshot.failures.get((worker.id, key))
        return found if found is not None and self.now < found.retry_at_s else None

    def is_pinned(self, replica: Replica) -> bool:
        wanted = self.wants.get(replica.key)
        return wanted.pinned if wanted is not None else replica.pinned

    def was_used(self, worker: ProposedWorker, replica: Replica) -> bool:
        """Whether it was used since it was wanted: whoever asked for it has had it."""
        wanted = self.wants.get(replica.key)
        if wanted is None or wanted.source is WantSource.PREFETCH:
            return True
        return worker.last_used(replica) >= wanted.since_unix_s

    def retention_value(self, worker: ProposedWorker, replica: Replica) -> float:
        """Seconds saved a second and byte."""
        place = (worker.id, replica.key)
        known = self._values.get(place)
        if known is None:
            known = replica_value(self.fleet, self.snapshot, worker, replica, self.now)
            self._values[place] = known
        return known

    def urgency(self, want: Want) -> tuple[bool, int, float, VersionKey]:
        """Order in which wants are served: pinned first, then by priority, then the oldest."""
        version = self.version(want.key)
        level = PRIORITY_LEVELS[version.given.placement.priority] if version is not None else 1
        if level:
            waited_s = self.snapshot.unix_s - want.since_unix_s
            level = max(0, level - max(0, int(waited_s / AGING_S)))
        return (not want.pinned, level, want.since_unix_s, want.key)

    # --- what is decided ----------------------------------------------------------------------

    def assign(
        self,
        want: Want,
        worker: ProposedWorker,
        size: Footprint,
        why: str,
        *,
        pinned: bool | None = None,
        prefetch: bool = False,
    ) -> Assign:
        pinned = want.pinned if pinned is None else pinned
        waits = not worker.fits(size, pinned=pinned, before_leaving=True)
        after = tuple(sorted(worker.released_now)) if waits else ()
        self.fleet.assign(worker, want.key, size, pinned)
        self.assigned.add(want.key)
        return Assign(worker.id, want.key, pinned, why, after, prefetch)

    def pin(
        self, worker: ProposedWorker, want: Want, why: str, after: Collection[VersionKey] = ()
    ) -> Assign:
        worker.pin(want.key, want.pinned)
        self.assigned.add(want.key)
        return Assign(worker.id, want.key, want.pinned, why, tuple(sorted(after)))

    def rebatch(
        self, worker: ProposedWorker, want: Want, batching: BatchingConfig | None
    ) -> Assign:
        """Assigned once more, as it is: that hands the batching over."""
        worker.set_batching(want.key, batching)
        pinned = replace(want, pinned=worker.replicas[want.key].pinned)
        return self.pin(worker, pinned, "it is batched otherwise from now on")

    def reload(self, worker: ProposedWorker, want: Want) -> Assign:
        """Assigned once more: its worker drops what it has behind its last tickets, and loads."""
        worker.reload(want.key)
        pinned = replace(want, pinned=worker.replicas[want.key].pinned)
        return self.pin(worker, pinned, "it is served by another build from now on")

    def release(
        self,
        worker: ProposedWorker,
        key: VersionKey,
        why: str,
        drop_want: bool = False,
        replicas_left: int = 0,
        reason: str = "UNWANTED",
    ) -> Release:
        self.fleet.release(worker, key)
        want = self.wants.get(key)
        if replicas_left and want is not None:
            self.wants.add(replace(want, replicas=replicas_left))
        elif drop_want:
            self.wants.drop(key)
        return Release(worker.id, key, why, drop_want, replicas_left, reason)

    def evict_for(
        self, want: Want, worker: ProposedWorker, victims: Iterable[Replica]
    ) -> list[Release]:
        why = f"worth least there, to make room for {want.key}"
        return [self._evict(worker, replica, why) for replica in victims]

    def _evict(self, worker: ProposedWorker, replica: Replica, why: str) -> Release:
        return self.evict(worker, replica.key, why, "ROOM")

    def evict(self, worker: ProposedWorker, key: VersionKey, why: str, reason: str) -> Release:
        """Releases a soft replica with its part of the want: other copies stay wanted."""
        others = sum(other is not worker for other in self.present(key))
        return self.release(worker, key, why, True, others, reason)


def is_loaded(replica: Replica) -> bool:
    return replica.state in LOADED
