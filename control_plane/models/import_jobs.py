"""Imports that are under way: which importer has which version, and how each import ended."""

import asyncio
from contextlib import suppress

import structlog

from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.store.signed import Admit
from control_plane.types.version import (
    Imported,
    ModelVersion,
    Pack,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import ImportNotYours, InvalidOption
from yolopool.server.clock import Clock
from yolopool.vocabulary import TORCH

log = structlog.get_logger()

# An importer keeps its lease by reporting progress.
LEASE_S = 15.0
# An import lease that runs out is no change of desired state: nothing wakes a waiting importer.
POLL_S = 1.0
MAX_WAIT_S = 60.0
# An importer that has not called for this long is not counted any more.
SEEN_S = 30.0
# Reasons of loads that fail because of the pack.
PACK_REFUSED = frozenset({"DIGEST_MISMATCH", "PACK_INVALID", "PACK_NOT_FOUND"})


class Twins:
    """What an import would make, where a version of the same bytes and settings has it already."""

    def __init__(self, view: View, artifacts: FolderArtifacts) -> None:
        self._view = view
        self._artifacts = artifacts

    async def imported(
        self, artifact: str, settings: VersionSettings, given: ServingSpec
    ) -> Imported | None:
        """The pack of a version that is READY, if it is whole. A damaged pack is not taken over:
        the import that follows mends it.
        """
        if given.build_of is not None:
            return None
        found: dict[str, Imported] = {}
        for twin in self._view.desired.versions.values():
            is_twin = _is_twin(twin, artifact, settings, given)
            if is_twin and twin.pack is not None and not self._loads_fail(twin.key):
                found[twin.pack.digest] = Imported(twin.pack, twin.settings)
        for digest, imported in found.items():
            if await asyncio.to_thread(self._artifacts.is_whole, digest):
                return imported
        return None

    def _loads_fail(self, key: VersionKey) -> bool:
        """Whether a worker refuses the pack, perhaps because another release made it."""
        return any(
            of == key and failure.reason in PACK_REFUSED
            for (_, of), failure in self._view.failures.current.items()
        )


def _is_twin(
    ready: ModelVersion, artifact: str, settings: VersionSettings, given: ServingSpec
) -> bool:
    """Whether an import of this artifact would make the pack that `ready` has."""
    return (
        ready.state is VersionState.READY
        and ready.artifact == artifact
        and ready.asked == settings
        and ready.given.architecture_yaml == given.architecture_yaml
        and ready.given.class_names == given.class_names
        and ready.given.renamed == given.renamed
        and ready.given.build_of is None
    )


class ImportJobs:
    """Raises ImportNotYours where an importer reports on a version that is not its own. `by`: whose
    certificate or key it has.
    """

    def __init__(
        self,
        registry: Registry,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        twins: Twins,
        clock: Clock,
        admit: Admit,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._twins = twins
        self._clock = clock
        self._admit = admit
        self._seen: dict[str, float] = {}  # when each importer called last

    async def claim(self, importer: str, by: str, wait_s: float) -> ModelVersion | None:
        """The next version to import; None if there is none within `wait_s`."""
        until = self._clock.monotonic() + min(max(wait_s, 0.0), MAX_WAIT_S)
        while True:
            self.saw(importer)
            changes = self._view.waiters.changes
            version = await self._registry.claim_import(importer, LEASE_S, self._clock.unix(), by)
            if version is not None:
                if await self._is_settled(importer, by, version):
                    continue
                log.info("import claimed", version=str(version.key), importer=importer)
                await self._refresh()
                return version
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                return None
            await self._view.waiters.after(changes, min(left_s, POLL_S))

    def saw(self, importer: str) -> None:
        """An importer called."""
        self._seen[importer] = self._clock.monotonic()

    def count_importers(self) -> int:
        """Importers that called lately."""
        now = self._clock.monotonic()
        self._seen = {name: at for name, at in self._seen.items() if now - at < SEEN_S}
        return len(self._seen)

    async def progress(
        self, importer: str, by: str, key: VersionKey, fraction: float, step: str
    ) -> None:
        """Keeps the lease and notes how far the import is. The reflector shows it when it hears
        of it: there are many reports, and nobody waits for one.
        """
        now = self._clock.unix()
        fraction = min(max(fraction, 0.0), 1.0)
        await self._registry.report_progress(importer, key, fraction, step[:80], LEASE_S, now, by)

    async def finish(
        self, importer: str, by: str, key: VersionKey, pack: Pack, settings: VersionSettings
    ) -> None:
        """The version becomes READY. Raises InvalidOption if the pack is not what was ordered."""
        await self._check_build(importer, by, key, pack)
        # A version must not become READY with a pack that workers can't find.
        self._artifacts.check_pack(pack.digest)
        await self._registry.finish_import(importer, key, pack, settings, by)
        log.info("import finished", version=str(key), pack=pack.digest)
        await self._refresh()

    async def fail(
        self, importer: str, by: str, key: VersionKey, reason: str, message: str
    ) -> None:
        """The version becomes FAILED."""
        version = await self._registry.fail_import(
            importer, key, reason or "IMPORT_CRASHED", message[:2000], by
        )
        log.warning("import failed", version=str(key), reason=version.reason, why=version.message)
        await self._refresh()

    async def _is_settled(self, importer: str, by: str, version: ModelVersion) -> bool:
        """Whether there is nothing to import: it is refused, or the same was imported since it was
        registered.
        """
        if await self._refused(importer, by, version):
            return True
        found = await self._twins.imported(version.artifact, version.settings, version.given)
        if found is None:
            return False
        key = version.key
        with suppress(ImportNotYours):  # it was deleted meanwhile, or another importer has it
            await self._registry.finish_import(importer, key, found.pack, found.settings, by)
            log.info("imported before", version=str(key), pack=found.pack.digest)
        await self._refresh()
        return True

    async def _refused(self, importer: str, by: str, version: ModelVersion) -> bool:
        """Whether it may not be imported here: its file is not opened then, and it is FAILED."""
        shown = self._admit(version)
        if shown is version:
            return False
        await self.fail(importer, by, version.key, shown.reason, shown.message)
        return True

    async def _check_build(self, importer: str, by: str, key: VersionKey, pack: Pack) -> None:
        """An importer of an earlier release ignores the build it is asked for and makes its usual
        pack. The import fails then; left open, such an importer would claim it for ever.
        """
        version = self._view.desired.versions.get(key)
        if version is None or version.given.build_of is None:
            return
        (ordered,) = version.given.served.values()
        made = f"{pack.backend or TORCH}/{pack.precision or 'fp32'}"
        if made != ordered.variant:
            why = (
                f"{key} is to be built as {ordered.variant}, but the importer made {made}: update "
                "the importer to this release"
            )
            await self.fail(importer, by, key, "ARTIFACT_UNSUPPORTED", why)
            raise InvalidOption(why)
