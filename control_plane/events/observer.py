"""Looks at the fleet again and again, and notes in the journal what changed: only where this
control plane decides, so that of several one reports.
"""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.clock import Clock
from control_plane.events.discrepancies import Subject, discrepancies
from control_plane.events.recorder import EventRecorder
from control_plane.events.transitions import Notice, Observation, Reported, diff
from control_plane.store.registry import ObservedState
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable

log = structlog.get_logger()
# Between two looks: at once after a change, so that a worker is told of before what it loads, yet
# not at every change of a busy fleet.
TICK_S, PAUSE_S = 0.25, 0.02
# Differences are looked for so often, and told when they have lasted: what was just deleted is
# still being released.
DIFFERENCES_EVERY_S, DIFFERENCE_LASTS_S = 1.0, 5.0


class FleetObserver:
    """`token` answers the token that this control plane decides under, None where it does not;
    `gather_s` is how long workers on record may take to call.
    """

    def __init__(
        self,
        registry: ObservedState,
        view: View,
        recorder: EventRecorder,
        token: Callable[[], FencingToken | None],
        clock: Clock,
        gather_s: float,
    ) -> None:
        self._registry = registry
        self._view = view
        self._recorder = recorder
        self._token = token
        self._clock = clock
        self._gather_s = gather_s
        self._known: Reported | None = None
        self._since: dict[Subject, float] = {}
        self._told: set[Subject] = set()
        self._differences_due_s = 0.0

    async def run(self) -> None:
        """Goes on for ever."""
        while True:
            seen = self._view.waiters.changes
            try:
                await self._look()
            except RegistryUnavailable:
                log.info("what changed in the fleet is noted when the registry is back")
            except Exception:
                log.exception("a look at the fleet failed: this is a bug")
            await asyncio.sleep(PAUSE_S)
            await self._view.waiters.after(seen, TICK_S)

    async def _look(self) -> None:
        token = self._token()
        if token is None:
            return
        if self._known is None or self._known.token != token:
            recorded = await self._registry.workers()
            self._known = Reported.of(token, self._clock.monotonic(), recorded, self._known)
            self._recorder.record(EventKind.TAKEOVER, message=f"decides now, under token {token}")
        view, before = self._view, self._known
        wanted = {key for key in before.failed if view.desired.want(key) is not None}
        look = Observation(token, view.workers, view.waits, wanted, self._clock.monotonic())
        self._known, notices = diff(before, look, self._gather_s)
        for notice in notices:
            self._note(notice)
        self._tell_differences()
        for notice in notices:
            if notice.kind is EventKind.WORKER_LOST:
                # Off the record: who takes over next is not to report it again.
                await self._registry.drop_worker(notice.worker, before.present[notice.worker])

    def _tell_differences(self) -> None:
        """Each once, when it has lasted."""
        now = self._clock.monotonic()
        if now < self._differences_due_s:
            return
        self._differences_due_s = now + DIFFERENCES_EVERY_S
        view = self._view
        found = discrepancies(view.workers.values(), view.desired)
        names = {worker.incarnation: worker.id for worker in view.workers.values()}
        self._since = {subject: self._since.get(subject, now) for subject in found}
        self._told &= found.keys()
        for subject, message in found.items():
            lasts_s = now - self._since[subject]
            if subject not in self._told and lasts_s >= DIFFERENCE_LASTS_S:
                self._told.add(subject)
                worker = names[subject[0]]
                self._recorder.record(EventKind.DIFFERENCE, worker=worker, message=message)

    def _note(self, notice: Notice) -> None:
        self._recorder.record(
            notice.kind,
            worker=notice.worker,
            version=notice.version,
            reason=notice.reason,
            message=notice.message,
        )
