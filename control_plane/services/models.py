"""ModelService: upload, register, list, load, unload, set policies, build, change over, delete."""

from collections.abc import AsyncIterator

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.convert.schedules import changeover_in
from control_plane.convert.validation import (
    check_batching,
    check_device_kind,
    check_drift,
    check_grace,
    check_placement,
    check_replicas,
    check_request_id,
    check_residency,
    check_settings,
    deadline_of,
)
from control_plane.convert.versions import (
    batching_in,
    drift_in,
    key_out,
    placement_in,
    residency_in,
    serving_spec_in,
    settings_in,
    version_out,
)
from control_plane.convert.workers import replica_out
from control_plane.models.builds import Builds
from control_plane.models.changeover import Changeovers
from control_plane.models.loading import Loader
from control_plane.models.policies import Policies
from control_plane.models.registration import Registration
from control_plane.models.sweeper import Sweeper
from control_plane.store.files.artifacts import FolderArtifacts, check_digest
from control_plane.tenants.stored_bytes import StoredBytes
from control_plane.types.desired import Want, WantSource
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.view.view import View
from yolopool.errors import InvalidOffset, InvalidOption
from yolopool.names import check_name, parse_ref
from yolopool.server.clock import Clock
from yolopool.v1 import model_pb2, model_pb2_grpc

log = structlog.get_logger()

# For an administrator's call without a deadline: an import or a load may take minutes.
DEFAULT_WAIT_S = 600.0


