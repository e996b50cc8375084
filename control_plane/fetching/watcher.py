"""Looks at watched folders, and registers their new files as versions.

Every control plane runs it, and only the leader looks. What was seen is in the store; a file that
may still be written is remembered by this process alone, so that a new leader looks at it twice.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.fetching.download import Downloads
from control_plane.fetching.watch_look import Waiting, look, matching
from control_plane.models.registration import Registration
from control_plane.sources.remote_file import Found
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.store.transactions import PENDING
from control_plane.types.event import EventKind
from control_plane.types.sources.source import Source
from control_plane.types.sources.watch import MAX_FILES, Watch
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, SourceInvalid, YolopoolError
from yolopool.server.clock import Clock
from yolopool.server.time_limits import ended

log = structlog.get_logger()

TICK_S = 0.25


@dataclass(slots=True)
class _Looks:
    """What this process knows of one watch beside its record."""

    due_s: float = 0.0  # monotonic
    count: int = 0
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    @property
    def is_looking(self) -> bool:
        return self.task is not None and not self.task.done()


class Watcher:
    """`is_leader`: whether this control plane leads now; `another_leads`: whether another does.
    `declared`: watches that are set when this control plane leads first.
    """

    def __init__(
        self,
        records: SourceRecords,
        registration: Registration,
        downloads: Downloads,
        view: View,
        refresh: Refresh,
        recorder: EventRecorder,
        clock: Clock,
        is_leader: Callable[[], bool],
        another_leads: Callable[[], bool],
        declared: Sequence[Watch] = (),
    ) -> None:
        self._records = records
        self._registration = registration
        self._downloads = downloads
        self._view = view
        self._refresh = refresh
        self._recorder = recorder
        self._clock = clock
        self._is_leader = is_leader
        self._another_leads = another_leads
        self._looks: dict[str, _Looks] = {}
        # Of this process's settings, that are not in the store yet.
        self._declared = list(declared)

    async def run(self) -> None:
        """Does not return."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(TICK_S)
        finally:
            await ended([looks.task for looks in self._looks.values() if looks.task])

    async def step(self) -> None:
        """Begins the looks that are due."""
        leads = self._view.is_loaded and self._is_leader()
        if leads:
            await self._declare()
        watches = self._view.desired.watches if leads else {}
        gone = [self._looks.pop(name) for name in self._looks.keys() - watches.keys()]
        await ended([looks.task for looks in gone if looks.task and not looks.task.done()])
        for name, watch in watches.items():
            looks = self._looks.setdefault(name, _Looks())
            if not looks.is_looking and self._clock.monotonic() >= looks.due_s:
                looks.task = asyncio.create_task(self._look(watch, looks), name=f"watch {name}")

    async def _declare(self) -> None:
        try:
            while self._declared:
                await self._records.put_watch(self._declared[0])
                await self._refresh()
                del self._declared[0]
        except RegistryUnavailable as error:
            log.info("watches of the settings wait for the registry", why=error.message)

    async def newest(self, limit_s: float) -> bool:
        """Waits until each watch was looked at, and what is new there is imported, or failed; for
        `limit_s` seconds at most. Returns whether that is so. A store that can't be read is not
        waited for, and of several control planes only the leader waits.
        """
        until = self._clock.monotonic() + limit_s
        while not self._has_newest():
            if self._clock.monotonic() >= until:
                log.warning("serving without the newest files of watches", waited_s=limit_s)
                return False
            await asyncio.sleep(TICK_S)
        return True

    def _has_newest(self) -> bool:
        if not self._is_leader():
            return self._another_leads()
        desired = self._view.desired
        looked = not self._declared and all(
            (looks := self._looks.get(name)) is not None
            and looks.count
            and not looks.waiting
            and not looks.is_looking
            for name in desired.watches
        )
        watched = {watch.model for watch in desired.watches.values()}
        pending = any(
            version.key.model in watched and version.state in PENDING
            for version in desired.versions.values()
        )
        return looked and not pending

    async def _look(self, watch: Watch, looks: _Looks) -> None:
        try:
            await self._looked(watch, looks)
        except RegistryUnavailable as error:
            log.info("a watch waits for the registry", watch=watch.name, why=error.message)
        except YolopoolError as error:
            await self._failed(watch, looks, error)
        except Exception:
            log.exception("a watch failed: this is a bug", watch=watch.name)
        looks.count += 1
        pause_s = min(watch.settle_s, watch.every_s) if looks.waiting else watch.every_s
        looks.due_s = self._clock.monotonic() + pause_s

    async def _looked(self, watch: Watch, looks: _Looks) -> None:
        source = Source(watch.uri, watch.profile)
        listed = await self._downloads.listed(source)
        found = matching(watch, listed)
        if len(found) > MAX_FILES:
            raise SourceInvalid(
                f"{len(found)} files match, and at most {MAX_FILES} are watched: move old ones "
                "away, or give a narrower pattern"
            )
        seen = look(watch, found, looks.waiting, self._clock.monotonic())
        known, present = dict(seen.passed_over), {file.name for file in found}
        looks.waiting = seen.waiting
        for file in seen.new:
            if not self._is_set(watch):
                return  # it was removed during this look, perhaps with its model
            await self._register(watch, file)
            known[file.name] = file.stamp
            await self._note(watch, known, present)
        # That a look was the first is noted at once: the next leader takes what came since for new.
        if known or watch.error or not watch.begun or watch.seen.keys() - present:
            await self._note(watch, known, present)

    def _is_set(self, watch: Watch) -> bool:
        now = self._view.desired.watches.get(watch.name)
        return now is not None and (now.uri, now.model) == (watch.uri, watch.model)

    async def _note(self, watch: Watch, known: Mapping[str, str], present: set[str]) -> None:
        await self._records.note_watch(watch, known, present)
        await self._refresh()

    async def _register(self, watch: Watch, file: Found) -> None:
        """A repeat for the same state of a file makes no second version."""
        state = f"{watch.name}\n{watch.model}\n{file.uri}\n{file.stamp}"
        request_id = f"watch-{hashlib.sha256(state.encode()).hexdigest()[:40]}"
        version = await self._registration.register_again(
            watch.model,
            Source(file.uri, watch.profile),
            source_name=file.name,
            request_id=request_id,
            by=f"watch {watch.name}",
        )
        log.info("a watch found a file", watch=watch.name, file=file.uri, version=str(version.key))

    async def _failed(self, watch: Watch, looks: _Looks, error: YolopoolError) -> None:
        """Told once, and kept with the watch until a look succeeds."""
        looks.waiting = {}
        said = f"{error.reason}: {error.message}"
        if said == watch.error:
            return
        log.warning("a watch can't look", watch=watch.name, reason=error.reason, why=error.message)
        message = f"watch {watch.name}: {error.message}"
        self._recorder.record(EventKind.WATCH_FAILED, reason=error.reason, message=message)
        try:
            await self._records.note_watch(watch, {}, (), said)
            await self._refresh()
        except RegistryUnavailable as away:
            log.info("a watch waits for the registry", watch=watch.name, why=away.message)
