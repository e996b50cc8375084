"""ModelService: upload, register, look, load, unload, change over, delete."""

from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from control_plane.caller import CallContext, principal_of
from control_plane.clock import Clock
from control_plane.convert.schedules import changeover_in
from control_plane.convert.validation import (
    check_batching,
    check_device_kind,
    check_drift,
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
    given_in,
    key_out,
    placement_in,
    residency_in,
    settings_in,
    version_out,
)
from control_plane.convert.workers import replica_out
from control_plane.events.recorder import EventRecorder
from control_plane.models.builds import Builds
from control_plane.models.changeover import Changeovers
from control_plane.models.loading import Loader
from control_plane.store.artifacts import FolderArtifacts, check_digest
from control_plane.store.registry import Registry
from control_plane.types.desired import Want, WantSource
from control_plane.types.event import EventKind
from control_plane.types.policy import Placement, Residency, ResidencyMode
from control_plane.types.version import ModelVersion, ServingSpec, VersionKey, VersionState
from control_plane.view.view import View
from yolopool.errors import (
    ArtifactNotFound,
    DeadlineExceeded,
    InvalidOption,
    VersionNotFound,
)
from yolopool.names import check_name, is_build, parse_ref
from yolopool.v1 import model_pb2, model_pb2_grpc

log = structlog.get_logger()

# An admin's call without a deadline: imports and loads take their time, but not for ever.
DEFAULT_WAIT_S = 600.0
IMPORTED = frozenset({VersionState.READY, VersionState.FAILED})


