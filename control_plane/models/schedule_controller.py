"""The loop that carries out schedules: find what is due, act, and note the outcome.

Every control plane runs it, and only the leader acts. Every write can be repeated, so that the next
leader can go on where the last one stopped.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.models.changeover import Changeovers, Resolved, resolve
from control_plane.models.due import Agenda, Due, due
from control_plane.models.loading import Loader
from control_plane.store.registry import DesiredState
from control_plane.types.event import EventKind
from control_plane.types.schedule import Changeover, Schedule
from control_plane.types.version import VersionKey
from control_plane.view.catalogue import Catalogue
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import LedgerFull, NotFound, RegistryUnavailable, YolopoolError
from yolopool.names import parse_ref
from yolopool.server.clock import Clock

log = structlog.get_logger()

TICK_S = 0.5
# How long the loads of a changeover may take before it counts as failed, and the back-off.
PATIENCE_S = 120.0
RETRY_S, MAX_RETRY_S = 5.0, 300.0
NOTHING_DUE = Agenda((), 0.0)


@dataclass(slots=True)
class _Attempt:
    """What this process did for one moment of a schedule: the versions it wanted and since when,
    its failures, and when it may retry (monotonic seconds).
    """

    moment_unix_s: float
    wanted: frozenset[VersionKey] | None = None
    began_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0
    recorded_reason: str = ""


class ScheduleController:
    """`is_leader`: whether this control plane leads now."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        changeovers: Changeovers,
        loader: Loader,
        recorder: EventRecorder,
        clock: Clock,
        is_leader: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._changeovers = changeovers
        self._loader = loader
        self._recorder = recorder
        self._clock = clock
        self._is_leader = is_leader
        # Of one term as the leader, by schedule and whether its moment has come.
        self._attempts: dict[tuple[str, bool], _Attempt] = {}
        self._seen: tuple[Schedule, ...] = ()
        self._agenda = NOTHING_DUE

    async def run(self) -> None:
        while True:
            try:
                await self.step()
            except RegistryUnavailable as error:
                log.info("schedules wait for the registry", why=error.message)
            except Exception:
                log.exception("a schedule failed: this is a bug")
            await asyncio.sleep(TICK_S)

    async def step(self) -> None:
        """One look, and all that can be done without waiting for a load."""
        if not self._view.is_loaded or not self._is_leader():
            self._attempts.clear()
            return
        for due_change in self._due():
            attempt = self._attempt(due_change)
            if self._clock.monotonic() < attempt.not_before_s:
                continue
            try:
                await self._advance(due_change, attempt)
            except RegistryUnavailable:
                raise
            except YolopoolError as error:
                await self._failed(due_change, attempt, error)

    def _due(self) -> tuple[Due, ...]:
        """The agenda, recomputed when a schedule changed or the next one becomes due."""
        now = self._clock.unix()
        schedules = tuple(self._view.desired.schedules.values())
        if schedules != self._seen or now >= self._agenda.next_unix_s:
            self._agenda, self._seen = due(schedules, now), schedules
        return self._agenda.due

    def _attempt(self, due_change: Due) -> _Attempt:
        key = (due_change.schedule.name, due_change.has_come)
        attempt = self._attempts.get(key)
        if attempt is None or attempt.moment_unix_s != due_change.moment_unix_s:
            attempt = self._attempts[key] = _Attempt(due_change.moment_unix_s)
        return attempt

    async def _advance(self, due_change: Due, attempt: _Attempt) -> None:
        """Wants what is to be prepared; once the moment has come and all is loaded, releases."""
        change = self._resolved(due_change.schedule.change)
        if self._changeovers.in_the_way(change.keys):
            return
        wanted = frozenset(want.key for want in change.wants)
        if attempt.wanted != wanted:
            self._changeovers.refuse_what_never_fits(change)
            await self._changeovers.prepare(change)
            if not await self._refresh():
                # By an older view the wants would look evicted: this process prepares them again.
                raise RegistryUnavailable("what a schedule prepared can't be read")
            attempt.wanted, attempt.began_s = wanted, self._clock.monotonic()
            log.info("schedule prepares", schedule=due_change.schedule.name, models=_names(wanted))
        if due_change.has_come and self._all_loaded(change, attempt):
            await self._changeovers.release(change.release)
            await self._note(due_change, "")
            message = f"{due_change.schedule.name}: {change.summary}"
            self._recorder.record(EventKind.SCHEDULE, message=message)
            log.info(
                "schedule done", schedule=due_change.schedule.name, released=_names(change.release)
            )

    def _resolved(self, change: Changeover) -> Resolved:
        """Leaves out what is to be released and does not exist any more."""
        catalogue = self._view.catalogue
        existing = tuple(ref for ref in change.release if _exists(catalogue, ref))
        now = self._clock.unix()
        return resolve(replace(change, release=existing), catalogue, self._view.desired, now)

    def _all_loaded(self, change: Resolved, attempt: _Attempt) -> bool:
        """Raises what blocks a load, and DeadlineExceeded after PATIENCE_S."""
        for want in change.wants:
            if self._view.desired.want(want.key) is None:
                raise LedgerFull(f"{want.key} was evicted again: its memory was needed")
            if not self._loader.is_loaded(want):
                if self._clock.monotonic() - attempt.began_s > PATIENCE_S:
                    raise self._loader.timed_out(want.key)
                return False
        return True

    async def _failed(self, due_change: Due, attempt: _Attempt, error: YolopoolError) -> None:
        """Backs off; the next attempt sets the wants again."""
        attempt.wanted = None
        attempt.not_before_s = self._clock.monotonic() + min(
            RETRY_S * 2 ** min(attempt.failures, 10), MAX_RETRY_S
        )
        attempt.failures += 1
        why = f"{error.reason}: {error.message}"
        log.warning(
            "schedule failed, it will be retried", schedule=due_change.schedule.name, why=why
        )
        if error.reason != attempt.recorded_reason:  # one event a reason, not one a retry
            attempt.recorded_reason = error.reason
            message = f"{due_change.schedule.name}: {error.message}"
            self._recorder.record(EventKind.SCHEDULE, reason=error.reason, message=message)
        if due_change.has_come:
            await self._note(due_change, why)

    async def _note(self, due_change: Due, error: str) -> None:
        name, moment_unix_s = due_change.schedule.name, due_change.moment_unix_s
        await self._registry.note_schedule(name, moment_unix_s, error)
        # By an older view the moment would be due again.
        while not await self._refresh():  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(TICK_S)


def _exists(catalogue: Catalogue, reference: str) -> bool:
    try:
        catalogue.find(parse_ref(reference))
    except NotFound:
        return False
    return True


def _names(keys: Iterable[VersionKey]) -> list[str]:
    return sorted(str(key) for key in keys)
