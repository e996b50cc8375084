"""Removes files of the artifact store that nothing uses any more, now and then and when asked."""

import asyncio
from dataclasses import dataclass

import structlog

from control_plane.store.artifacts import FolderArtifacts
from control_plane.store.unused import UnusedFile, in_use, unused
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import FailedPrecondition, RegistryUnavailable, YolopoolError
from yolopool.server.clock import Clock

log = structlog.get_logger()

MAX_PERIOD_S = 600.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep found, and the names of the files that it removed."""

    found: tuple[UnusedFile, ...]
    removed: frozenset[str]


class Sweeper:
    """Files are kept for `grace_s` after their last use. One sweep runs at a time."""

    def __init__(
        self,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        clock: Clock,
        grace_s: float,
    ) -> None:
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._clock = clock
        self._grace_s = grace_s
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Does not return."""
        said = ""
        while True:
            await asyncio.sleep(min(MAX_PERIOD_S, self._grace_s / 4))
            try:
                await self.sweep(None, dry_run=False)
                said = ""
            except YolopoolError as error:
                if error.message != said and self._view.is_loaded:
                    log.warning("unused files are not removed", why=error.message)
                    said = error.message
            except OSError as error:
                log.error("unused files can't be removed", why=str(error))

    async def sweep(self, grace_s: float | None, *, dry_run: bool) -> Sweep:
        """Finds what nothing uses, and removes what is past its grace (None: the setting).

        Raises RegistryUnavailable while the store can't be read, and FailedPrecondition if the
        files belong to another store.
        """
        async with self._turn:
            # What others registered must be known before anything is taken for unused.
            if not await self._refresh() or not self._view.registry_available:
                raise RegistryUnavailable(
                    "the store can't be read, so what is in use is not known: try again later"
                )
            await asyncio.to_thread(self._check_owner, self._view.desired.cluster)
            files = await asyncio.to_thread(lambda: list(self._artifacts.files()))
            grace_s = self._grace_s if grace_s is None else grace_s
            # Read once more: a version may have been registered while the folder was listed.
            if not await self._refresh():
                raise RegistryUnavailable("the store went away: nothing was removed, try again")
            used = in_use(self._view.desired, self._view.workers.values())
            found = tuple(unused(files, used, grace_s, self._clock.unix()))
            removed = frozenset() if dry_run else await self._remove(found)
            return Sweep(found, removed)

    async def _remove(self, found: tuple[UnusedFile, ...]) -> frozenset[str]:
        removed = [
            one.file for one in found if not one.keep_s and await self._artifacts.remove(one.file)
        ]
        if removed:
            log.info(
                "unused files removed",
                count=len(removed),
                bytes=sum(file.size_bytes for file in removed),
            )
        return frozenset(file.name for file in removed)

    def _check_owner(self, cluster: str) -> None:
        owner = self._artifacts.owner()
        if not owner:
            self._artifacts.claim(cluster)
        elif owner != cluster:
            raise FailedPrecondition(
                f"these files belong to another store ({owner}; this one is {cluster}), so none is "
                f"removed: if they are not needed, remove {self._artifacts.owner_file}"
            )
