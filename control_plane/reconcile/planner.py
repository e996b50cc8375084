"""When to plan, and about what: the whole fleet now and then, and what changed in between.

No decisions and no calls. The proposed fleet is kept from plan to plan, with commands in flight
applied to it.
"""

from collections.abc import Collection
from dataclasses import replace

from control_plane.reconcile.executor import Executor
from control_plane.scheduling.plan import replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.command import Blocked, Command, DropWant
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from yolopool.server.clock import Clock

# Whole plans take at most this share of the time, and are at least this far apart.
MAX_SHARE, MIN_PERIOD_S = 0.05, 0.5


def projected(view: View, executor: Executor) -> Snapshot:
    """The snapshot with commands in flight applied. To be used before the next await."""
    snapshot = view.snapshot(executor.releasing)
    workers = {id_: executor.with_in_flight(worker) for id_, worker in snapshot.workers.items()}
    return replace(snapshot, workers=workers)


class Planner:
    """One event loop, no awaits. The caller must execute the commands of `next`."""

    def __init__(self, view: View, executor: Executor, clock: Clock) -> None:
        self._view = view
        self._executor = executor
        self._clock = clock
        self._fleet: ProposedFleet | None = None
        self._due_s = 0.0
        self._given_up: dict[VersionKey, tuple[Blocked, float]] = {}

    def next(self) -> list[Command]:
        """The commands to execute now; the next plan takes them as done."""
        now = self._clock.monotonic()
        snapshot = self._view.snapshot(self._executor.releasing)
        touched, moved = self._view.changed()
        ended = self._executor.ended()
        if self._fleet is None or touched is None or now >= self._due_s:
            return self._whole(snapshot, now)
        about = {*touched, *self._view.waits, *(key for _, key in ended)}
        for worker_id in {*moved, *(worker for worker, _ in ended)}:
            about |= self._put(self._fleet, worker_id, snapshot, now)
        commands = replan(self._fleet, snapshot, now, about)
        self._view.set_blocked(self._blocked(commands, now))
        return commands

    def start_over(self) -> None:
        """The last commands were not executed: the next plan looks at the whole fleet."""
        self._fleet = None

    def dry_run(self) -> None:
        """Plans to tell callers why wants are blocked, and executes nothing: no leader is known, or
        this one may not act yet.
        """
        now = self._clock.monotonic()
        self._fleet = None
        if now >= self._due_s:
            self._whole(self._view.snapshot(self._executor.releasing), now)
            self._fleet = None

    def stand_by(self) -> None:
        """Plans nothing: another control plane leads."""
        self._fleet = None
        self._view.changed()
        self._view.set_blocked({})

    def _whole(self, snapshot: Snapshot, now: float) -> list[Command]:
        fleet = ProposedFleet()
        for worker in snapshot.workers.values():
            fleet.put(self._executor.with_in_flight(worker), snapshot, now)
        commands = replan(fleet, snapshot, now)
        self._fleet = fleet
        self._view.set_blocked(self._blocked(commands, now))
        took_s = self._clock.monotonic() - now
        self._due_s = now + max(MIN_PERIOD_S, took_s / MAX_SHARE)
        return commands

    def _put(
        self, fleet: ProposedFleet, worker_id: str, snapshot: Snapshot, now: float
    ) -> set[VersionKey]:
        """Updates one worker; returns the versions that it has or had."""
        old = fleet.workers.get(worker_id)
        before: Collection[VersionKey] = {*old.replicas, *old.leaving} if old is not None else ()
        worker = snapshot.workers.get(worker_id)
        if worker is None:
            fleet.drop(worker_id)
            return set(before)
        fleet.put(self._executor.with_in_flight(worker), snapshot, now)
        if old is None:
            self._given_up.clear()  # a new worker may load what others could not
        return {*before, *worker.replicas}

    def _blocked(self, commands: list[Command], now: float) -> dict[VersionKey, Blocked]:
        """The wants that are blocked, and those dropped lately: callers hear the reason until a
        retry is allowed.
        """
        known = self._view.waits
        self._given_up = {  # without those that someone asked for again
            key: (blocked, until)
            for key, (blocked, until) in self._given_up.items()
            if now < until and known.get(key) is blocked
        }
        current = {command.key: command for command in commands if isinstance(command, Blocked)}
        for command in commands:
            blocked = current.get(command.key)
            if isinstance(command, DropWant) and blocked is not None:
                self._given_up[command.key] = (blocked, now + (blocked.retry_after_s or 0.0))
        return {**{key: blocked for key, (blocked, _) in self._given_up.items()}, **current}
