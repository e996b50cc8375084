"""The state of one plan while it is made: the proposed fleet, the proposed wants and caches.

Pure. The files that decide (plan, feasible, preemption, descheduling, scaling, prefetch) share it;
each command is applied to the proposed fleet at once, so that later decisions see it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import PRESENT, ProposedWorker, kept_bytes
from control_plane.scheduling.retention import replica_value
from control_plane.types.access.tenant import Owners, Tenant, lowered
from control_plane.types.command import Assign, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import Footprint, footprint
from control_plane.types.policy import POOL, BatchingConfig, Placement
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from control_plane.types.worker import LOADED, Replica, ReplicaKey
from yolopool.vocabulary import Priority

CPU = "cpu"
ANYWHERE = Placement()
PRIORITY_LEVELS = {Priority.INTERACTIVE: 0, Priority.NORMAL: 1, Priority.BULK: 2}
# A want that has waited this long counts as one of the next higher priority.
AGING_S = 60.0


class ProposedWants:
    """The wants of desired state, without those that the plan drops and with those it adds."""

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
        """The wants of some versions; None: all wants."""
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
    """`about`: the versions that this plan looks at; None: all. `now`: monotonic seconds."""

    snapshot: Snapshot
    fleet: ProposedFleet
    now: float
    wants: ProposedWants
    about: Collection[VersionKey] | None = None
    only_cpus: bool = False
    assigned: set[VersionKey] = field(default_factory=set)
    _values: dict[ReplicaKey, float] = field(default_factory=dict)
    _sizes: dict[tuple[VersionKey, DeviceVariant], Footprint] = field(default_factory=dict)
    owners: Owners = field(init=False)
    # Of tenants whose memory is limited, once one of their models was looked at.
    _held_bytes: dict[str, int] = field(default_factory=dict)
    _fleet_bytes: int | None = None
    _kept: frozenset[VersionKey] | None = None

    def __post_init__(self) -> None:
        self.owners = Owners(self.snapshot.desired.tenants)
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
        """The replicas on a worker that this plan looks at."""
        if self.about is None:
            return list(worker.replicas.values())
        return [replica for key in self.about if (replica := worker.replicas.get(key)) is not None]

    def present(self, key: VersionKey) -> list[ProposedWorker]:
        """Workers where a version is loaded, or is being loaded."""
        return [worker for worker in self.fleet.holders(key) if worker.state_of(key) in PRESENT]

    def is_still_at(self, worker: ProposedWorker, key: VersionKey) -> bool:
        """Whether this plan has left the version on that worker."""
        return worker.state_of(key) in PRESENT

    def is_eligible(self, key: VersionKey, worker: ProposedWorker) -> bool:
        """Whether the version may be on this worker: not cordoned, right device, right labels."""
        if self.snapshot.desired.cordons and self.snapshot.desired.is_cordoned(worker.info):
            return False
        version = self.version(key)
        if version is None:
            return True
        if not version.given.runs_on(worker.build):
            return False
        if not self.owners.allows(key.model, worker.info.labels.get(POOL, "")):
            return False
        if version.given.placement == ANYWHERE:
            return True
        return version.given.placement.allows(worker.info.labels)

    def priority(self, version: ModelVersion) -> Priority:
        """How much a version matters beside others: as it is placed, under its owner's ceiling."""
        owner, placed = self.owners.of(version.key.model), version.given.placement.priority
        return placed if owner is None else lowered(placed, owner.priority_ceiling)

    @property
    def fleet_bytes(self) -> int:
        """Memory for models on all live workers, of the fleet of this plan or not."""
        if self._fleet_bytes is None:
            self._fleet_bytes = sum(
                max(0, worker.capacity_bytes, worker.info.ledger.assignable_bytes)
                for worker in self._all_workers()
            )
        return self._fleet_bytes

    def held_bytes(self, tenant: Tenant) -> int:
        """What replicas of a tenant's models keep on all live workers, leaving ones included."""
        held = self._held_bytes.get(tenant.name)
        if held is None:
            held = self._held_bytes[tenant.name] = sum(
                kept_bytes(replica)
                for worker in self._all_workers()
                for replica in (*worker.replicas.values(), *worker.leaving.values())
                if self.owners.of(replica.key.model) == tenant
            )
        return held

    def _all_workers(self) -> Iterable[ProposedWorker]:
        yield from self.fleet.workers.values()
        for id_, worker in self.snapshot.workers.items():
            if id_ not in self.fleet.workers and worker.is_live(self.now):
                yield ProposedWorker(worker, self.snapshot.calls)

    def may_use_cpus(self, version: ModelVersion) -> bool:
        """Whether a CPU is as good as any worker: the version was built for one, or all are CPUs.

        In a fleet with accelerators a CPU otherwise takes only what falls back to it.
        """
        return self.only_cpus or version.given.build_of is not None

    def failure(self, worker: ProposedWorker, key: VersionKey) -> LoadFailure | None:
        """The failed load whose back-off still forbids another attempt there."""
        found = self.snapshot.failures.get((worker.id, key))
        return found if found is not None and self.now < found.retry_at_s else None

    def is_pinned(self, replica: Replica) -> bool:
        wanted = self.wants.get(replica.key)
        return wanted.pinned if wanted is not None else replica.pinned

    def is_kept(self, key: VersionKey) -> bool:
        """Whether an alias needs its replicas to stay: only a pinned version may take their
        memory.
        """
        if self._kept is None:
            self._kept = self.snapshot.desired.kept()
        return key in self._kept

    def was_used(self, worker: ProposedWorker, replica: Replica) -> bool:
        """Whether a replica was used since it was wanted: whoever asked for it was served."""
        wanted = self.wants.get(replica.key)
        if wanted is None or wanted.source is WantSource.PREFETCH:
            return True
        return worker.last_used(replica) >= wanted.since_unix_s

    def retention_value(self, worker: ProposedWorker, replica: Replica) -> float:
        """Seconds of cold starts that the replica saves, per second and byte."""
        target = (worker.id, replica.key)
        known = self._values.get(target)
        if known is None:
            version = self.version(replica.key)
            known = 0.0
            if version is not None:
                known = replica_value(
                    self.fleet, self.snapshot, worker, replica, self.now, self.priority(version)
                )
            self._values[target] = known
        return known

    def urgency(self, want: Want) -> tuple[bool, int, float, VersionKey]:
        """Sort key of wants: pinned ones first, then by priority, then the oldest."""
        version = self.version(want.key)
        level = PRIORITY_LEVELS[self.priority(version)] if version is not None else 1
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
        owner = self.owners.of(want.key.model)
        if owner is not None and owner.name in self._held_bytes:
            self._held_bytes[owner.name] += size.kept_bytes
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
        """Assigns a loaded replica again: the Assign carries the new batching."""
        worker.set_batching(want.key, batching)
        pinned = replace(want, pinned=worker.replicas[want.key].pinned)
        return self.pin(worker, pinned, "its batching changed")

    def reload(self, worker: ProposedWorker, want: Want) -> Assign:
        """Assigns a loaded replica again: its worker ends open requests and loads the new build."""
        worker.reload(want.key)
        pinned = replace(want, pinned=worker.replicas[want.key].pinned)
        return self.pin(worker, pinned, "another build serves it now")

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
        why = f"it was worth least on this worker, and {want.key} needs its memory"
        return [self.evict(worker, replica.key, why, "ROOM") for replica in victims]

    def evict(self, worker: ProposedWorker, key: VersionKey, why: str, reason: str) -> Release:
        """Releases an unpinned replica and lowers its want by one: other copies stay wanted."""
        others = sum(other is not worker for other in self.present(key))
        return self.release(worker, key, why, True, others, reason)


def is_loaded(replica: Replica) -> bool:
    return replica.state in LOADED
