"""Observes the fleet and records what changed as events, in the leader alone: so each change is
recorded once.
"""

import asyncio
from collections.abc import Callable

import structlog

from control_plane.events import adaptions
from control_plane.events.adaptions import Adaptions
from control_plane.events.discrepancies import Subject, discrepancies, other_answers
from control_plane.events.recorder import EventRecorder
from control_plane.events.transitions import Notice, Observation, Reported, diff
from control_plane.store.protocols.observed_state import ObservedState
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable
from yolopool.server.clock import Clock

log = structlog.get_logger()
# The longest and the shortest time between two observations: short, so that the join of a worker is
# recorded before its loads, yet not zero, since a busy fleet changes all the time.
TICK_S, PAUSE_S = 0.25, 0.02
# Discrepancies are looked for this often, and recorded once they have lasted: a version that was
# just deleted is still being released.
DISCREPANCIES_EVERY_S, DISCREPANCY_LASTS_S = 1.0, 5.0


class FleetObserver:
    """`token` returns the leader's token, None where this control plane does not lead; `gather_s`
    is how long workers on record may take to call.
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
        self._adaptions: Adaptions = {}
        self._since: dict[Subject, float] = {}
        self._recorded: set[Subject] = set()
        self._discrepancies_due_s = 0.0
        # The leadership under which desired state was searched for builds that serve nowhere, and
        # the versions that have one.
        self._searched: FencingToken | None = None
        self._warned: set[VersionKey] = set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            seen = self._view.waiters.changes
            try:
                await self._observe()
            except RegistryUnavailable:
                log.info("changes of the fleet are recorded when the registry is back")
            except Exception:
                log.exception("an observation of the fleet failed: this is a bug")
            await asyncio.sleep(PAUSE_S)
            await self._view.waiters.after(seen, TICK_S)

    async def _observe(self) -> None:
        token = self._token()
        if token is None:
            return
        if self._known is None or self._known.token != token:
            recorded = await self._registry.workers()
            self._known = Reported.of(token, self._clock.monotonic(), recorded, self._known)
            self._recorder.record(EventKind.TAKEOVER, message=f"leads now, under token {token}")
        self._warn_of_builds(token)
        view, before = self._view, self._known
        wanted = {key for key in before.failed if view.desired.want(key) is not None}
        observation = Observation(token, view.workers, view.waits, wanted, self._clock.monotonic())
        self._known, notices = diff(before, observation, self._gather_s)
        self._adaptions, adapted = adaptions.diff(self._adaptions, view.workers)
        for notice in [*notices, *adapted]:
            self._record(notice)
        self._record_discrepancies()
        for notice in notices:
            if notice.kind is EventKind.WORKER_LOST:
                # Taken off the record, so that the next leader does not report it again.
                await self._registry.drop_worker(notice.worker, before.present[notice.worker])

    def _warn_of_builds(self, token: FencingToken) -> None:
        """Warns once of each version that has a build which serves nowhere. A release that does not
        know compute classes leaves such builds.
        """
        if self._searched == token or not self._view.is_loaded:
            return
        self._searched = token
        for key, version in self._view.desired.versions.items():
            if key in self._warned:
                continue
            for kind, build in version.serving_nowhere:
                self._warned.add(key)
                log.warning(
                    "a build was compared on no compute class and serves nowhere: compare it with "
                    "yolopool models build --serve, or run the command",
                    version=str(key),
                    build=build.variant,
                    device_kind=kind,
                    command=f"yolopool models variant {key} {build.variant} --device {kind} "
                    "--unchecked",
                )

    def _record_discrepancies(self) -> None:
        """Records each discrepancy once, when it has lasted."""
        now = self._clock.monotonic()
        if now < self._discrepancies_due_s:
            return
        self._discrepancies_due_s = now + DISCREPANCIES_EVERY_S
        view = self._view
        found = discrepancies(view.workers.values(), view.desired)
        answers = other_answers(view.workers.values())
        names = {worker.incarnation: worker.id for worker in view.workers.values()}
        self._since = {subject: self._since.get(subject, now) for subject in found}
        self._recorded &= found.keys() | answers.keys()
        for subject, (key, message) in answers.items():
            if subject not in self._recorded:
                self._recorded.add(subject)
                self._recorder.record(
                    EventKind.PROBE_FAILED, worker=names[subject[0]], version=key, message=message
                )
        for subject, message in found.items():
            lasts_s = now - self._since[subject]
            if subject not in self._recorded and lasts_s >= DISCREPANCY_LASTS_S:
                self._recorded.add(subject)
                worker = names[subject[0]]
                self._recorder.record(EventKind.DIFFERENCE, worker=worker, message=message)

    def _record(self, notice: Notice) -> None:
        self._recorder.record(
            notice.kind,
            worker=notice.worker,
            version=notice.version,
            reason=notice.reason,
            message=notice.message,
        )