class ModelService(model_pb2_grpc.ModelServiceServicer):
    def __init__(
        self,
        registry: Registry,
        view: View,
        artifacts: FolderArtifacts,
        builds: Builds,
        loads: Loader,
        changeovers: Changeovers,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._artifacts = artifacts
        self._builds = builds
        self._loads = loads
        self._recorder = recorder
        self._changeovers = changeovers
        self._clock = clock

    async def UploadArtifact(
        self, requests: AsyncIterator[model_pb2.UploadArtifactRequest], context: CallContext
    ) -> model_pb2.UploadArtifactResponse:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidOption("the first message of an upload is its header")
        header, digest = first.header, check_digest(first.header.sha256)
        self._artifacts.check_size(header.size_bytes)
        chunk = await _next_chunk(requests)
        if chunk is None or self._artifacts.has(digest):
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
        earlier = self._view.catalogue.models.get(name, ())
        given = given_in(request, earlier[0].given if earlier else ServingSpec())
        if not self._artifacts.has(artifact):
            raise ArtifactNotFound(f"artifact {artifact} is not in the store: upload it first")
        now = self._clock.unix()
        version = await self._registry.register(
            name,
            artifact,
            settings,
            request.source_name[:200],
            check_request_id(request.request_id),
            now,
            given,
        )
        by = principal_of(context).name
        if version.created_unix_s == now:  # else a repeat, which made none
            says = f"by {by}, of {version.source_name or artifact[:12]}"
            self._recorder.record(EventKind.REGISTERED, version=version.key, message=says)
        if version.state is VersionState.UPLOADED:
            version = await self._adopt(version)
        self._view.put_version(version)
        log.info("registered", version=str(version.key), by=by)
        if request.wait and version.state not in IMPORTED:
            version = await self._imported(version, self._deadline(context))
        return model_pb2.RegisterModelResponse(version=self._full(version))

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: CallContext
    ) -> model_pb2.ListModelsResponse:
        models = self._view.catalogue.models
        prefix = request.name_prefix
        names = sorted(n for n in models if n.startswith(prefix) and not is_build(n))
        return model_pb2.ListModelsResponse(
            models=[self._model(name, models[name]) for name in names]
        )

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: CallContext
    ) -> model_pb2.GetModelResponse:
        ref = parse_ref(request.model)
        versions = self._view.catalogue.versions(ref)
        return model_pb2.GetModelResponse(model=self._model(ref.name, versions))

    async def DeleteModel(
        self, request: model_pb2.DeleteModelRequest, context: CallContext
    ) -> model_pb2.DeleteModelResponse:
        versions = self._view.catalogue.versions(parse_ref(request.model))
        for version in versions:
            serves = self._builds.serving(version)
            if serves is not None:
                raise InvalidOption(
                    f"{version.key} serves {serves}: serve that by another build, or none, first"
                )
        deleted = await self._registry.delete([version.key for version in versions])
        self._view.drop_versions(deleted)
        by = principal_of(context).name
        log.info("deleted", versions=[str(key) for key in deleted], by=by)
        for key in deleted:
            self._recorder.record(EventKind.DELETED, version=key, message=f"by {by}")
        return model_pb2.DeleteModelResponse(deleted=[key_out(key) for key in sorted(deleted)])

    async def LoadModel(
        self, request: model_pb2.LoadModelRequest, context: CallContext
    ) -> model_pb2.LoadModelResponse:
        replicas = check_replicas(request.replicas)
        version = self._view.catalogue.ready(parse_ref(request.model))
        if request.HasField("placement"):
            placement = placement_in(check_placement(request.placement))
            version = await self._place(version.key, placement)
        want = Want(version.key, replicas, request.pin, WantSource.ADMIN, self._clock.unix())
        log.info("load wanted", version=str(want.key), by=principal_of(context).name)
        await self._loads.load(want, request.wait, self._deadline(context))
        return model_pb2.LoadModelResponse(version=self._full(version))

    async def UnloadModel(
        self, request: model_pb2.UnloadModelRequest, context: CallContext
    ) -> model_pb2.UnloadModelResponse:
        version = self._view.catalogue.find(parse_ref(request.model))
        residency = version.given.residency
        if residency.pins:
            # It would come back at once: who unloads it does not want it kept so.
            normal = replace(residency, mode=ResidencyMode.NORMAL)
            version = await self._keep(version.key, normal)
        log.info(
            "unload wanted",
            version=str(version.key),
            force=request.force,
            by=principal_of(context).name,
        )
        deadline_s = self._deadline(context)
        await self._loads.unload(version.key, request.wait, deadline_s, request.force)
        return model_pb2.UnloadModelResponse(version=self._full(version))

    async def SetResidency(
        self, request: model_pb2.SetResidencyRequest, context: CallContext
    ) -> model_pb2.SetResidencyResponse:
        version = self._view.catalogue.find(parse_ref(request.model))
        residency = residency_in(check_residency(request.residency))
        log.info(
            "residency set",
            version=str(version.key),
            mode=residency.mode,
            by=principal_of(context).name,
        )
        kept = await self._keep(version.key, residency)
        return model_pb2.SetResidencyResponse(version=self._full(kept))

    async def SetPlacement(
        self, request: model_pb2.SetPlacementRequest, context: CallContext
    ) -> model_pb2.SetPlacementResponse:
        version = self._view.catalogue.find(parse_ref(request.model))
        placement = placement_in(check_placement(request.placement))
        log.info(
            "placement set",
            version=str(version.key),
            placement=placement.says,
            by=principal_of(context).name,
        )
        placed = await self._place(version.key, placement)
        return model_pb2.SetPlacementResponse(version=self._full(placed))

    async def SetBatching(
        self, request: model_pb2.SetBatchingRequest, context: CallContext
    ) -> model_pb2.SetBatchingResponse:
        version = self._view.catalogue.find(parse_ref(request.model))
        kind, batching = check_device_kind(request.device_kind), None
        if request.HasField("batching"):
            batching = batching_in(check_batching(request.batching))
        log.info(
            "batching set",
            version=str(version.key),
            device_kind=kind,
            batching=str(batching),
            by=principal_of(context).name,
        )
        batched = await self._registry.set_batching(version.key, kind, batching)
        if batched is None:
            raise VersionNotFound(f"{version.key} does not exist any more")
        self._view.put_version(batched)
        return model_pb2.SetBatchingResponse(version=self._full(batched))

    async def BuildModel(
        self, request: model_pb2.BuildModelRequest, context: CallContext
    ) -> model_pb2.BuildModelResponse:
        calibration = check_digest(request.calibration) if request.calibration else ""
        row = await self._builds.build(
            parse_ref(request.model),
            request.backend,
            request.precision,
            request.device_kind,
            calibration,
        )
        log.info("build wanted", build=str(row.key), by=principal_of(context).name)
        if request.wait and row.state not in IMPORTED:
            row = await self._imported(row, self._deadline(context))
        return model_pb2.BuildModelResponse(build=self._full(row))

    async def SetVariant(
        self, request: model_pb2.SetVariantRequest, context: CallContext
    ) -> model_pb2.SetVariantResponse:
        drift = drift_in(check_drift(request.drift)) if request.HasField("drift") else None
        kind = check_device_kind(request.device_kind)
        version = await self._builds.serve(
            parse_ref(request.model), kind, request.variant, drift, request.unchecked
        )
        log.info(
            "variant set",
            version=str(version.key),
            device_kind=kind,
            variant=request.variant,
            by=principal_of(context).name,
        )
        return model_pb2.SetVariantResponse(version=self._full(version))

    async def Changeover(
        self, request: model_pb2.ChangeoverRequest, context: CallContext
    ) -> model_pb2.ChangeoverResponse:
        change = changeover_in(request)
        log.info(
            "changeover wanted",
            prepare=[one.model for one in change.prepare],
            release=list(change.release),
            by=principal_of(context).name,
        )
        done = await self._changeovers.change(change, self._deadline(context))
        versions = self._view.desired.versions
        prepared = (versions.get(want.key) for want in done.wants)
        return model_pb2.ChangeoverResponse(
            prepared=[self._full(version) for version in prepared if version is not None],
            released=[key_out(key) for key in done.release],
        )

    # --- what the verbs share -----------------------------------------------------------------

    async def _place(self, key: VersionKey, placement: Placement) -> ModelVersion:
        version = await self._registry.set_placement(key, placement)
        if version is None:
            raise VersionNotFound(f"{key} does not exist any more")
        self._view.ask_again(key)
        self._view.put_version(version)
        return version

    async def _keep(self, key: VersionKey, residency: Residency) -> ModelVersion:
        want = self._view.desired.want(key)
        ready = self._view.desired.versions[key].state is VersionState.READY
        if want is not None and ready and want.pinned and not residency.pins:
            # A pin ends with any other way to keep it, whether a load or a standby asked for it;
            # what is loaded stays until its room is needed. First, so that it is always wanted.
            since = self._clock.unix()
            soft = await self._registry.want(
                Want(key, want.replicas, False, WantSource.ADMIN, since_unix_s=since)
            )
            if soft is not None:
                self._view.put_want(soft)
        version = await self._registry.set_residency(key, residency)
        if version is None:
            raise VersionNotFound(f"{key} does not exist any more")
        self._view.ask_again(key)
        self._view.put_version(version)
        return version

    def _held(self, digest: str) -> model_pb2.UploadArtifactResponse:
        return model_pb2.UploadArtifactResponse(
            complete=self._artifacts.has(digest),
            received_bytes=self._artifacts.held_bytes(digest),
        )

    async def _adopt(self, version: ModelVersion) -> ModelVersion:
        """Takes the pack of a READY version of the same bytes that asked for the same, if there
        is one.
        """
        versions = self._view.desired.versions.values()
        twin = next((one for one in versions if _is_twin(one, version)), None)
        if twin is None or twin.pack is None:
            return version
        adopted = await self._registry.adopt_pack(version.key, twin.pack, twin.settings)
        return adopted or version

    async def _imported(self, version: ModelVersion, deadline_s: float) -> ModelVersion:
        key = version.key

        def ended() -> ModelVersion | None:
            now = self._view.desired.versions.get(key)
            if now is None and self._view.desired.revision > revision:
                raise VersionNotFound(f"{key} was deleted while it was being imported")
            return now if now is not None and now.state in IMPORTED else None

        revision = self._view.desired.revision
        left_s = deadline_s - self._clock.monotonic()
        found = await self._view.waiters.until(key, ended, left_s)
        if found is None:
            state = self._view.desired.versions.get(key, version).state
            raise DeadlineExceeded(
                f"{key} is {state} and the time is up: the import goes on (is an importer "
                "running?)",
                details={"version": str(key)},
            )
        return found

    def _deadline(self, context: CallContext) -> float:
        return deadline_of(context, self._clock.monotonic(), DEFAULT_WAIT_S)

    def _model(self, name: str, versions: tuple[ModelVersion, ...]) -> model_pb2.Model:
        default = self._view.catalogue.default(name)
        return model_pb2.Model(
            name=name,
            default_version=default.key.number if default is not None else 0,
            versions=[self._full(version) for version in versions],
        )

    def _full(self, version: ModelVersion) -> model_pb2.ModelVersion:
        """A version with what is wanted of it, where it is, and why it is not."""
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
        wait = self._view.waits.get(key)
        if wait is not None:
            answer.waiting_reason = f"{wait.reason}: {wait.why}"
        return answer


def _is_twin(one: ModelVersion, new: ModelVersion) -> bool:
    """Whether both were registered with the same bytes and asked for the same of them."""
    return (
        one.state is VersionState.READY
        and one.artifact == new.artifact
        and one.asked == new.asked
        and one.given.architecture_yaml == new.given.architecture_yaml
        and one.given.class_names == new.given.class_names
        and one.given.build_of is None
    )


async def _next_chunk(requests: AsyncIterator[model_pb2.UploadArtifactRequest]) -> bytes | None:
    message = await anext(requests, None)
    if message is None:
        return None
    if message.WhichOneof("part") != "chunk":
        raise InvalidOption("after the header an upload has chunks only")
    return message.chunk