class ModelService(model_pb2_grpc.ModelServiceServicer):
    def __init__(
        self,
        view: View,
        artifacts: FolderArtifacts,
        registration: Registration,
        policies: Policies,
        builds: Builds,
        loader: Loader,
        changeovers: Changeovers,
        sweeper: Sweeper,
        stored: StoredBytes,
        clock: Clock,
    ) -> None:
        self._view = view
        self._artifacts = artifacts
        self._registration = registration
        self._policies = policies
        self._builds = builds
        self._loader = loader
        self._changeovers = changeovers
        self._sweeper = sweeper
        self._stored = stored
        self._clock = clock

    async def UploadArtifact(
        self, requests: AsyncIterator[model_pb2.UploadArtifactRequest], context: CallContext
    ) -> model_pb2.UploadArtifactResponse:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidOption("the first message of an upload must be its header")
        header = first.header
        self._stored.check_upload(principal_of(context).tenant, header.size_bytes)
        if not header.sha256:
            return await self._received(header, requests)
        digest = check_digest(header.sha256)
        self._artifacts.check_size(header.size_bytes)
        chunk = await _next_chunk(requests)
        # Without a chunk it is a question, or the end of an upload whose bytes are all there.
        is_question = chunk is None and header.offset != header.size_bytes
        if is_question or self._artifacts.touch(digest):
            return self._held(digest)
        async with self._artifacts.upload(digest, header.size_bytes, header.offset) as upload:
            while chunk is not None:
                await upload.write(chunk)
                chunk = await _next_chunk(requests)
        return self._held(digest)

    async def RegisterModel(
        self, request: model_pb2.RegisterModelRequest, context: CallContext
    ) -> model_pb2.RegisterModelResponse:
        name, artifact = check_name(request.name), check_digest(request.artifact)
        settings = settings_in(check_settings(request.settings))
        self._stored.check_model(name, artifact)
        version = await self._registration.register(
            name,
            artifact,
            settings,
            serving_spec_in(request, self._registration.newest_spec(name)),
            source_name=request.source_name[:200],
            request_id=check_request_id(request.request_id),
            by=principal_of(context).name,
        )
        if request.wait:
            version = await self._registration.imported(version, self._deadline_s(context))
        return model_pb2.RegisterModelResponse(version=self._full(version))

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: CallContext
    ) -> model_pb2.ListModelsResponse:
        catalogue = self._view.catalogue
        names = [name for name in catalogue.names() if name.startswith(request.name_prefix)]
        return model_pb2.ListModelsResponse(
            models=[self._model(name, catalogue.models[name]) for name in names]
        )

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: CallContext
    ) -> model_pb2.GetModelResponse:
        ref = parse_ref(request.model)
        versions = self._view.catalogue.versions(ref)
        model = self._model(ref.name, versions)
        if ref.alias is not None:
            model.default_version = self._view.catalogue.find(ref).key.number
        for answer, version in zip(model.versions, versions, strict=True):
            answer.metadata.update(version.given.metadata)
        return model_pb2.GetModelResponse(model=model)

    async def DeleteModel(
        self, request: model_pb2.DeleteModelRequest, context: CallContext
    ) -> model_pb2.DeleteModelResponse:
        ref, by = parse_ref(request.model), principal_of(context).name
        if ref.alias is not None:
            raise InvalidOption(
                f"{ref} is an alias: delete it as one, or delete a version as {ref.name}@<version>"
            )
        deleted = await self._registration.delete(ref, by)
        return model_pb2.DeleteModelResponse(deleted=[key_out(key) for key in sorted(deleted)])

    async def LoadModel(
        self, request: model_pb2.LoadModelRequest, context: CallContext
    ) -> model_pb2.LoadModelResponse:
        replicas = check_replicas(request.replicas)
        self._view.catalogue.ready(parse_ref(request.model))
        versions = self._meant(request.model)
        if request.HasField("placement"):
            placement = placement_in(check_placement(request.placement))
            versions = tuple(
                [await self._policies.set_placement(one.key, placement) for one in versions]
            )
        now, deadline_s = self._clock.unix(), self._deadline_s(context)
        wants = [Want(one.key, replicas, request.pin, WantSource.ADMIN, now) for one in versions]
        # All are wanted before the first is waited for.
        for want in wants:
            _log("load requested", want.key, context)
            await self._loader.load(want, False, deadline_s)
        if request.wait:
            for want in wants:
                await self._loader.loaded(want, deadline_s)
        return model_pb2.LoadModelResponse(version=self._full(versions[0]))

    async def UnloadModel(
        self, request: model_pb2.UnloadModelRequest, context: CallContext
    ) -> model_pb2.UnloadModelResponse:
        deadline_s = self._deadline_s(context)
        versions = [await self._policies.end_standby(one) for one in self._meant(request.model)]
        for version in versions:
            _log("unload requested", version.key, context, force=request.force)
            await self._loader.unload(version.key, False, deadline_s, request.force)
        if request.wait:
            for version in versions:
                await self._loader.unloaded(version.key, deadline_s)
        return model_pb2.UnloadModelResponse(version=self._full(versions[0]))

    async def SetResidency(
        self, request: model_pb2.SetResidencyRequest, context: CallContext
    ) -> model_pb2.SetResidencyResponse:
        versions = self._meant(request.model)
        residency = residency_in(check_residency(request.residency))
        for version in versions:
            _log("residency set", version.key, context, mode=residency.mode)
        done = [await self._policies.set_residency(one.key, residency) for one in versions]
        return model_pb2.SetResidencyResponse(version=self._full(done[0]))

    async def SetPlacement(
        self, request: model_pb2.SetPlacementRequest, context: CallContext
    ) -> model_pb2.SetPlacementResponse:
        versions = self._meant(request.model)
        placement = placement_in(check_placement(request.placement))
        for version in versions:
            _log("placement set", version.key, context, placement=placement.requires)
        done = [await self._policies.set_placement(one.key, placement) for one in versions]
        return model_pb2.SetPlacementResponse(version=self._full(done[0]))

    async def SetBatching(
        self, request: model_pb2.SetBatchingRequest, context: CallContext
    ) -> model_pb2.SetBatchingResponse:
        versions = self._meant(request.model)
        kind, batching = check_device_kind(request.device_kind), None
        if request.HasField("batching"):
            batching = batching_in(check_batching(request.batching))
        for version in versions:
            _log("batching set", version.key, context, device_kind=kind, batching=str(batching))
        done = [await self._policies.set_batching(one.key, kind, batching) for one in versions]
        return model_pb2.SetBatchingResponse(version=self._full(done[0]))

    async def BuildModel(
        self, request: model_pb2.BuildModelRequest, context: CallContext
    ) -> model_pb2.BuildModelResponse:
        calibration = check_digest(request.calibration) if request.calibration else ""
        self._stored.check_model(parse_ref(request.model).name)
        build = await self._builds.build(
            parse_ref(request.model),
            request.backend,
            request.precision,
            request.device_kind,
            calibration,
        )
        _log("build requested", build.key, context)
        if request.wait:
            build = await self._registration.imported(build, self._deadline_s(context))
        return model_pb2.BuildModelResponse(build=self._full(build))

    async def SetVariant(
        self, request: model_pb2.SetVariantRequest, context: CallContext
    ) -> model_pb2.SetVariantResponse:
        drift = drift_in(check_drift(request.drift)) if request.HasField("drift") else None
        kind = check_device_kind(request.device_kind)
        version = await self._builds.serve(
            parse_ref(request.model), kind, request.variant, drift, request.unchecked
        )
        _log("variant set", version.key, context, device_kind=kind, variant=request.variant)
        return model_pb2.SetVariantResponse(version=self._full(version))

    async def Changeover(
        self, request: model_pb2.ChangeoverRequest, context: CallContext
    ) -> model_pb2.ChangeoverResponse:
        change = changeover_in(request)
        log.info(
            "changeover requested",
            prepare=[preparation.model for preparation in change.prepare],
            release=list(change.release),
            by=principal_of(context).name,
        )
        done = await self._changeovers.change(change, self._deadline_s(context))
        versions = self._view.desired.versions
        prepared = (versions.get(want.key) for want in done.wants)
        return model_pb2.ChangeoverResponse(
            prepared=[self._full(version) for version in prepared if version is not None],
            released=[key_out(key) for key in done.release],
        )

    async def SweepStore(
        self, request: model_pb2.SweepStoreRequest, context: CallContext
    ) -> model_pb2.SweepStoreResponse:
        grace_s = check_grace(request.grace_s) if request.HasField("grace_s") else None
        done = await self._sweeper.sweep(grace_s, dry_run=request.dry_run)
        log.info("store swept", removed=len(done.removed), by=principal_of(context).name)
        return model_pb2.SweepStoreResponse(
            files=[
                model_pb2.UnusedFile(
                    kind=one.file.kind,
                    name=one.file.name,
                    size_bytes=one.file.size_bytes,
                    unused_s=one.unused_s,
                    keep_s=one.keep_s,
                    removed=one.file.name in done.removed,
                )
                for one in done.found
            ]
        )

    # --- what the calls share -----------------------------------------------------------------

    async def _received(
        self,
        header: model_pb2.UploadHeader,
        requests: AsyncIterator[model_pb2.UploadArtifactRequest],
    ) -> model_pb2.UploadArtifactResponse:
        """Stores bytes whose digest the caller does not know."""
        if header.offset:
            raise InvalidOffset("an upload without sha256 begins at 0: give the sha256 to go on")
        async with self._artifacts.receive(header.size_bytes) as upload:
            while (chunk := await _next_chunk(requests)) is not None:
                await upload.write(chunk)
        return self._held(upload.digest())

    def _held(self, digest: str) -> model_pb2.UploadArtifactResponse:
        return model_pb2.UploadArtifactResponse(
            complete=self._artifacts.touch(digest),
            received_bytes=self._artifacts.held_bytes(digest),
            sha256=digest,
        )

    def _deadline_s(self, context: CallContext) -> float:
        return deadline_of(context, self._clock.monotonic(), DEFAULT_WAIT_S)

    def _meant(self, model: str) -> tuple[ModelVersion, ...]:
        """The versions that a change of `model` is about: of an alias all that it means now."""
        return self._view.catalogue.meant(parse_ref(model))

    def _model(self, name: str, versions: tuple[ModelVersion, ...]) -> model_pb2.Model:
        default = self._view.catalogue.default(name)
        return model_pb2.Model(
            name=name,
            default_version=default.key.number if default is not None else 0,
            versions=[self._full(version) for version in versions],
        )

    def _full(self, version: ModelVersion) -> model_pb2.ModelVersion:
        """A version with its want, its replicas and builds, and what blocks it."""
        key = version.key
        answer = version_out(version)
        want = self._view.desired.want(key)
        if want is not None and want.source is not WantSource.PREFETCH:
            answer.wanted_replicas, answer.pinned = want.replicas, want.pinned
        for worker, replica in self._view.replicas(key):
            answer.replicas.add(
                worker=worker.id, device=worker.device, replica=replica_out(replica)
            )
        for build in self._builds.of(key):
            answer.builds.append(self._full(build))
        blocked = self._view.waits.get(key)
        if blocked is not None:
            answer.waiting_reason = f"{blocked.reason}: {blocked.why}"
        return answer


def _log(event: str, key: VersionKey, context: CallContext, **fields: object) -> None:
    log.info(event, version=str(key), **fields, by=principal_of(context).name)


async def _next_chunk(requests: AsyncIterator[model_pb2.UploadArtifactRequest]) -> bytes | None:
    message = await anext(requests, None)
    if message is None:
        return None
    if message.WhichOneof("part") != "chunk":
        raise InvalidOption("after the header an upload may have only chunks")
    return message.chunk
