"""The workers known to this process, what each reports, and the calls this process sends them.

The workers' own streams are its only source. A change wakes the waiters of the versions it touches.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from control_plane.types.lifecycle import SAID, WORKER_TABLE, WorkerEvent, WorkerLife
from control_plane.types.snapshot import OutstandingCalls
from control_plane.types.version import VersionKey
from control_plane.types.worker import LoadReport, Replica, WorkerInfo, WorkerState
from control_plane.view.circuit_breaker import CircuitBreaker
from control_plane.view.crash_loops import CrashLoops
from control_plane.view.desired_cache import DesiredCache
from control_plane.view.footprints import Footprints
from control_plane.view.load_backoff import LoadBackoff
from control_plane.view.plan_changes import PlanChanges
from control_plane.view.replica_index import ReplicaIndex
from control_plane.view.waiters import ANY, Waiters
from yolopool.errors import WorkerNotFound
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates, Arrivals
from yolopool.server.clock import Clock
from yolopool.server.state_machine import Life
from yolopool.vocabulary import ReplicaState

# How long a LOST worker stays listed, so that people see which one is gone.
LOST_KEPT_S = 300.0


class WorkerTable:
    """No method awaits, so each is atomic on one event loop. The maps are changed in place."""

    def __init__(
        self, clock: Clock, desired: DesiredCache, changes: PlanChanges, waiters: Waiters
    ) -> None:
        self.workers: Final[dict[str, WorkerInfo]] = {}
        self.holders: Final[dict[VersionKey, ReplicaIndex]] = {}
        self.loads: Final[dict[str, LoadReport]] = {}
        self.outstanding: Final[dict[str, int]] = {}
        self.tickets: Final[dict[tuple[str, VersionKey], OutstandingCalls]] = {}
        # Arrivals of versions at workers that do not hold them any more.
        self.departed: Final[dict[VersionKey, Arrivals]] = {}
        self.footprints: Final = Footprints()
        self.failures: Final = LoadBackoff()
        self.breaker: Final = CircuitBreaker()
        self.exits: Final = CrashLoops()
        self._clock = clock
        self._desired = desired
        self._changes = changes
        self._waiters = waiters
        self._lives: dict[str, WorkerLife] = {}

    def join(self, worker: WorkerInfo) -> None:
        """A worker process announced itself. An earlier incarnation of its id is gone."""
        old = self.workers.get(worker.id)
        if old is not None and old.incarnation != worker.incarnation:
            self.leave(old.id, old.incarnation)
        self._lives.setdefault(worker.id, Life(worker.id, WorkerState.STARTING))
        self.apply_heartbeat(worker)

    def apply_heartbeat(self, worker: WorkerInfo) -> None:
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
        self.apply_load(worker.id, worker.load)
        before: Mapping[VersionKey, Replica] = old.replicas if old is not None else {}
        self._put_worker(worker)
        self._learn(worker, before)

    def apply_load(self, worker_id: str, report: LoadReport) -> None:
        """Takes a report from a reply or heartbeat, unless a newer one is known."""
        known = self.loads.get(worker_id)
        if known is None or report.sequence >= known.sequence:
            self.loads[worker_id] = report

    def leave(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        """Removes a worker. Returns it if it was there."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.incarnation != incarnation:
            return None
        del self.workers[worker_id]
        self._lives.pop(worker_id, None)
        self.loads.pop(worker_id, None)
        self.failures.forget_worker(worker_id)
        self.footprints.forget_worker(worker_id)
        for place in [place for place in self.tickets if place[0] == worker_id]:
            del self.tickets[place]
        self.breaker.reset(incarnation)
        self._unlist(worker.id, worker.replicas)
        self._changes.move(worker_id)
        self._changes.touch(*worker.replicas)
        self._waiters.wake(*worker.replicas, ANY)
        return worker

    def expire(self, now: float) -> list[WorkerInfo]:
        """Marks workers LOST whose lease expired and returns them. Removes the long lost."""
        lost = []
        for worker in list(self.workers.values()):
            if now >= worker.lease_until_s + LOST_KEPT_S:
                self.leave(worker.id, worker.incarnation)
            elif now >= worker.lease_until_s and worker.state is not WorkerState.LOST:
                lost.append(self._lose(worker))
        return lost

    def mark_lost(self, worker_id: str, incarnation: str) -> WorkerInfo | None:
        """Marks a worker LOST before its lease expires, because its process ended. Returns it if
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
        """The worker said that it does not hold the replica. Its next heartbeat will say so too."""
        worker = self.workers.get(worker_id)
        if worker is not None and key in worker.replicas:
            left = {k: r for k, r in worker.replicas.items() if k != key}
            self._put_worker(replace(worker, replicas=left))

    def has_live_worker(self) -> bool:
        now = self._clock.monotonic()
        return any(worker.is_live(now) for worker in self.workers.values())

    def crash_looping(self) -> int:
        """How many workers are in a crash loop and not live now."""
        now = self._clock.monotonic()
        looping = [id_ for id_, exit in self.exits.current(now).items() if exit.is_loop]
        return sum(id_ not in self.workers or not self.workers[id_].is_live(now) for id_ in looping)

    def replicas(self, key: VersionKey) -> list[tuple[WorkerInfo, Replica]]:
        """The replicas of a version by worker id, without those on LOST workers."""
        workers = (self.workers[id_] for id_ in sorted(self.holders.get(key, ())))
        return [(w, w.replicas[key]) for w in workers if w.state is not WorkerState.LOST]

    def _put_worker(self, worker: WorkerInfo) -> None:
        old = self.workers.get(worker.id)
        before: Mapping[VersionKey, Replica] = old.replicas if old is not None else {}
        self.workers[worker.id] = worker
        turned = old is None or old.state is not worker.state
        changed = []
        # Each worker sends a heartbeat each second: an unchanged replica costs one comparison.
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
            self._changes.move(worker.id)
            self._changes.touch(*changed)
        if changed or turned:
            self._waiters.wake(*changed, ANY)

    def _unlist(self, worker_id: str, gone: Mapping[VersionKey, Replica]) -> None:
        for key, replica in gone.items():
            holders = self.holders.get(key)
            if holders is not None and holders.discard(worker_id):
                if key in self._desired.desired.versions:
                    left = self._departed_arrivals(key) + replica.rates
                    self.departed[key] = Arrivals(left, self._clock.monotonic())
                if not holders:
                    del self.holders[key]

    def _learn(self, worker: WorkerInfo, before: Mapping[VersionKey, Replica]) -> None:
        """Keeps measurements, calls of other processes, and failures of loads that others began."""
        self.footprints.observe(worker, self._desired.desired.versions, before)
        for key, replica in worker.replicas.items():
            tickets = self.tickets.get((worker.id, key))
            if tickets is None and replica.outstanding:
                # Plans read this map. A heartbeat that changes calls alone moves no worker.
                tickets = self.tickets[worker.id, key] = OutstandingCalls()
            if tickets is not None:
                tickets.foreign = max(0, replica.outstanding - tickets.outstanding)
            if replica.state is ReplicaState.FAILED:
                self.failures.note(
                    (worker.id, key), replica.reason, replica.message, self._clock.monotonic()
                )

    # --- own calls --------------------------------------------------------------------------

    def sent(self, worker_id: str, key: VersionKey) -> None:
        """A call to a worker begins. It counts before the worker reports it."""
        self.outstanding[worker_id] = self.outstanding.get(worker_id, 0) + 1
        tickets = self.tickets.setdefault((worker_id, key), OutstandingCalls())
        tickets.outstanding += 1
        tickets.last_used_unix_s = self._clock.unix()

    def answered(self, worker_id: str, key: VersionKey) -> bool:
        """A call ended. Returns whether this process has no other call to the replica."""
        left = self.outstanding.get(worker_id, 0) - 1
        if left > 0:
            self.outstanding[worker_id] = left
        else:
            self.outstanding.pop(worker_id, None)
        tickets = self.tickets.get((worker_id, key))
        if tickets is None:
            return False
        tickets.outstanding -= 1
        return not tickets.outstanding

    # --- arrivals ---------------------------------------------------------------------------

    def arrivals(self, key: VersionKey) -> ArrivalRates:
        """The request rates of a version, on the workers that hold it and that held it."""
        total = self._departed_arrivals(key)
        for id_ in self.holders.get(key, ()):
            total = total + self.workers[id_].replicas[key].rates
        return total

    def _departed_arrivals(self, key: VersionKey) -> ArrivalRates:
        departed = self.departed.get(key)
        return departed.now(self._clock.monotonic()) if departed is not None else NO_ARRIVALS


def _differs(was: Replica, now: Replica) -> bool:
    """Whether somebody may wait for this change. Between two reports a replica may have been
    measured and swapped out again.
    """
    measured = (was.footprint is None) is not (now.footprint is None)
    return was.state is not now.state or was.pinned is not now.pinned or measured


def _shifted(old: WorkerInfo, new: WorkerInfo) -> bool:
    """Whether something but the replicas changed that decides what a plan may do with a worker."""
    before, after = old.ledger, new.ledger
    return (
        old.state is not new.state
        or before.budget_bytes != after.budget_bytes
        or before.used_bytes != after.used_bytes
        or before.assignable_bytes != after.assignable_bytes
    )
