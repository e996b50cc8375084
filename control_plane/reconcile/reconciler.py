"""The leader's loop: snapshot, plan, execute, record.

Only the leader plans and acts. While no leader is known each control plane plans and does nothing,
so that its callers hear why a version waits. No decisions are made here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from control_plane.leader.election import LeaderElection
from control_plane.reconcile.executor import Executor
from control_plane.reconcile.planner import Planner
from control_plane.store.registry import Registry
from control_plane.types.command import Assign, Command, DropWant, KeepPrefetched, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, StaleToken
from yolopool.server.clock import Clock

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ReconcilerTimings:
    """Seconds: the longest between two plans, and how long and how often workers are put on
    record. The record outlives all control planes, so that those that come back know for whom to
    wait; a worker that left or was lost is taken off it.
    """

    tick_s: float = 0.5
    record_keep_s: float = 86_400.0
    record_every_s: float = 2.0


class Reconciler:
    """`run` until cancelled, then `close`. One event loop, one task."""

    def __init__(
        self,
        election: LeaderElection,
        registry: Registry,
        view: View,
        refresh: Refresh,
        executor: Executor,
        clock: Clock,
        timings: ReconcilerTimings,
        planned: Callable[[float, Sequence[Command]], None] = lambda seconds, commands: None,
    ) -> None:
        """`planned` is told what each plan took, and its commands."""
        self._election = election
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._executor = executor
        self._planner = Planner(view, executor, clock)
        self._clock = clock
        self._timings = timings
        self._planned = planned
        self._recorded_s = 0.0

    async def run(self) -> None:
        while True:
            seen = self._view.waiters.changes
            try:
                await self._step()
            except RegistryUnavailable as error:
                self._election.registry_lost(error)
            except StaleToken as error:
                self._election.deposed(error)
            except Exception:
                log.exception("a plan failed: this is a bug")
            await self._view.waiters.after(seen, self._timings.tick_s)

    async def close(self) -> None:
        """Cancels the commands under way."""
        await self._executor.close()

    async def _step(self) -> None:
        if not self._view.is_loaded:
            return
        token = await self._election.campaign()
        if token is None and self._view.leader_address:
            # Callers here hear from the leader what its plan says.
            self._planner.stand_by()
            return
        if token is None or not self._election.has_gathered():
            self._planner.dry_run()
            return
        began = self._clock.monotonic()
        commands = self._planner.next()
        self._planned(self._clock.monotonic() - began, commands)
        try:
            refused = await self._election.bounded(self._write(commands, token))
        except BaseException:
            self._planner.start_over()  # what was planned is not carried out
            raise
        for command in _possible(commands, refused):
            self._executor.start(command, token)
        if refused:
            self._planner.start_over()
        await self._election.bounded(self._record())

    async def _write(self, commands: list[Command], token: FencingToken) -> set[VersionKey]:
        """Writes what the plan changes of wants, before workers act: otherwise the next plan would
        reload what was evicted, and release what was prefetched. Returns the versions whose want
        can't be dropped, since someone pinned it meanwhile.
        """
        self._view.plan_drops(command.key for command in commands if _replicas_left(command) == 0)
        refused, has_written = set[VersionKey](), False
        for command in commands:
            left, source = _replicas_left(command), _want_source(command)
            if left is not None:
                if not await self._registry.forget(command.key, token, left):
                    refused.add(command.key)
            elif source is not None:
                want = Want(command.key, 1, False, source, self._clock.unix())
                await self._registry.want(want, token)
            else:
                continue
            has_written = True
        if has_written and not await self._refresh():
            raise RegistryUnavailable("what the plan wrote can't be read: no worker is told")
        return refused

    async def _record(self) -> None:
        now = self._clock.monotonic()
        if now - self._recorded_s >= self._timings.record_every_s:
            self._recorded_s = now
            live = [worker for worker in self._view.workers.values() if worker.is_live(now)]
            await self._registry.record_workers(live, self._timings.record_keep_s)
            for key, footprint in list(self._view.footprints.unrecorded.items()):
                await self._registry.record_footprint(key, footprint)
                self._view.footprints.recorded(key, footprint)


def _replicas_left(command: Command) -> int | None:
    """How many replicas stay wanted of the want that a command drops; None: it drops none."""
    if isinstance(command, DropWant):
        return 0
    return command.replicas_left if isinstance(command, Release) and command.drop_want else None


def _want_source(command: Command) -> WantSource | None:
    """The source of the want that a command sets; None: it sets none."""
    if isinstance(command, KeepPrefetched):
        return WantSource.MISS
    is_prefetch = isinstance(command, Assign) and command.prefetch
    return WantSource.PREFETCH if is_prefetch else None


def _possible(commands: list[Command], refused: set[VersionKey]) -> list[Assign | Release]:
    """The commands that may be executed although the `refused` versions stay."""
    releases = [c for c in commands if isinstance(c, Release) and c.key not in refused]
    assigns = [c for c in commands if isinstance(c, Assign) and refused.isdisjoint(c.after)]
    return [*releases, *assigns]
