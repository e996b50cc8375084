"""The fleet as this process knows it: desired state, workers and what it sent them itself.

In memory only, so that Detect needs no store. Workers' own streams are the only source of what
is loaded where. Changes wake the waiters of the versions they touch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from control_plane.clock import Clock
from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, DesiredDelta, Want
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.lifecycle import SAID, WORKER_TABLE, WorkerEvent, WorkerLife
from control_plane.types.schedule import Schedule
from control_plane.types.snapshot import OutstandingCalls, Snapshot
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo, WorkerState
from control_plane.view.catalogue import Catalogue
from control_plane.view.circuit_breaker import CircuitBreaker
from control_plane.view.crash_loops import CrashLoops
from control_plane.view.desired_cache import DesiredCache
from control_plane.view.footprints import Footprints
from control_plane.view.load_backoff import LoadBackoff
from control_plane.view.replica_index import ReplicaIndex
from control_plane.view.waiters import ANY, Waiters
from yolopool.errors import WorkerNotFound
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates, Arrivals
from yolopool.server.state_machine import Life
from yolopool.vocabulary import ReplicaState

# How long a lost worker stays listed, so that people see which one is gone.
LOST_KEPT_S = 300.0
LEADER = "leader"  # the subject of those who wait for another to decide


class View:
    """Satisfies `routing.RoutingView`. One event loop, no awaits: every method is atomic."""

    def __init__(self, clock: Clock) -> None:
        self.workers: dict[str, WorkerInfo] = {}
        self.holders: dict[VersionKey, ReplicaIndex] = {}
        self.loads: dict[str, LoadReport] = {}
        self.outstanding: dict[str, int] = {}
        self.waits: dict[VersionKey, Blocked] = {}
        self.footprints = Footprints()
        self.failures = LoadBackoff()
        self.highest_token: FencingToken | None = None
        self.registry_available = False
        self.leader = self.leader_address = ""
        # Workers on record when this process began, who may not have called here yet; None: the
        # record is not to be trusted.
        self.expected: frozenset[str] | None = frozenset()
        self.waiters = Waiters()
        self.breaker = CircuitBreaker()
        self.exits = CrashLoops()
        # Versions that an admin unloads by force, until they are nowhere or wanted again.
        self.forced: set[VersionKey] = set()
        self._desired_cache = DesiredCache()
        self._clock = clock
        self._lives: dict[str, WorkerLife] = {}
        self._tickets: dict[tuple[str, VersionKey], OutstandingCalls] = {}
        # Arrivals of versions at workers that hold them no more, and those wanted nowhere since.
        self._departed: dict[VersionKey, Arrivals] = {}
        self._unloaded: set[VersionKey] = set()
        # What changed since a plan looked last; `None`: anything may have.
        self._touched: set[VersionKey] | None = None
        self._moved: set[str] = set()
        # What waits for another to be idle, and since when.
        self._waiting: dict[VersionKey, float] = {}

    # --- desired state ----------------------------------------------------------------------

    @property
    def desired(self) -> Desired:
        """Its maps go on changing: look, and do not keep it."""
        return self._desired_cache.desired

    @property
    def catalogue(self) -> Catalogue:
        return self._desired_cache.catalogue

    @property
    def is_loaded(self) -> bool:
        """Whether desired state was read once: before, no name can be told from an unknown one."""
        return self._desired_cache.is_loaded

    def frozen_desired(self) -> Desired:
        """Desired state as a value."""
        return self._desired_cache.frozen()

    def take_desired(self, desired: Desired) -> None:
        """Replaces desired state: the first look, or of a store that went another way."""
        self._touched = None
        self._desired_cache.take_all(desired)
        self.waiters.wake_all()

    def take_changes(self, changes: DesiredDelta) -> None:
        """Applies what was written since the revision that is known here."""
        for key, version in changes.versions.items():
            if version is None:
                self._forget(key)
        wanted = {key for key, want in changes.wants.items() if want is not None}
        for key, want in changes.wants.items():
            # Another control plane ended it: for whom, only that one knows.
            if want is None and key in self.desired.wants:
                self.want_nowhere(key)
        self._unloaded -= wanted
        self.forced -= wanted
        if changes.cordons:
            self._touched = None
        self._show(*self._desired_cache.take(changes))

    def put_version(self, version: ModelVersion) -> None:
        """Shows an own write at once; the store's change follows."""
        self._desired_cache.put_version(version)
        self._show(version.key)

    def drop_versions(self, keys: tuple[VersionKey, ...]) -> None:
        for key in keys:
            self._forget(key)
        self._desired_cache.drop_versions(keys)
        self._show(*keys)

    def put_want(self, want: Want) -> None:
        """Shows an own want at once, and drops what an older plan said of it."""
        self.waits.pop(want.key, None)
        self._unloaded.discard(want.key)
        self.forced.discard(want.key)
        self._desired_cache.put_want(want)
        self._show(want.key)

    def lower_want(self, key: VersionKey, left: int) -> None:
        """Shows what a plan left of a want. What it said of it is still to be heard."""
        want = self.desired.wants.get(key)
        if not left:
            self._desired_cache.drop_want(key)
            self._show(key)
        elif want is not None:
            self.put_want(replace(want, replicas=min(left, want.replicas)))

    def drop_want(self, key: VersionKey) -> None:
        self.waits.pop(key, None)
        self._desired_cache.drop_want(key)
        self._show(key)

    def _show(self, *keys: VersionKey) -> None:
        self._touch(*keys)
        self.waiters.wake(*keys, ANY)

    def change_wants(
        self,
        put: Sequence[Want],
        drop: Sequence[VersionKey] = (),
        end_standby: Sequence[VersionKey] = (),
    ) -> None:
        """Shows an own change of several wants at once, as the registry makes it."""
        wanted = [want.key for want in put]
        for key in (*drop, *wanted):
            self.waits.pop(key, None)
        self._unloaded.difference_update(wanted)
        self.forced.difference_update(wanted)
        for key in drop:
            self._desired_cache.drop_want(key)
        for want in put:
            self._desired_cache.put_want(want)
        for key in end_standby:
            version = self.desired.versions.get(key)
            if version is not None:
                self._desired_cache.put_version(version.off_standby)
        self._show(*drop, *wanted, *end_standby)

    def put_schedule(self, schedule: Schedule) -> None:
        """Shows an own schedule at once."""
        self._desired_cache.put_schedule(schedule.name, schedule)
        self.waiters.wake(ANY)

    def drop_schedule(self, name: str) -> None:
        self._desired_cache.put_schedule(name, None)
        self.waiters.wake(ANY)

    def put_cordon(self, worker: WorkerInfo) -> None:
        """Shows an own cordon at once."""
        self._touched = None
        self._desired_cache.put_cordon(worker.id, worker.incarnation)
        self.waiters.wake(ANY)

    def force_out(self, key: VersionKey) -> None:
        """A version that is not wanted any more is not to wait for its last tickets either."""
        self.forced.add(key)
        self.waiters.wake(ANY)

    # --- who decides --------------------------------------------------------------------------

    def set_leader(self, leader: Leader | None) -> None:
        """Who holds the lease, as the store says: its token was given out, whoever saw it."""
        if leader is not None:
            self.apply_token(leader.token)
        name, address = (leader.name, leader.address) if leader is not None else ("", "")
        if (name, address) != (self.leader, self.leader_address):
            self.leader, self.leader_address = name, address
            self.waiters.wake(LEADER)

    def apply_token(self, token: FencingToken | None) -> None:
        """Remembers the highest token that anyone told of."""
        if token is not None and (self.highest_token is None or token > self.highest_token):
            self.highest_token = token

    # --- workers ----------------------------------------------------------------------------

    def join(self, worker: WorkerInfo, token: FencingToken | None) -> None:
        """A worker process announced itself; another incarnation of its id is gone."""
        old = self.workers.get(worker.id)
        if old is not None and old.incarnation != worker.incarnation:
            self.leave(old.id, old.incarnation)
        self._lives.setdefault(worker.id, Life(worker.id, WorkerState.STARTING))
        self.apply_heartbeat(worker, token)

    def apply_heartbeat(self, worker: WorkerInfo, token: FencingToken | None) -> None:
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
        self.breaker.reset(worker.incarnation)
        self.apply_token(token)
        self.apply_load(worker.id, worker.load)
        before: Mapping[VersionKey, Replica] = old.replicas if old is not None else {}
        self._put_worker(worker)
        self._learn(worker, before)

    def apply_load(self, worker_id: str, report: LoadReport) -> None:
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
        self.breaker.reset(incarnation)
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
                lost.append(self._lose(worker))
        return lost

    def mark_lost(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        """Marks a worker LOST before its lease runs out, as that process has ended; answers it if
        it was there.
        """
        worker = self.workers.get(worker_id)
        if worker is None or worker.incarnation != incarnation:
            return None
        return self._lose(worker)

    def _lose(self, worker: WorkerInfo) -> WorkerInfo:
        life = self._lives[worker.id].apply(WORKER_TABLE, WorkerEvent.LEASE_RAN_OUT)
        self._lives[worker.id] = life
        worker = replace(worker, state=life.state)
        self._put_worker(worker)
        return worker

    def drop_replica(self, worker_id: str, key: VersionKey) -> None:
        """The worker said that it does not hold it; its next heartbeat says so too."""
        worker = self.workers.get(worker_id)
        if worker is not None and key in worker.replicas:
            left = {k: r for k, r in worker.replicas.items() if k != key}
            self._put_worker(replace(worker, replicas=left))

    def set_blocked(self, waits: Mapping[VersionKey, Blocked]) -> None:
        """What the newest plan could not do; those hear it who wait for one of them."""
        news = [key for key, wait in waits.items() if self.waits.get(key) != wait]
        self.waits = dict(waits)
        full = [key for key, wait in waits.items() if wait.reason == "LEDGER_FULL"]
        now = self._clock.unix()
        self._waiting = {key: self._waiting.get(key, now) for key in full}
        # Not ANY: that wakes the planner, who has just said this.
        self.waiters.wake(*news)

    def has_live_worker(self) -> bool:
        now = self._clock.monotonic()
        return any(worker.is_live(now) for worker in self.workers.values())

    def crash_looping(self) -> int:
        """Workers that are in a crash loop, and not up just now."""
        now = self._clock.monotonic()
        looping = [id_ for id_, exit in self.exits.current(now).items() if exit.is_loop]
        return sum(id_ not in self.workers or not self.workers[id_].is_live(now) for id_ in looping)

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
            if was is None or _differs(was, replica):
                changed.append(key)
            if turned or was is None or was.state is not replica.state:
                self.holders.setdefault(key, ReplicaIndex(key)).put(worker)
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
                if key in self.desired.versions:
                    left = self._left(key) + replica.rates
                    self._departed[key] = Arrivals(left, self._clock.monotonic())
                if not holders:
                    del self.holders[key]

    def _learn(self, worker: WorkerInfo, before: Mapping[VersionKey, Replica]) -> None:
        """Keeps what was measured, whose tickets are not ours, and failures of others' loads."""
        self.footprints.observe(worker, self.desired.versions, before)
        for key, replica in worker.replicas.items():
            tickets = self._tickets.get((worker.id, key))
            if tickets is None and replica.outstanding:
                # Plans look here: a heartbeat that tells of tickets alone moves no worker.
                tickets = self._tickets[worker.id, key] = OutstandingCalls()
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
        tickets = self._tickets.setdefault((worker_id, key), OutstandingCalls())
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
            if self._waiting and not tickets.outstanding:
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
            self._waiting,
            closing,
        )

    def changed(self) -> tuple[set[VersionKey] | None, set[str]]:
        """Versions (None: any) and workers that changed since this was asked last."""
        touched, moved = self._touched, self._moved
        self._touched, self._moved = set(), set()
        return touched, moved

    def arrivals(self, key: VersionKey) -> ArrivalRates:
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

    def _forget(self, key: VersionKey) -> None:
        """A version that is no more."""
        self._unloaded.discard(key)
        self._departed.pop(key, None)

    def _left(self, key: VersionKey) -> ArrivalRates:
        departed = self._departed.get(key)
        return departed.now(self._clock.monotonic()) if departed is not None else NO_ARRIVALS

    def _touch(self, *keys: VersionKey) -> None:
        if self._touched is not None:
            self._touched.update(keys)


def _differs(was: Replica, now: Replica) -> bool:
    """Whether somebody may wait for it: one that takes turns may be measured, and gone from the
    device again, between two reports.
    """
    measured = (was.footprint is None) is not (now.footprint is None)
    return was.state is not now.state or was.pinned is not now.pinned or measured


def _shifted(old: WorkerInfo, new: WorkerInfo) -> bool:
    """Whether what a plan may do with a worker changed, beside its replicas."""
    before, after = old.ledger, new.ledger
    return (
        old.state is not new.state
        or before.budget_bytes != after.budget_bytes
        or before.used_bytes != after.used_bytes
        or before.assignable_bytes != after.assignable_bytes
    )
