"""Registers versions of models, waits until they are imported, and deletes them."""

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.models.builds import Builds
from control_plane.store.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.types.event import EventKind
from control_plane.types.version import (
    ModelVersion,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import ArtifactNotFound, DeadlineExceeded, InvalidOption, VersionNotFound
from yolopool.names import ModelRef
from yolopool.server.clock import Clock

log = structlog.get_logger()

IMPORTED = frozenset({VersionState.READY, VersionState.FAILED})


class Registration:
    """`by` names the caller in the log and in events."""

    def __init__(
        self,
        registry: Registry,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        builds: Builds,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._builds = builds
        self._recorder = recorder
        self._clock = clock

    def newest_spec(self, model: str) -> ServingSpec:
        """What the newest version of a model was given; the default if there is none."""
        versions = self._view.catalogue.models.get(model, ())
        return versions[0].given if versions else ServingSpec()

    async def register(
        self,
        model: str,
        artifact: str,
        settings: VersionSettings,
        given: ServingSpec,
        *,
        source_name: str,
        request_id: str,
        by: str,
    ) -> ModelVersion:
        """The new version, or the one that an earlier call with this request_id made.

        It is READY at once if a version of the same bytes and settings is. Raises ArtifactNotFound.
        """
        if not self._artifacts.has(artifact):
            raise ArtifactNotFound(f"artifact {artifact} is not in the store: upload it first")
        now = self._clock.unix()
        version = await self._registry.register(
            model, artifact, settings, source_name, request_id, now, given
        )
        if version.created_unix_s == now:  # a repeated call makes no version, and no event
            message = f"by {by}, of {version.source_name or artifact[:12]}"
            self._recorder.record(EventKind.REGISTERED, version=version.key, message=message)
        if version.state is VersionState.UPLOADED:
            version = await self._adopt_pack(version)
        log.info("registered", version=str(version.key), by=by)
        await self._refresh()
        return version

    async def imported(self, version: ModelVersion, deadline_s: float) -> ModelVersion:
        """The version once it is READY or FAILED; deadline_s: monotonic.

        Raises VersionNotFound if it is deleted meanwhile, and DeadlineExceeded.
        """
        if version.state in IMPORTED:
            return version
        key, revision = version.key, self._view.desired.revision

        def ended() -> ModelVersion | None:
            now = self._view.desired.versions.get(key)
            if now is None and self._view.desired.revision > revision:
                raise VersionNotFound(f"{key} was deleted while it was being imported")
            return now if now is not None and now.state in IMPORTED else None

        left_s = deadline_s - self._clock.monotonic()
        found = await self._view.waiters.until(key, ended, left_s)
        if found is None:
            state = self._view.desired.versions.get(key, version).state
            raise DeadlineExceeded(
                f"{key} is still {state} at the deadline; the import goes on (is an importer "
                "running?)",
                details={"version": str(key)},
            )
        return found

    async def delete(self, ref: ModelRef, by: str) -> tuple[VersionKey, ...]:
        """Deletes the versions a reference names, with their builds; returns what was deleted.

        Raises InvalidOption if one of them is a build that serves a version now.
        """
        versions = self._view.catalogue.versions(ref)
        for version in versions:
            served = self._builds.serving(version)
            if served is not None:
                raise InvalidOption(
                    f"{version.key} serves {served}: serve that by another build, or none, first"
                )
        deleted = await self._registry.delete([version.key for version in versions])
        log.info("deleted", versions=[str(key) for key in deleted], by=by)
        for key in deleted:
            self._recorder.record(EventKind.DELETED, version=key, message=f"by {by}")
        await self._refresh()
        return deleted

    async def _adopt_pack(self, version: ModelVersion) -> ModelVersion:
        """Takes the pack of a twin, so that nothing has to be imported, if there is a twin."""
        versions = self._view.desired.versions.values()
        twin = next((other for other in versions if _is_twin(other, version)), None)
        if twin is None or twin.pack is None:
            return version
        adopted = await self._registry.adopt_pack(version.key, twin.pack, twin.settings)
        return adopted or version


def _is_twin(ready: ModelVersion, new: ModelVersion) -> bool:
    """Whether an import of `new` would make the pack that `ready` has."""
    return (
        ready.state is VersionState.READY
        and ready.artifact == new.artifact
        and ready.asked == new.asked
        and ready.given.architecture_yaml == new.given.architecture_yaml
        and ready.given.class_names == new.given.class_names
        and ready.given.build_of is None
    )
