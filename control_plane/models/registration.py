"""Registers versions of models, waits until they are imported, and deletes them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from control_plane.events.recorder import EventRecorder
from control_plane.models.builds import Builds
from control_plane.models.import_jobs import Twins
from control_plane.models.references import references
from control_plane.store import bounds
from control_plane.store.bounds import check_room
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.files.unused import MIN_GRACE_S, in_use
from control_plane.store.registry import Registry
from control_plane.store.sources.source_verbs import SourceRecords
from control_plane.types.event import EventKind
from control_plane.types.schedule import Changeover
from control_plane.types.sources.source import Source
from control_plane.types.version import (
    ModelVersion,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import (
    ArtifactNotFound,
    DeadlineExceeded,
    InvalidOption,
    ModelNotFound,
    VersionNotFound,
    YolopoolError,
)
from yolopool.names import ModelRef
from yolopool.server.clock import Clock
from yolopool.signing.signers import Signers
from yolopool.vocabulary import MAX_METADATA_BYTES, MAX_METADATA_TEXTS

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
        twins: Twins,
        builds: Builds,
        recorder: EventRecorder,
        clock: Clock,
        signers: Signers,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._twins = twins
        self._builds = builds
        self._recorder = recorder
        self._clock = clock
        self._signers = signers
        self._sources = SourceRecords(registry)

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
        number: int = 0,
    ) -> ModelVersion:
        """The new version, or the one that an earlier call with this request_id made.

        It is READY at once if a version of the same bytes and settings is. With a source in `given`
        an artifact that is not there yet, or not known (""), is fetched from there: then what
        concerns the file is looked at in `arrived`. Raises ArtifactNotFound, and what
        `Signers.check` does.
        """
        if not artifact or not self._artifacts.touch(artifact):
            if given.source is None:
                raise ArtifactNotFound(f"artifact {artifact} is not in the store: upload it first")
            artifact = ""
        models = self._view.catalogue.models
        check_room(self._view.desired.versions, bounds.MAX_VERSIONS, "versions")
        check_room(models.get(model, ()), bounds.MAX_VERSIONS_A_MODEL, f"versions of {model}")
        if model not in models:
            check_room(models, bounds.MAX_MODELS, "models")
        given = replace(given, registered_by=by)
        imported = None
        if artifact:
            given = await self._signed(artifact, given)
            imported = await self._twins.imported(artifact, settings, given)
        else:
            self._signers.check_text(given.signature)
        now = self._clock.unix()
        version = await self._registry.register(
            model,
            artifact,
            settings,
            source_name,
            request_id,
            now,
            given,
            imported,
            self._view.highest_number(model),
            number,
        )
        if version.created_unix_s == now:  # a repeated call makes no version, and no event
            message = f"by {by}, of {version.source_name or artifact[:12]}"
            message += f", from {given.source.uri}" if given.source is not None else ""
            message += f", signed by {given.signer}" if artifact and given.signer else ""
            self._recorder.record(EventKind.REGISTERED, version=version.key, message=message)
        log.info("registered", version=str(version.key), by=by)
        await self._refresh()
        return version

    async def register_again(
        self, model: str, source: Source, *, source_name: str, request_id: str, by: str
    ) -> ModelVersion:
        """A version of a further file, set as the model's newest version was asked to be."""
        versions = self._view.catalogue.models.get(model, ())
        newest = versions[0].given if versions else ServingSpec()
        asked = versions[0].asked if versions else None
        return await self.register(
            model,
            "",
            asked or VersionSettings(),
            ServingSpec(placement=newest.placement, batching=newest.batching, source=source),
            source_name=source_name,
            request_id=request_id,
            by=by,
        )

    async def arrived(
        self, version: ModelVersion, artifact: str, metadata: Mapping[str, str]
    ) -> None:
        """The file of a version that was registered by a URI is in the store. Raises what
        `Signers.check` does.
        """
        given = await self._signed(artifact, version.given)
        given = replace(given, metadata=_with_texts(given.metadata, metadata))
        imported = await self._twins.imported(artifact, version.settings, given)
        if await self._sources.fetched(version.key, artifact, given, imported) is not None:
            log.info("fetched", version=str(version.key), artifact=artifact)
        await self._refresh()

    async def fetch_failed(self, version: ModelVersion, error: YolopoolError) -> None:
        """The version is FAILED, unless it was deleted meanwhile."""
        key, reason, message = version.key, error.reason, error.message[:2000]
        if await self._sources.failed(key, reason, message) is not None:
            log.warning("fetch failed", version=str(key), reason=reason, why=message)
            self._recorder.record(
                EventKind.FETCH_FAILED, version=key, reason=reason, message=message
            )
        await self._refresh()

    async def _signed(self, artifact: str, given: ServingSpec) -> ServingSpec:
        """With whose signature of the file was given, which is kept if it is somebody's."""
        path, text = self._artifacts.path(artifact), given.signature
        signer = await asyncio.to_thread(self._signers.check, path, artifact, text)
        return replace(given, signature=text if signer else "", signer=signer)

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
            left = self._view.desired.versions.get(key, version)
            at_work = f"step: {left.step}" if left.is_fetching else "is an importer running?"
            raise DeadlineExceeded(
                f"{key} is still {left.state} at the deadline; the import goes on ({at_work})",
                details={"version": str(key)},
            )
        return found

    async def delete(
        self, ref: ModelRef, by: str, *, force: bool = False
    ) -> tuple[VersionKey, ...]:
        """Deletes the versions a reference names, with their builds; returns what was deleted. With
        `force` schedules go on without them, and pins end.

        Raises InvalidOption if one of them is a build that serves a version now, ModelReferenced.
        """
        versions = self._view.catalogue.versions(ref)
        for version in versions:
            served = self._builds.serving(version)
            if served is not None:
                raise InvalidOption(
                    f"{version.key} serves {served}: serve that by another build, or none, first"
                )
        held = references(self._view.desired, [version.key for version in versions])
        held.check(force)
        await self._unschedule(held.changed)
        known = dict(self._view.desired.versions)
        deleted = await self._registry.delete([version.key for version in versions])
        log.info("deleted", versions=[str(key) for key in deleted], by=by)
        for key in deleted:
            self._recorder.record(EventKind.DELETED, version=key, message=f"by {by}")
        await self._release_files([known[key] for key in deleted if key in known])
        await self._refresh()
        return deleted

    async def delete_all(self, models: Sequence[str], by: str) -> None:
        """Deletes all versions of models; one that is gone meanwhile is none."""
        for model in models:
            with suppress(ModelNotFound):
                await self.delete(ModelRef(model), by, force=True)

    async def _unschedule(self, changed: Mapping[str, Changeover | None]) -> None:
        """Schedules go on as given here; None: not at all."""
        for name, change in changed.items():
            schedule = self._view.desired.schedules.get(name)
            if change is None or schedule is None:
                await self._registry.delete_schedule(name)
            else:
                await self._registry.put_schedule(replace(schedule, change=change))

    async def _release_files(self, deleted: Sequence[ModelVersion]) -> None:
        # The grace of what nothing else uses begins now.
        since = self._clock.unix() - MIN_GRACE_S
        only = replace(self._view.desired, versions={one.key: one for one in deleted}, rules={})
        used = in_use(only, ())
        await asyncio.to_thread(self._artifacts.released, used.artifacts, used.packs, since)


def _with_texts(kept: Mapping[str, str], more: Mapping[str, str]) -> Mapping[str, str]:
    """With further texts, if there is room for them: what the caller gave comes first."""
    both = {**more, **kept}
    held = sum(len(name.encode()) + len(text.encode()) for name, text in both.items())
    return both if len(both) <= MAX_METADATA_TEXTS and held <= MAX_METADATA_BYTES else kept
