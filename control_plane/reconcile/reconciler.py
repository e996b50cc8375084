"""The loop that turns desired into observed: snapshot, plan, execute; and who may run it.

Only the one that holds the registry's lease plans and acts, under a fencing token that workers
check; the others forward to it. While nobody is known to hold it, each plans, so that its callers
hear why something waits. No decisions.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TypeVar

import structlog

from control_plane.clock import Clock
from control_plane.reconcile.executor import Executor
from control_plane.reconcile.planner import Planner
from control_plane.store.registry import Registry
from control_plane.types.command import Assign, Command, DropWant, KeepPrefetched, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, StaleToken

log = structlog.get_logger()

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ReconcilerTimings:
    """Seconds: the longest between two plans, the lease of the one writer, how long to wait for
    known workers at the start, how long and how often workers are put on record.
    """

    tick_s: float = 0.5
    lease_s: float = 3.0
    gather_s: float = 3.0
    record_keep_s: float = 30.0
    record_every_s: float = 2.0


class Reconciler:
    """`name` is this process's in the lease, `address` where other control planes reach it."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        view: View,
        executor: Executor,
        clock: Clock,
        timings: ReconcilerTimings,
    ) -> None:
        self._name = name
        self.address = ""  # known once it listens
        self._registry = registry
        self._view = view
        self._executor = executor
        self._planner = Planner(view, executor, clock)
        self._clock = clock
        self._timings = timings
        self._token: FencingToken | None = None
        self._renewed_s = 0.0
        self._recorded_s = 0.0
        self._began_s = clock.monotonic()

    @property
    def is_leader(self) -> bool:
        return self.token is not None

    @property
    def token(self) -> FencingToken | None:
        """What this control plane decides under; None: another does, or nobody. One that stood
        still for longer than its lease is not to act before it has looked.
        """
        ran_out = self._clock.monotonic() - self._renewed_s >= self._timings.lease_s
        return None if ran_out else self._token

    @property
    def acting_token(self) -> FencingToken | None:
        """Under which this process may command workers now; None: it may not, or not yet."""
        return self.token if self._has_gathered() else None

    async def run(self) -> None:
        while True:
            seen = self._view.waiters.changes
            try:
                await self._step()
            except RegistryUnavailable as error:
                self._lost_registry(error)
            except StaleToken as error:
                log.warning("another control plane decides now", message=error.message)
                self._view.apply_token(self._token)
                self._token = None
            except Exception:
                log.exception("a plan failed: this is a bug")
            await self._view.waiters.after(seen, self._timings.tick_s)

    async def close(self) -> None:
        """Ends what is under way and gives the lease up for the next."""
        await self._executor.close()
        if self._token is not None:
            await self._registry.drop_lease(self._token)
            self._token = None

    async def _step(self) -> None:
        if not self._view.is_loaded:
            return
        token = await self._bounded(self._hold_lease())
        if token is None and self._view.leader_address:
            # Callers here hear from the holder what its plan says.
            self._planner.stand_by()
            return
        if token is None or not self._has_gathered():
            self._planner.dry_run()
            return
        commands = self._planner.next()
        try:
            refused = await self._bounded(self._write(commands, token))
        except BaseException:
            self._planner.start_over()  # what was planned is not carried out
            raise
        for command in _possible(commands, refused):
            self._executor.start(command, token)
        if refused:
            self._planner.start_over()
        await self._bounded(self._record())

    async def _bounded(self, step: Coroutine[object, object, Answer]) -> Answer:
        """A store that hangs is away: well before the lease it can't renew has run out."""
        try:
            async with asyncio.timeout(self._timings.lease_s / 2):
                return await step
        except TimeoutError as error:
            raise RegistryUnavailable(
                f"the registry did not answer in {self._timings.lease_s / 2:g} s: check its server"
            ) from error

    async def _write(self, commands: list[Command], token: FencingToken) -> set[VersionKey]:
        """Wants change before their replicas: else the next plan would load again what leaves, and
        release what nobody asked for yet. Answers those that were pinned meanwhile, or are gone.
        """
        refused = set()
        for command in commands:
            if isinstance(command, DropWant) or (isinstance(command, Release) and command.forget):
                left = command.left if isinstance(command, Release) else 0
                if await self._registry.forget(command.key, token, left):
                    self._view.lower_want(command.key, left)
                else:
                    refused.add(command.key)
            elif isinstance(command, KeepPrefetched):
                await self._want(command.key, WantSource.MISS, token)
            elif isinstance(command, Assign) and command.prefetch:
                await self._want(command.key, WantSource.PREFETCH, token)
        return refused

    async def _want(self, key: VersionKey, source: WantSource, token: FencingToken) -> None:
        held = await self._registry.want(Want(key, 1, False, source, self._clock.unix()), token)
        if held is not None:
            self._view.put_want(held)

    async def _record(self) -> None:
        now = self._clock.monotonic()
        if now - self._recorded_s >= self._timings.record_every_s:
            self._recorded_s = now
            live = [worker for worker in self._view.workers.values() if worker.is_live(now)]
            await self._registry.record_workers(live, self._timings.record_keep_s)
            for key, footprint in list(self._view.footprints.unrecorded.items()):
                await self._registry.record_footprint(key, footprint)
                self._view.footprints.recorded(key, footprint)

    async def _hold_lease(self) -> FencingToken | None:
        """The token of the lease if it is ours, taken or renewed as needed."""
        now = self._clock.monotonic()
        highest = self._view.highest_token
        if self._token is not None and (highest is None or highest <= self._token):
            if now - self._renewed_s < self._timings.lease_s / 3:
                return self._token
            if await self._registry.keep_lease(self._token, self._timings.lease_s):
                self._has_registry(now)
                return self._token
        # Above our own too: a store that lost it would give it out again.
        self._view.apply_token(self._token)
        self._token = await self._registry.take_lease(
            self._name, self._timings.lease_s, self._view.highest_token, self.address
        )
        self._has_registry(now)
        if self._token is not None:
            log.info("this control plane decides", token=str(self._token))
            self._view.set_leader(Leader(self._name, self._token, self.address))
        else:
            self._view.set_leader(await self._registry.leader())
        return self._token

    def _has_registry(self, now: float) -> None:
        # Counted from before the call: the store's lease can't end before ours does.
        self._renewed_s = now
        self._view.registry_available = True

    def _lost_registry(self, error: RegistryUnavailable) -> None:
        if self._view.registry_available:
            log.error("registry lost: serving goes on, nothing is moved", message=error.message)
        self._view.registry_available = False
        if self._clock.monotonic() - self._renewed_s >= self._timings.lease_s:
            self._view.apply_token(self._token)
            self._token = None
            self._view.set_leader(None)

    def _has_gathered(self) -> bool:
        """Whether the workers on record have called, or had the time to.

        Else a restarted control plane would load elsewhere what they hold.
        """
        expected = self._view.expected
        if expected is not None and expected <= self._view.workers.keys():
            return True
        return self._clock.monotonic() - self._began_s >= self._timings.gather_s


def _possible(commands: list[Command], refused: set[VersionKey]) -> list[Assign | Release]:
    """What may be carried out though these are not to leave after all."""
    releases = [c for c in commands if isinstance(c, Release) and c.key not in refused]
    assigns = [c for c in commands if isinstance(c, Assign) and refused.isdisjoint(c.after)]
    return [*releases, *assigns]
