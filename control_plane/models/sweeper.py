"""Removes files of the artifact store that nothing uses any more, now and then and when asked."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.files.unused import FileKind, UnusedFile, in_use, unused
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
    """Files are kept for `grace_s` after their last use. One sweep runs at a time.

    By itself it removes only what it has found unused for as long: if the store came back without
    its last versions, of an old backup or a follower behind, there is time to put them back.
    """

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
        # When each unused file was first found so, monotonic; forgotten once it is used.
        self._unused_since_s: dict[tuple[FileKind, str], float] = {}

    async def run(self) -> None:
        """Does not return."""
        said = ""
        while True:
            await asyncio.sleep(min(MAX_PERIOD_S, self._grace_s / 4))
            try:
                await self.sweep(None, dry_run=False, watched_s=self._grace_s)
                said = ""
            except YolopoolError as error:
                if error.message != said and self._view.is_loaded:
                    log.warning("unused files are not removed", why=error.message)
                    said = error.message
            except OSError as error:
                log.error("unused files can't be removed", why=str(error))

    async def sweep(self, grace_s: float | None, *, dry_run: bool, watched_s: float = 0.0) -> Sweep:
        """Finds what nothing uses, and removes what is past its grace (None: the setting) and was
        found unused by every sweep of this process for `watched_s`.

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
            past = [one for one in self._watched(found, watched_s) if not one.keep_s]
            removed = frozenset() if dry_run else await self._remove(past)
            return Sweep(found, removed)

    def _watched(self, found: Iterable[UnusedFile], watched_s: float) -> list[UnusedFile]:
        """Those of the unused files that were found unused for so long."""
        now, before = self._clock.monotonic(), self._unused_since_s
        of = {(one.file.kind, one.file.name): one for one in found}
        self._unused_since_s = {name: before.get(name, now) for name in of}
        return [one for name, one in of.items() if now - self._unused_since_s[name] >= watched_s]

    async def _remove(self, found: Iterable[UnusedFile]) -> frozenset[str]:
        removed = [one.file for one in found if await self._artifacts.remove(one.file)]
        if removed:
            log.info(
                "unused files removed",
                count=len(removed),
                bytes=sum(file.size_bytes for file in removed),
            )
        return frozenset(file.name for file in removed)

    def _check_owner(self, cluster: str) -> None:
        others = self._artifacts.owners(cluster) - {cluster}
        if others:
            raise FailedPrecondition(
                f"these files belong to another store too ({', '.join(sorted(others))}; this one "
                f"is {cluster}), so none is removed: if it is gone, remove "
                f"{self._artifacts.owner_file}"
            )
