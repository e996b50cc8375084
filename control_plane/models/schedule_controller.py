"""The loop that makes schedules come true: look what is due, act, note what became of it.

Every control plane runs it; only the one that decides acts. Each write may be repeated, so that
another goes on where one ended in the middle.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from control_plane.clock import Clock
from control_plane.events.recorder import EventRecorder
from control_plane.models.changeover import Changeovers, Resolved, resolve
from control_plane.models.due import Agenda, Due, due
from control_plane.models.loading import Loader
from control_plane.store.registry import DesiredState
from control_plane.types.event import EventKind
from control_plane.types.schedule import Changeover, Schedule
from control_plane.types.version import VersionKey
from control_plane.view.catalogue import Catalogue
from control_plane.view.view import View
from yolopool.errors import LedgerFull, NotFound, RegistryUnavailable, YolopoolError
from yolopool.names import parse_ref

log = structlog.get_logger()

TICK_S = 0.5
# How long the loads of a change may take before it counts as failed for now, and the back-off.
PATIENCE_S = 120.0
RETRY_S, LONGEST_RETRY_S = 5.0, 300.0
NOTHING_DUE = Agenda((), 0.0)


@dataclass(slots=True)
class _Attempt:
    """What this process did about a moment of a schedule: which versions it set wants of and when
    (monotonic), how often that failed, and when it may be tried again.
    """

    moment_unix_s: float
    wanted: frozenset[VersionKey] | None = None
    began_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0
    told: str = ""


@dataclass(slots=True)
class _Progress:
    """Of one time as the holder: attempts by schedule and whether the moment has come, and own
    notes, since what is read of the store may be older.
    """

    attempts: dict[tuple[str, bool], _Attempt] = field(default_factory=dict)
    noted: dict[str, Schedule] = field(default_factory=dict)


class ScheduleController:
    """`is_leader`: whether this control plane is the one that decides now."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        changeovers: Changeovers,
        loads: Loader,
        recorder: EventRecorder,
        clock: Clock,
        is_leader: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._view = view
        self._changeovers = changeovers
        self._loads = loads
        self._recorder = recorder
        self._clock = clock
        self._is_leader = is_leader
        self._progress = _Progress()
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
        """Looks once, and does what can be done at once."""
        if not self._view.is_loaded or not self._is_leader():
            self._progress = _Progress()
            return
        for one in self._due():
            attempt = self._attempt(one)
            if self._clock.monotonic() < attempt.not_before_s:
                continue
            try:
                await self._advance(one, attempt)
            except RegistryUnavailable:
                raise
            except YolopoolError as error:
                await self._failed(one, attempt, error)

    def _due(self) -> tuple[Due, ...]:
        """The agenda, made anew when a schedule changed or more becomes due."""
        now = self._clock.unix()
        schedules = tuple(self._newest(one) for one in self._view.desired.schedules.values())
        if schedules != self._seen or now >= self._agenda.next_unix_s:
            self._agenda, self._seen = due(schedules, now), schedules
        return self._agenda.due

    def _newest(self, read: Schedule) -> Schedule:
        noted = self._progress.noted.get(read.name)
        if noted is None or noted.since_unix_s != read.since_unix_s:
            return read
        return noted if noted.last_unix_s >= read.last_unix_s else read

    def _attempt(self, one: Due) -> _Attempt:
        key = (one.schedule.name, one.has_come)
        attempt = self._progress.attempts.get(key)
        if attempt is None or attempt.moment_unix_s != one.moment_unix_s:
            attempt = self._progress.attempts[key] = _Attempt(one.moment_unix_s)
        return attempt

    async def _advance(self, one: Due, attempt: _Attempt) -> None:
        """Sets what is to be prepared; at the moment, when all is loaded, ends the rest."""
        change = self._resolved(one.schedule.change)
        if self._changeovers.in_the_way(change.keys):
            return
        wanted = frozenset(want.key for want in change.wants)
        if attempt.wanted != wanted:
            await self._changeovers.prepare(change)
            attempt.wanted, attempt.began_s = wanted, self._clock.monotonic()
            log.info("schedule prepares", schedule=one.schedule.name, models=_names(wanted))
        if one.has_come and self._all_loaded(change, attempt):
            await self._changeovers.release(change.release)
            await self._note(one, "")
            says = f"{one.schedule.name}: {change.says}"
            self._recorder.record(EventKind.SCHEDULE, message=says)
            log.info("schedule done", schedule=one.schedule.name, released=_names(change.release))

    def _resolved(self, change: Changeover) -> Resolved:
        """What is to be released and does not exist any more is gone already."""
        catalogue = self._view.catalogue
        there = tuple(ref for ref in change.release if _exists(catalogue, ref))
        now = self._clock.unix()
        return resolve(replace(change, release=there), catalogue, self._view.desired, now)

    def _all_loaded(self, change: Resolved, attempt: _Attempt) -> bool:
        """Raises what hinders it, and when it takes too long."""
        for want in change.wants:
            if self._view.desired.want(want.key) is None:
                raise LedgerFull(f"{want.key} was released again: its room was needed")
            if not self._loads.is_loaded(want):
                if self._clock.monotonic() - attempt.began_s > PATIENCE_S:
                    raise self._loads.timed_out(want.key)
                return False
        return True

    async def _failed(self, one: Due, attempt: _Attempt, error: YolopoolError) -> None:
        """Back off; the next attempt sets what is wanted again."""
        attempt.wanted = None
        attempt.not_before_s = self._clock.monotonic() + min(
            RETRY_S * 2 ** min(attempt.failures, 10), LONGEST_RETRY_S
        )
        attempt.failures += 1
        why = f"{error.reason}: {error.message}"
        log.warning("schedule failed for now", schedule=one.schedule.name, why=why)
        if error.reason != attempt.told:  # once, and not at every retry
            attempt.told = error.reason
            says = f"{one.schedule.name}: {error.message}"
            self._recorder.record(EventKind.SCHEDULE, reason=error.reason, message=says)
        if one.has_come:
            await self._note(one, why)

    async def _note(self, one: Due, error: str) -> None:
        noted = await self._registry.note_schedule(one.schedule.name, one.moment_unix_s, error)
        if noted is not None:
            self._progress.noted[noted.name] = noted
            self._view.put_schedule(noted)


def _exists(catalogue: Catalogue, reference: str) -> bool:
    try:
        catalogue.find(parse_ref(reference))
    except NotFound:
        return False
    return True


def _names(keys: Iterable[VersionKey]) -> list[str]:
    return sorted(str(key) for key in keys)
