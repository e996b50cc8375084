"""What comes into the pool by itself: files of versions that have a URI, and of watched folders."""

import asyncio
from collections.abc import Callable
from random import Random

from control_plane.events.recorder import EventRecorder
from control_plane.fetching.download import Downloads
from control_plane.fetching.fetcher import Fetcher
from control_plane.fetching.watcher import Watcher
from control_plane.models.registration import Registration
from control_plane.source_settings import SourceSettings
from control_plane.sources.opening import Sources
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.tenants.stored_bytes import StoredBytes
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.server.clock import Clock


class Intake:
    """`run` it; it needs `sources`, which also check what callers name."""

    def __init__(
        self,
        settings: SourceSettings,
        sources: Sources,
        registry: Registry,
        registration: Registration,
        artifacts: FolderArtifacts,
        stored: StoredBytes,
        view: View,
        refresh: Refresh,
        recorder: EventRecorder,
        clock: Clock,
        is_leader: Callable[[], bool],
        another_leads: Callable[[], bool],
    ) -> None:
        records = SourceRecords(registry)
        self._downloads = Downloads(sources, artifacts, settings.fetch_parallel)
        self._fetcher = Fetcher(
            records,
            registration,
            self._downloads,
            stored,
            view,
            clock,
            Random(),
            is_leader,
            settings.fetch_parallel,
            settings.fetch_timeout_s,
        )
        self._watcher = Watcher(
            records,
            registration,
            self._downloads,
            view,
            refresh,
            recorder,
            clock,
            is_leader,
            another_leads,
            settings.watches(clock.unix()),
        )
        self._view = view
        self._patience_s = settings.watch_before_serving_s
        if self._patience_s:
            view.preparing = "the newest files of its watches are not imported yet"

    async def prepared(self) -> None:
        """Returns once this process may say that it is ready, as its settings have it."""
        if self._view.preparing:
            await self._watcher.newest(self._patience_s)
            self._view.preparing = ""

    async def run(self) -> None:
        """Does not return."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._fetcher.run())
                group.create_task(self._watcher.run())
        finally:
            self._downloads.close()
