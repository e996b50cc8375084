"""Looks at what changed and plans: the whole fleet now and then, and what changed in between.

No decisions and no calls. The board is kept from plan to plan, with what is under way laid over it.
"""

from collections.abc import Collection
from dataclasses import replace

from control_plane.clock import Clock
from control_plane.reconcile.executor import Executor
from control_plane.scheduling.plan import replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.types.command import Blocked, Command, DropWant
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import VersionKey
from control_plane.view.view import View

# A look at everything takes at most this share of the time, and is not due more often than this.
SHARE, LEAST_S = 0.05, 0.5


def projected(view: View, executor: Executor) -> Snapshot:
    """The fleet as it will be once what is under way is done: to be used at once."""
    snapshot = view.snapshot(executor.releasing)
    workers = {id_: executor.with_in_flight(worker) for id_, worker in snapshot.workers.items()}
    return replace(snapshot, workers=workers)


class Planner:
    """One event loop, no awaits. Only for plans whose commands are carried out is `next`."""

    def __init__(self, view: View, executor: Executor, clock: Clock) -> None:
        self._view = view
        self._executor = executor
        self._clock = clock
        self._fleet: ProposedFleet | None = None
        self._due_s = 0.0
        self._given_up: dict[VersionKey, tuple[Blocked, float]] = {}

    def next(self) -> list[Command]:
        """Commands to carry out now; what they will have done is laid over the next plan."""
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
        self._view.set_blocked(self._waits(commands, now))
        return commands

    def start_over(self) -> None:
        """What the board has laid over it did not come about: look at everything."""
        self._fleet = None

    def dry_run(self) -> None:
        """Says why versions are not where they are wanted; for one who may do nothing about it."""
        now = self._clock.monotonic()
        self._fleet = None
        if now >= self._due_s:
            self._whole(self._view.snapshot(self._executor.releasing), now)
            self._fleet = None

    def stand_by(self) -> None:
        """Plans nothing: another control plane does."""
        self._fleet = None
        self._view.changed()
        self._view.set_blocked({})

    def _whole(self, snapshot: Snapshot, now: float) -> list[Command]:
        fleet = ProposedFleet()
        for worker in snapshot.workers.values():
            fleet.put(self._executor.with_in_flight(worker), snapshot, now)
        commands = replan(fleet, snapshot, now)
        self._fleet = fleet
        self._view.set_blocked(self._waits(commands, now))
        took_s = self._clock.monotonic() - now
        self._due_s = now + max(LEAST_S, took_s / SHARE)
        return commands

    def _put(
        self, fleet: ProposedFleet, worker_id: str, snapshot: Snapshot, now: float
    ) -> set[VersionKey]:
        """Takes a worker as it is now; answers what is, or was, there."""
        old = fleet.workers.get(worker_id)
        before: Collection[VersionKey] = {*old.replicas, *old.leaving} if old is not None else ()
        worker = snapshot.workers.get(worker_id)
        if worker is None:
            fleet.drop(worker_id)
            return set(before)
        fleet.put(self._executor.with_in_flight(worker), snapshot, now)
        if old is None:
            self._given_up.clear()  # a new worker may do what others could not
        return {*before, *worker.replicas}

    def _waits(self, commands: list[Command], now: float) -> dict[VersionKey, Blocked]:
        """What the plan could not do, and what was given up lately: whoever asks hears why, until
        it may be tried again.
        """
        known = self._view.waits
        self._given_up = {  # less what someone asks for anew
            key: (wait, until)
            for key, (wait, until) in self._given_up.items()
            if now < until and known.get(key) is wait
        }
        waits = {command.key: command for command in commands if isinstance(command, Blocked)}
        for command in commands:
            wait = waits.get(command.key)
            if isinstance(command, DropWant) and wait is not None:
                self._given_up[command.key] = (wait, now + (wait.retry_after_s or 0.0))
        return {**{key: wait for key, (wait, _) in self._given_up.items()}, **waits}
