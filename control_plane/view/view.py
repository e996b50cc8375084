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
from control_plane.types.schedule import Schedule
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo
from control_plane.view.catalogue import Catalogue
from control_plane.view.desired_cache import DesiredCache
from control_plane.view.plan_changes import PlanChanges
from control_plane.view.waiters import ANY, Waiters
from control_plane.view.worker_table import WorkerTable
from yolopool.server.arrival_rates import ArrivalRates

LEADER = "leader"  # the subject of those who wait for another to decide


class View:
    """Satisfies `routing.RoutingView`. One event loop, no awaits: every method is atomic."""

    def __init__(self, clock: Clock) -> None:
        self.waiters = Waiters()
        self._desired_cache = DesiredCache()
        self._changes = PlanChanges()
        self._table = table = WorkerTable(clock, self._desired_cache, self._changes, self.waiters)
        self._clock = clock
        # The table's own, changed in place.
        self.workers, self.holders = table.workers, table.holders
        self.loads, self.outstanding = table.loads, table.outstanding
        self.footprints, self.failures = table.footprints, table.failures
        self.breaker, self.exits = table.breaker, table.exits
        # What the newest plan could not do.
        self.waits: dict[VersionKey, Blocked] = {}
        self.highest_token: FencingToken | None = None
        self.registry_available = False
        self.leader = self.leader_address = ""
        # Workers on record when this process began, who may not have called here yet; None: the
        # record is not to be trusted.
        self.expected: frozenset[str] | None = frozenset()
        # Versions that an admin unloads by force, until they are nowhere or wanted again.
        self.forced: set[VersionKey] = set()
        # Versions that someone unloaded and nobody wanted since.
        self._unloaded: set[VersionKey] = set()
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
        self._changes.touch_all()
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
            self._changes.touch_all()
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
        self._changes.touch(*keys)
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
        self._changes.touch_all()
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
        self._table.join(worker)
        self.apply_token(token)

    def apply_heartbeat(self, worker: WorkerInfo, token: FencingToken | None) -> None:
        """A heartbeat with the whole inventory. Raises WorkerNotFound, InvalidTransition."""
        self._table.apply_heartbeat(worker)
        self.apply_token(token)

    def apply_load(self, worker_id: str, report: LoadReport) -> None:
        self._table.apply_load(worker_id, report)

    def leave(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        return self._table.leave(worker_id, incarnation)

    def expire(self, now: float) -> list[WorkerInfo]:
        return self._table.expire(now)

    def mark_lost(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        return self._table.mark_lost(worker_id, incarnation)

    def drop_replica(self, worker_id: str, key: VersionKey) -> None:
        self._table.drop_replica(worker_id, key)

    def has_live_worker(self) -> bool:
        return self._table.has_live_worker()

    def crash_looping(self) -> int:
        return self._table.crash_looping()

    def replicas(self, key: VersionKey) -> list[tuple[WorkerInfo, Replica]]:
        return self._table.replicas(key)

    def arrivals(self, key: VersionKey) -> ArrivalRates:
        return self._table.arrivals(key)

    def sent(self, worker_id: str, key: VersionKey) -> None:
        self._table.sent(worker_id, key)

    def answered(self, worker_id: str, key: VersionKey) -> None:
        idle = self._table.answered(worker_id, key)
        if idle and self._waiting:
            self.waiters.wake(ANY)  # what waits for room may have it now

    # --- for plans ----------------------------------------------------------------------------

    def snapshot(self, closing: Collection[VersionKey] = ()) -> Snapshot:
        """What a plan looks at, as it is now and not as it will be: to be used at once."""
        return Snapshot(
            self.desired,
            self.workers,
            self.failures.current,
            self.footprints.current,
            self._clock.unix(),
            self._table.tickets,
            self._table.departed,
            self._unloaded,
            self._waiting,
            closing,
        )

    def changed(self) -> tuple[set[VersionKey] | None, set[str]]:
        """Versions (None: any) and workers that changed since this was asked last."""
        return self._changes.take()

    def set_blocked(self, waits: Mapping[VersionKey, Blocked]) -> None:
        """What the newest plan could not do; those hear it who wait for one of them."""
        news = [key for key, wait in waits.items() if self.waits.get(key) != wait]
        self.waits = dict(waits)
        full = [key for key, wait in waits.items() if wait.reason == "LEDGER_FULL"]
        now = self._clock.unix()
        self._waiting = {key: self._waiting.get(key, now) for key in full}
        # Not ANY: that wakes the planner, who has just said this.
        self.waiters.wake(*news)

    def ask_again(self, key: VersionKey) -> None:
        """Someone asks for a version by name: try now, whatever happened before."""
        self.failures.forget_version(key)
        self.waits.pop(key, None)
        self._changes.touch(key)

    def want_nowhere(self, key: VersionKey) -> None:
        """Someone asked for its end: what it was asked for before is no reason to fetch it."""
        self._unloaded.add(key)
        self._table.departed.pop(key, None)

    def _forget(self, key: VersionKey) -> None:
        """A version that is no more."""
        self._unloaded.discard(key)
        self._table.departed.pop(key, None)
