"""Fetches the files of versions that were registered by a URI.

Every control plane runs it, and only the leader fetches. What is to be fetched is read from desired
state, so the next leader goes on where the last one stopped: from the part that is in the store, if
both have one store.
"""

import asyncio
import math
from collections.abc import Callable
from random import Random

import structlog

from control_plane.fetching.download import Arrived, Downloads, Progress
from control_plane.fetching.pauses import pause_s
from control_plane.models.registration import Registration
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.tenants.stored_bytes import StoredBytes
from control_plane.types.sources.source import Source
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.view.view import View
from yolopool.errors import (
    Internal,
    RegistryUnavailable,
    SourceInvalid,
    SourceUnavailable,
    YolopoolError,
)
from yolopool.server.clock import Clock
from yolopool.server.exhaustion import typed
from yolopool.server.time_limits import ended

log = structlog.get_logger()

TICK_S = 0.5
# How often the progress of a download is written.
REPORT_S = 1.0
STEP = "fetch"


class Fetcher:
    """`limit_s`: how long a file may take, pauses after failures included."""

    def __init__(
        self,
        records: SourceRecords,
        registration: Registration,
        downloads: Downloads,
        stored: StoredBytes,
        view: View,
        clock: Clock,
        rng: Random,
        is_leader: Callable[[], bool],
        parallel: int,
        limit_s: float,
    ) -> None:
        self._records = records
        self._registration = registration
        self._downloads = downloads
        self._stored = stored
        self._view = view
        self._clock = clock
        self._rng = rng
        self._is_leader = is_leader
        self._turns = asyncio.Semaphore(parallel)
        self._limit_s = limit_s
        self._tasks: dict[VersionKey, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Does not return."""
        try:
            while True:
                changes = self._view.waiters.changes
                await self.step()
                await self._view.waiters.after(changes, TICK_S)
        finally:
            await ended(list(self._tasks.values()))

    async def step(self) -> None:
        """Begins what is to be fetched, and ends what is not any more."""
        wanted: dict[VersionKey, ModelVersion] = {}
        if self._view.is_loaded and self._is_leader():
            versions = self._view.desired.versions.values()
            waiting = [version for version in versions if version.is_fetching]
            wanted = {one.key: one for one in sorted(waiting, key=lambda v: v.created_unix_s)}
        gone = [self._tasks.pop(key) for key in self._tasks.keys() - wanted.keys()]
        await ended([task for task in gone if not task.done()])
        for key, version in wanted.items():
            if key not in self._tasks or self._tasks[key].done():
                self._tasks[key] = asyncio.create_task(self._fetch(version), name=f"fetch {key}")

    async def _fetch(self, version: ModelVersion) -> None:
        """One version, to its end."""
        try:
            await self._until_whole(version)
        except YolopoolError as error:
            await self._failed(version, error)
        except Exception:
            log.exception("a fetch failed: this is a bug", version=str(version.key))
            await self._failed(version, Internal("the fetch failed: see the control plane's log"))

    async def _until_whole(self, version: ModelVersion) -> None:
        source, failures, furthest = version.given.source, 0, 0
        if source is None:
            raise SourceInvalid(f"{version.key} has no source: register it again")
        until = math.inf
        while True:
            progress = Progress()
            try:
                async with self._turns:
                    now = self._clock.monotonic()
                    until = min(until, now + self._limit_s)  # it begins with the first turn
                    async with asyncio.timeout(until - now):
                        arrived = await self._attempt(version, source, progress)
                await self._hand_over(version, arrived)
                return
            except TimeoutError:
                raise SourceUnavailable(
                    f"the file was not there within {self._limit_s:g} s: see --fetch-timeout-s"
                ) from None
            except (YolopoolError, OSError, MemoryError) as failure:
                error = failure if isinstance(failure, YolopoolError) else typed(failure)
                if error is None or not error.retryable:
                    raise error or failure from None
                # One that gets on, however often it breaks off, is no lost cause.
                failures = 1 if progress.received_bytes > furthest else failures + 1
                furthest = max(furthest, progress.received_bytes)
                await self._rest(version, error, progress, failures, until)

    async def _hand_over(self, version: ModelVersion, arrived: Arrived) -> None:
        """As often as the registry needs: the file is there, and is not fetched again for that."""
        while True:
            try:
                await self._registration.arrived(version, arrived.artifact, arrived.metadata)
            except RegistryUnavailable as error:
                log.info("a fetched file waits", version=str(version.key), why=error.message)
                await asyncio.sleep(TICK_S)
            else:
                return

    async def _attempt(self, version: ModelVersion, source: Source, progress: Progress) -> Arrived:
        model = version.key.model
        reporting = asyncio.create_task(self._report(version, progress))
        try:
            arrived = await self._downloads.attempt(
                source, progress, lambda size_bytes: self._stored.check_fetch(model, size_bytes)
            )
        finally:
            await ended([reporting])
        # Its size may not have been told, and others came meanwhile.
        self._stored.check_model(model, arrived.artifact)
        return arrived

    async def _report(self, version: ModelVersion, progress: Progress) -> None:
        said = -1
        while True:
            if progress.received_bytes != said:
                said = progress.received_bytes
                await self._say(version, progress, STEP)
            await asyncio.sleep(REPORT_S)

    async def _rest(
        self,
        version: ModelVersion,
        error: YolopoolError,
        progress: Progress,
        failures: int,
        until: float,
    ) -> None:
        """Waits before the next attempt; raises the error if there is no time for one."""
        wait_s = max(pause_s(failures, self._rng.random()), error.retry_after_s or 0.0)
        if self._clock.monotonic() + wait_s >= until:
            raise error
        log.info(
            "a fetch waits",
            version=str(version.key),
            reason=error.reason,
            why=error.message,
            wait_s=round(wait_s, 1),
        )
        await self._say(version, progress, f"{STEP}: waits after {error.reason}")
        await asyncio.sleep(wait_s)

    async def _say(self, version: ModelVersion, progress: Progress, step: str) -> None:
        try:
            await self._records.progressed(version.key, progress.fraction, step)
        except RegistryUnavailable as error:
            log.debug("progress is not told", version=str(version.key), why=error.message)

    async def _failed(self, version: ModelVersion, error: YolopoolError) -> None:
        try:
            await self._registration.fetch_failed(version, error)
        except RegistryUnavailable as away:
            log.info("a failed fetch is not told yet", version=str(version.key), why=away.message)
