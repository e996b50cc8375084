"""The fleet as this process knows it: desired state, workers and what it sent them itself.

In memory only, so that Detect needs no store. Workers' own streams are the only source of what
is loaded where. Changes wake the waiters of the versions they touch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from control_plane.catalogue import Catalogue
from control_plane.clock import Clock
from control_plane.commands import Wait
from control_plane.failures import LoadFailures
from control_plane.fleet import (
    Desired,
    FencingToken,
    LoadReport,
    ModelVersion,
    Replica,
    ReplicaState,
    Snapshot,
    Tickets,
    VersionKey,
    VersionState,
    Want,
    WorkerInfo,
    WorkerState,
)
from control_plane.footprints import Footprints
from control_plane.holders import Holders
from control_plane.lifecycle import SAID, WORKER_TABLE, Life, WorkerEvent, WorkerLife
from control_plane.schedules import Schedule
from control_plane.suspects import Suspects
from control_plane.waiters import ANY, Waiters
from yolopool.arrivals import NEVER, Arrivals, Rates
from yolopool.errors import WorkerNotFound

NOTHING = Desired(revision=-1, cluster="", versions={}, wants={})
# How long a lost worker stays listed, so that people see which one is gone.
LOST_KEPT_S = 300.0
_ORDER = (VersionState.UPLOADED, VersionState.IMPORTING, VersionState.READY, VersionState.FAILED)


class View:
    """Satisfies `routing.RoutingView`. One event loop, no awaits: every method is atomic."""

    def __init__(self, clock: Clock) -> None:
        self.desired = NOTHING
        self.catalogue = Catalogue(NOTHING)
        self.workers: dict[str, WorkerInfo] = {}
        self.holders: dict[VersionKey, Holders] = {}
        self.loads: dict[str, LoadReport] = {}
        self.outstanding: dict[str, int] = {}
        self.waits: dict[VersionKey, Wait] = {}
        self.footprints = Footprints()
        self.failures = LoadFailures()
        self.highest_token: FencingToken | None = None
        self.registry_available = False
        self.reconciler = ""
        # Workers on record when this process began, who may not have called here yet.
        self.expected: frozenset[str] = frozenset()
        self.waiters = Waiters()
        self.suspects = Suspects()
        # Versions that an admin unloads by force, until they are nowhere or wanted again.
        self.forced: set[VersionKey] = set()
        # Own writes, and the revision that was known when each was shown.
        self._own: dict[VersionKey, tuple[ModelVersion, int]] = {}
        self._clock = clock
        self._lives: dict[str, WorkerLife] = {}
        self._tickets: dict[tuple[str, VersionKey], Tickets] = {}
        # Arrivals of versions at workers that hold them no more, and those wanted nowhere since.
        self._departed: dict[VersionKey, Arrivals] = {}
        self._unloaded: set[VersionKey] = set()
        # What changed since a plan looked last; `None`: anything may have.
        self._touched: set[VersionKey] | None = None
        self._moved: set[str] = set()

    # --- desired state ----------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether desired state was read once: before, no name can be told from an unknown one."""
        return self.desired is not NOTHING

    def take_desired(self, desired: Desired) -> None:
        """Replaces desired state, unless what is here is newer."""
        if desired.cluster == self.desired.cluster and desired.revision < self.desired.revision:
            return
        if desired.cluster != self.desired.cluster:
            self._own.clear()  # of a store that is no more
        self._touched = None
        self._set_desired(replace(desired, versions=self._with_own(desired)))

    def _with_own(self, read: Desired) -> Mapping[VersionKey, ModelVersion]:
        """The versions that were read, with own writes that are ahead of them: the read may have
        begun before a write, or between the two that one call makes.
        """
        self._own = {k: own for k, own in self._own.items() if read.revision <= own[1] + 1}
        ahead = {
            key: version
            for key, (version, _) in self._own.items()
            if key not in read.versions or _rank(read.versions[key]) < _rank(version)
        }
        return {**read.versions, **ahead} if ahead else read.versions

    def put_version(self, version: ModelVersion) -> None:
        """Shows an own write at once; the store's change follows."""
        self._own[version.key] = (version, self.desired.revision)
        self._touch(version.key)
        versions = {**self.desired.versions, version.key: version}
        self._set_desired(replace(self.desired, versions=versions))

    def drop_versions(self, keys: tuple[VersionKey, ...]) -> None:
        self._own = {k: own for k, own in self._own.items() if k not in keys}
        self._touch(*keys)
        for key in keys:
            self.want_nowhere(key)
        versions = {k: v for k, v in self.desired.versions.items() if k not in keys}
        wants = {k: w for k, w in self.desired.wants.items() if k not in keys}
        self._set_desired(replace(self.desired, versions=versions, wants=wants))

    def put_want(self, want: Want) -> None:
        """Shows an own want at once, and drops what an older plan said of it."""
        self.waits.pop(want.key, None)
        self._touch(want.key)
        self._unloaded.discard(want.key)
        self.forced.discard(want.key)
        wants = {**self.desired.wants, want.key: want}
        self._set_desired(replace(self.desired, wants=wants))

    def lower_want(self, key: VersionKey, left: int) -> None:
        """Shows what a plan left of a want. What it said of it is still to be heard."""
        want = self.desired.wants.get(key)
        if not left:
            self._without(key)
        elif want is not None:
            self.put_want(replace(want, replicas=min(left, want.replicas)))

    def drop_want(self, key: VersionKey) -> None:
        self.waits.pop(key, None)
        self._without(key)

    def _without(self, key: VersionKey) -> None:
        self._touch(key)
        wants = {k: w for k, w in self.desired.wants.items() if k != key}
        self._set_desired(replace(self.desired, wants=wants))

    def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> None:
        """Shows an own change of several wants at once, as the registry makes it."""
        left = {key: want for key, want in self.desired.wants.items() if key not in drop}
        wanted = {want.key: want for want in put}
        for key in (*drop, *wanted):
            self.waits.pop(key, None)
        self._touch(*drop, *wanted, *end_standby)
        self._unloaded.difference_update(wanted)
        self.forced.difference_update(wanted)
        versions = dict(self.desired.versions)
        for key in end_standby:
            if key in versions:
                versions[key] = versions[key].off_standby
        self._set_desired(replace(self.desired, wants={**left, **wanted}, versions=versions))

    def put_schedule(self, schedule: Schedule) -> None:
        """Shows an own schedule at once."""
        schedules = {**self.desired.schedules, schedule.name: schedule}
        self._set_desired(replace(self.desired, schedules=schedules))

    def drop_schedule(self, name: str) -> None:
        schedules = {k: s for k, s in self.desired.schedules.items() if k != name}
        self._set_desired(replace(self.desired, schedules=schedules))

    def put_cordon(self, worker: WorkerInfo) -> None:
        """Shows an own cordon at once."""
        self._touched = None
        cordons = {**self.desired.cordons, worker.id: worker.incarnation}
        self._set_desired(replace(self.desired, cordons=cordons))

    def force_out(self, key: VersionKey) -> None:
        """A version that is not wanted any more is not to wait for its last tickets either."""
        self.forced.add(key)
        self.waiters.wake(ANY)

    def _set_desired(self, desired: Desired) -> None:
        changed = desired.versions != self.desired.versions
        self.desired = desired
        if changed:
            self.catalogue = Catalogue(desired)
        self.waiters.wake_all()

    # --- workers ----------------------------------------------------------------------------

    def join(self, worker: WorkerInfo, token: FencingToken | None) -> None:
        """A worker process announced itself; another incarnation of its id is gone."""
        old = self.workers.get(worker.id)
        if old is not None and old.incarnation != worker.incarnation:
            self.leave(old.id, old.incarnation)
        self._lives.setdefault(worker.id, Life(worker.id, WorkerState.STARTING))
        self.hear(worker, token)

    def hear(self, worker: WorkerInfo, token: FencingToken | None) -> None:
        """A heartbeat with the whole inventory.

        Raises WorkerNotFound for a process that has not joined, InvalidTransition for one that
        goes back to an earlier state.
        """
        life, old = self._lives.get(worker.id), self.workers.get(worker.id)
        if life is None or (old is not None and old.incarnation != worker.incarnation):
            raise WorkerNotFound(
                f"worker {worker.id} is not known here as this process: join again"
            )
        self._lives[worker.id] = life.apply(WORKER_TABLE, SAID[worker.state])
        self.suspects.heard(worker.incarnation)
        if token is not None and (self.highest_token is None or token > self.highest_token):
            self.highest_token = token
        self.hear_load(worker.id, worker.load)
        before: Mapping[VersionKey, Replica] = old.replicas if old is not None else {}
        self._put_worker(worker)
        self._learn(worker, before)

    def hear_load(self, worker_id: str, report: LoadReport) -> None:
        """A report that rode on a reply or heartbeat; an older one than is known is dropped."""
        known = self.loads.get(worker_id)
        if known is None or report.sequence >= known.sequence:
            self.loads[worker_id] = report

    def leave(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        """Takes a worker out; answers it if it was there."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.incarnation != incarnation:
            return None
        del self.workers[worker_id]
        self._lives.pop(worker_id, None)
        self.loads.pop(worker_id, None)
        self.failures.forget_worker(worker_id)
        self.footprints.forget_worker(worker_id)
        self._tickets = {k: t for k, t in self._tickets.items() if k[0] != worker_id}
        self.suspects.heard(incarnation)
        self._unlist(worker.id, worker.replicas)
        self._moved.add(worker_id)
        self._touch(*worker.replicas)
        self.waiters.wake(*worker.replicas, ANY)
        return worker

    def expire(self, now: float) -> list[WorkerInfo]:
        """Marks those LOST whose lease ran out and answers them; forgets the long lost."""
        lost = []
        for worker in list(self.workers.values()):
            if now >= worker.lease_until_s + LOST_KEPT_S:
                self.leave(worker.id, worker.incarnation)
            elif now >= worker.lease_until_s and worker.state is not WorkerState.LOST:
                life = self._lives[worker.id].apply(WORKER_TABLE, WorkerEvent.LEASE_RAN_OUT)
                self._lives[worker.id] = life
                worker = replace(worker, state=life.state)
                self._put_worker(worker)
                lost.append(worker)
        return lost

    def drop_replica(self, worker_id: str, key: VersionKey) -> None:
        """The worker said that it does not hold it; its next heartbeat says so too."""
        worker = self.workers.get(worker_id)
        if worker is not None and key in worker.replicas:
            left = {k: r for k, r in worker.replicas.items() if k != key}
            self._put_worker(replace(worker, replicas=left))

    def put_waits(self, waits: Mapping[VersionKey, Wait]) -> None:
        """What the newest plan could not do; those hear it who wait for one of them."""
        news = [key for key, wait in waits.items() if self.waits.get(key) != wait]
        self.waits = dict(waits)
        # Not ANY: that wakes the planner, who has just said this.
        self.waiters.wake(*news)

    def has_live_worker(self) -> bool:
        now = self._clock.monotonic()
        return any(worker.is_live(now) for worker in self.workers.values())

    def replicas(self, key: VersionKey) -> list[tuple[WorkerInfo, Replica]]:
        """Where a version is, by worker id, those on lost workers left out."""
        workers = (self.workers[id_] for id_ in sorted(self.holders.get(key, ())))
        return [(w, w.replicas[key]) for w in workers if w.state is not WorkerState.LOST]

    def _put_worker(self, worker: WorkerInfo) -> None:
        old = self.workers.get(worker.id)
        before: Mapping[VersionKey, Replica] = old.replicas if old is not None else {}
        self.workers[worker.id] = worker
        turned = old is None or old.state is not worker.state
        changed = []
        # A heartbeat comes from each worker each second: what stayed as it was costs a look.
        for key, replica in worker.replicas.items():
            was = before.get(key)
            if was is replica and not turned:
                continue
            if was is None or was.state is not replica.state or was.pinned is not replica.pinned:
                changed.append(key)
            if turned or was is None or was.state is not replica.state:
                self.holders.setdefault(key, Holders(key)).put(worker)
        gone = {key: was for key, was in before.items() if key not in worker.replicas}
        self._unlist(worker.id, gone)
        changed += gone
        if turned:
            changed += worker.replicas
        if changed or old is None or _shifted(old, worker):
            self._moved.add(worker.id)
            self._touch(*changed)
        if changed or turned:
            self.waiters.wake(*changed, ANY)

    def _unlist(self, worker_id: str, gone: Mapping[VersionKey, Replica]) -> None:
        for key, replica in gone.items():
            holders = self.holders.get(key)
            if holders is not None and holders.discard(worker_id):
                left = self._left(key) + replica.rates
                self._departed[key] = Arrivals(left, self._clock.monotonic())
                if not holders:
                    del self.holders[key]

    def _learn(self, worker: WorkerInfo, before: Mapping[VersionKey, Replica]) -> None:
        """Keeps what was measured, whose tickets are not ours, and failures of others' loads."""
        self.footprints.hear(worker, before)
        for key, replica in worker.replicas.items():
            tickets = self._tickets.get((worker.id, key))
            if tickets is not None:
                tickets.foreign = max(0, replica.outstanding - tickets.outstanding)
            if replica.state is ReplicaState.FAILED:
                self.failures.note(
                    (worker.id, key), replica.reason, replica.message, self._clock.monotonic()
                )

    # --- own calls --------------------------------------------------------------------------

    def sent(self, worker_id: str, key: VersionKey) -> None:
        """A call to a worker begins: it counts before the worker reports it."""
        self.outstanding[worker_id] = self.outstanding.get(worker_id, 0) + 1
        tickets = self._tickets.setdefault((worker_id, key), Tickets())
        tickets.outstanding += 1
        tickets.last_used_unix_s = self._clock.unix()

    def answered(self, worker_id: str, key: VersionKey) -> None:
        left = self.outstanding.get(worker_id, 0) - 1
        if left > 0:
            self.outstanding[worker_id] = left
        else:
            self.outstanding.pop(worker_id, None)
        tickets = self._tickets.get((worker_id, key))
        if tickets is not None:
            tickets.outstanding -= 1
            if self.waits and not tickets.outstanding:
                # What waits for room may have it now.
                self.waiters.wake(ANY)

    # --- for plans ----------------------------------------------------------------------------

    def snapshot(self, closing: Collection[VersionKey] = ()) -> Snapshot:
        """What a plan looks at, as it is now and not as it will be: to be used at once."""
        return Snapshot(
            self.desired,
            self.workers,
            self.failures.current,
            self.footprints.current,
            self._clock.unix(),
            self._tickets,
            self._departed,
            self._unloaded,
            closing,
        )

    def changed(self) -> tuple[set[VersionKey] | None, set[str]]:
        """Versions (None: any) and workers that changed since this was asked last."""
        touched, moved = self._touched, self._moved
        self._touched, self._moved = set(), set()
        return touched, moved

    def arrivals(self, key: VersionKey) -> Rates:
        """Requests for a version, wherever it is and was."""
        total = self._left(key)
        for id_ in self.holders.get(key, ()):
            total = total + self.workers[id_].replicas[key].rates
        return total

    def ask_again(self, key: VersionKey) -> None:
        """Someone asks for a version by name: try now, whatever happened before."""
        self.failures.forget_version(key)
        self.waits.pop(key, None)
        self._touch(key)

    def want_nowhere(self, key: VersionKey) -> None:
        """Someone asked for its end: what it was asked for before is no reason to fetch it."""
        self._unloaded.add(key)
        self._departed.pop(key, None)

    def _left(self, key: VersionKey) -> Rates:
        departed = self._departed.get(key)
        return departed.now(self._clock.monotonic()) if departed is not None else NEVER

    def _touch(self, *keys: VersionKey) -> None:
        if self._touched is not None:
            self._touched.update(keys)


def _rank(version: ModelVersion) -> tuple[int, float]:
    """How far the life of a version has come."""
    return (_ORDER.index(version.state), version.progress)


def _shifted(old: WorkerInfo, new: WorkerInfo) -> bool:
    """Whether what a plan may do with a worker changed, beside its replicas."""
    before, after = old.ledger, new.ledger
    return (
        old.state is not new.state
        or before.budget_bytes != after.budget_bytes
        or before.used_bytes != after.used_bytes
        or before.assignable_bytes != after.assignable_bytes
    )
