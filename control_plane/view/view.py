"""The fleet as this process knows it: desired state, workers and the calls it sent them.

The facade that routing and planning read. In memory only, so that Detect needs no store. A change
wakes the waiters of the versions it touches.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from control_plane.store.signed import admission
from control_plane.types.command import Blocked
from control_plane.types.desired import Desired, DesiredDelta
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo
from control_plane.view.catalogue import Catalogue
from control_plane.view.desired_cache import DesiredCache
from control_plane.view.plan_changes import PlanChanges
from control_plane.view.waiters import ANY, Waiters
from control_plane.view.worker_table import WorkerTable
from yolopool.server.arrival_rates import ArrivalRates
from yolopool.server.clock import Clock
from yolopool.signing.signers import Signers

LEADER = "leader"  # the subject for a change of leader


class View:
    """Satisfies `RoutingView`. No method awaits, so each is atomic on one event loop."""

    def __init__(
        self, clock: Clock, waiters: Waiters | None = None, signers: Signers | None = None
    ) -> None:
        self.waiters: Final = waiters or Waiters()
        # What a version is shown as, which may be less than the store says.
        self.admit: Final = admission(signers or Signers())
        self._desired_cache = DesiredCache(self.admit)
        self._changes = PlanChanges()
        self._table = table = WorkerTable(clock, self._desired_cache, self._changes, self.waiters)
        self._clock = clock
        # Shared with the table, which changes them in place.
        self.workers: Final = table.workers
        self.holders: Final = table.holders
        self.loads: Final = table.loads
        self.outstanding: Final = table.outstanding
        self.tickets: Final = table.tickets
        self.footprints: Final = table.footprints
        self.failures: Final = table.failures
        self.breaker: Final = table.breaker
        self.exits: Final = table.exits
        # What the newest plan could not do.
        self.waits: dict[VersionKey, Blocked] = {}
        self.highest_token: FencingToken | None = None
        # Whether the store was read, and whether it took the last write of the leader's lease.
        self.registry_readable, self.registry_writable = False, True
        self.unread_because = "it has just started"  # why desired state was not read yet
        self.leader = self.leader_address = ""
        # Workers that were recorded when this process began and may not have joined here yet. None:
        # the record can't be trusted.
        self.expected: frozenset[str] | None = frozenset()
        # Why this process does not say that it is ready though it serves; empty: nothing.
        self.preparing = ""
        # Versions that an admin unloads by force, until no worker holds them or someone wants them.
        self.forced: set[VersionKey] = set()
        # Versions that someone unloaded and nobody wanted since: plans do not prefetch them.
        self._unloaded: set[VersionKey] = set()
        # Wants that the newest plan drops: their end is no unload.
        self._plan_drops: set[VersionKey] = set()
        # Versions that wait for room, and since when.
        self._waiting: dict[VersionKey, float] = {}

    # --- desired state ----------------------------------------------------------------------

    @property
    def desired(self) -> Desired:
        """Its maps change in place: read them and keep no reference."""
        return self._desired_cache.desired

    @property
    def catalogue(self) -> Catalogue:
        return self._desired_cache.catalogue

    @property
    def is_loaded(self) -> bool:
        """Whether desired state was read once. Before that every name is unknown."""
        return self._desired_cache.is_loaded

    @property
    def registry_available(self) -> bool:
        """Whether the store answers, holds what it should, and takes writes."""
        return self.registry_readable and self.registry_writable

    def highest_number(self, model: str) -> int:
        """The highest version of a model that the store or a worker is known to have had."""
        numbers = [self.desired.numbers.get(model, 0)]
        numbers += [version.key.number for version in self.catalogue.models.get(model, ())]
        for worker in self.workers.values():
            numbers += [key.number for key in worker.replicas if key.model == model]
        return max(numbers)

    def frozen_desired(self) -> Desired:
        """Desired state as a value."""
        return self._desired_cache.frozen()

    def take_desired(self, desired: Desired) -> None:
        """Replaces desired state: at the first read, or if the history of the store is another."""
        self._changes.touch_all()
        known = self.desired.wants
        for key, want in desired.wants.items():
            if known.get(key) != want:
                self._wanted(key)
        self._desired_cache.take_all(desired)
        self.waiters.wake_all()

    def take_changes(self, changes: DesiredDelta) -> None:
        """Applies what was written since the known revision."""
        for key, want in changes.wants.items():
            if want is not None:
                self._wanted(key)
            elif key in self._plan_drops:
                self._plan_drops.discard(key)
            elif key in self.desired.wants:
                # If another control plane ended it, only that one knows whether someone asked.
                self.want_nowhere(key)
        for key, version in changes.versions.items():
            if version is None:
                self._forget(key)
        if changes.cordons or changes.tenants or changes.rules:
            self._changes.touch_all()
        self._show(*self._desired_cache.take(changes))
        self.waiters.wake(*changes.aliases)

    def plan_drops(self, keys: Iterable[VersionKey]) -> None:
        """Announces the wants that a plan is about to drop, in place of those of the plan before.
        When such a want ends its version is not unloaded, and the reason that the plan gave stays.
        """
        self._plan_drops = set(keys)

    def _wanted(self, key: VersionKey) -> None:
        """A want was set or changed. The reason an older plan gave for not placing it is void."""
        self.waits.pop(key, None)
        self._unloaded.discard(key)
        self.forced.discard(key)

    def _show(self, *keys: VersionKey) -> None:
        self._changes.touch(*keys)
        self.waiters.wake(*keys, ANY)

    def force_out(self, key: VersionKey) -> None:
        """Releases a version that nobody wants without waiting for its outstanding calls."""
        self.forced.add(key)
        self.waiters.wake(ANY)

    # --- the leader ---------------------------------------------------------------------------

    def set_leader(self, leader: Leader | None) -> None:
        """Takes the leader that the store names. Its token counts as seen."""
        if leader is not None:
            self.apply_token(leader.token)
        name, address = (leader.name, leader.address) if leader is not None else ("", "")
        if (name, address) != (self.leader, self.leader_address):
            self.leader, self.leader_address = name, address
            self.waiters.wake(LEADER)

    def apply_token(self, token: FencingToken | None) -> None:
        """Remembers the highest token seen."""
        if token is not None and (self.highest_token is None or token > self.highest_token):
            self.highest_token = token

    # --- workers ----------------------------------------------------------------------------

    def join(self, worker: WorkerInfo, token: FencingToken | None) -> None:
        """A worker process announced itself. An earlier incarnation of its id is gone."""
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
            self.waiters.wake(ANY)  # a version that waits for room may have it now

    # --- for plans ----------------------------------------------------------------------------

    def snapshot(self, closing: Collection[VersionKey] = ()) -> Snapshot:
        """What a plan reads. Its maps are live: use it before the next await."""
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
        """Versions (None: any) and workers that changed since the last call."""
        return self._changes.take()

    def set_blocked(self, waits: Mapping[VersionKey, Blocked]) -> None:
        """Takes what the newest plan could not do, and wakes those who wait for these versions."""
        news = [key for key, wait in waits.items() if self.waits.get(key) != wait]
        self.waits = dict(waits)
        full = [key for key, wait in waits.items() if wait.reason == "LEDGER_FULL"]
        now = self._clock.unix()
        self._waiting = {key: self._waiting.get(key, now) for key in full}
        # Not ANY: that would wake the planner, which has just called this.
        self.waiters.wake(*news)

    def ask_again(self, key: VersionKey) -> None:
        """Someone asks for a version by name: retry now, whatever failed before."""
        self.failures.forget_version(key)
        self.waits.pop(key, None)
        self._show(key)

    def want_nowhere(self, key: VersionKey) -> None:
        """Someone unloaded a version: its earlier requests are no reason to prefetch it. To be
        called before the refresh, so that a want that followed the unload undoes it.
        """
        self.waits.pop(key, None)
        self._unloaded.add(key)
        self._table.departed.pop(key, None)

    def _forget(self, key: VersionKey) -> None:
        """A version was deleted."""
        self._unloaded.discard(key)
        self._table.departed.pop(key, None)
