"""Where importers claim their work and report on it; they never see the registry."""

import structlog

from control_plane.caller import CallContext
from control_plane.clock import Clock
from control_plane.convert.validation import check_importer
from control_plane.convert.versions import key_in, key_out, pack_in, settings_in, settings_out
from control_plane.store.artifacts import FolderArtifacts
from control_plane.store.registry import ImportQueue
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.view.view import View
from yolopool.errors import InvalidOption
from yolopool.v1 import importing_pb2, importing_pb2_grpc

log = structlog.get_logger()

LEASE_S = 15.0
# A lease that runs out changes nothing that would wake a waiting importer.
LOOK_AGAIN_S = 1.0
LONGEST_WAIT_S = 60.0
# An importer that has not asked for so long is not counted any more.
SEEN_S = 30.0


class ImportService(importing_pb2_grpc.ImportServiceServicer):
    def __init__(
        self, registry: ImportQueue, view: View, artifacts: FolderArtifacts, clock: Clock
    ) -> None:
        self._registry = registry
        self._view = view
        self._artifacts = artifacts
        self._clock = clock
        self._seen: dict[str, float] = {}

    async def ClaimImport(
        self, request: importing_pb2.ClaimImportRequest, context: CallContext
    ) -> importing_pb2.ClaimImportResponse:
        importer = check_importer(request.importer)
        until = self._clock.monotonic() + min(max(request.wait_s, 0.0), LONGEST_WAIT_S)
        while True:
            self._seen[importer] = self._clock.monotonic()
            changes = self._view.waiters.changes
            version = await self._registry.claim_import(importer, LEASE_S, self._clock.unix())
            if version is not None:
                log.info("import claimed", version=str(version.key), importer=importer)
                self._view.put_version(version)
                return importing_pb2.ClaimImportResponse(job=self._job(version))
            left_s = until - self._clock.monotonic()
            if left_s <= 0:
                return importing_pb2.ClaimImportResponse()
            await self._view.waiters.after(changes, min(left_s, LOOK_AGAIN_S))

    async def ReportImport(
        self, request: importing_pb2.ReportImportRequest, context: CallContext
    ) -> importing_pb2.ReportImportResponse:
        importer = check_importer(request.importer)
        self._seen[importer] = self._clock.monotonic()
        match request.WhichOneof("report"):
            case "progress":
                await self._progress(importer, request)
            case "pack":
                await self._finish(importer, request)
            case "failure":
                await self._fail(importer, request)
            case _:
                raise InvalidOption("the report is empty: send progress, a pack or a failure")
        return importing_pb2.ReportImportResponse()

    def count(self) -> int:
        """Importers that asked for work lately."""
        now = self._clock.monotonic()
        self._seen = {name: at for name, at in self._seen.items() if now - at < SEEN_S}
        return len(self._seen)

    def _job(self, version: ModelVersion) -> importing_pb2.ImportJob:
        given = version.given
        job = importing_pb2.ImportJob(
            version=key_out(version.key),
            settings=settings_out(version.settings),
            artifact_uri=self._artifacts.uri(version.artifact),
            artifact=version.artifact,
            source_name=version.source_name,
            pack_store_uri=self._artifacts.pack_store_uri,
            lease_s=LEASE_S,
            architecture_yaml=given.architecture_yaml,
            class_names=given.class_names,
        )
        if given.build_of is not None:
            (made,) = given.served.values()
            job.build.backend, job.build.precision = made.backend, made.precision
        if given.calibration:
            job.calibration = given.calibration
            job.calibration_uri = self._artifacts.uri(given.calibration)
        return job

    async def _progress(self, importer: str, request: importing_pb2.ReportImportRequest) -> None:
        fraction = min(max(request.progress.fraction, 0.0), 1.0)
        await self._registry.report_progress(
            importer,
            key_in(request.version),
            fraction,
            request.progress.step[:80],
            LEASE_S,
            self._clock.unix(),
        )

    async def _finish(self, importer: str, request: importing_pb2.ReportImportRequest) -> None:
        key, settings = key_in(request.version), settings_in(request.pack.settings)
        await self._check_build(importer, key, request.pack)
        # A pack that is not where workers will look must not become READY.
        self._artifacts.check_pack(request.pack.digest)
        version = await self._registry.finish_import(
            importer, key, pack_in(request.pack), settings, self._clock.unix()
        )
        log.info("import finished", version=str(key), pack=request.pack.digest)
        self._view.put_version(version)

    async def _check_build(
        self, importer: str, key: VersionKey, pack: importing_pb2.ImportedPack
    ) -> None:
        """An importer of an earlier release knows of no builds, and makes what it always made: the
        build has failed, or it would claim it for ever.
        """
        version = self._view.desired.versions.get(key)
        if version is None or version.given.build_of is None:
            return
        (ordered,) = version.given.served.values()
        made = f"{pack.backend or 'torch'}/{pack.precision or 'fp32'}"
        if made != ordered.variant:
            why = (
                f"{key} is to be of {ordered.variant}, and a pack of {made} was made: bring the "
                "importer to this release"
            )
            failure = importing_pb2.ImportFailure(reason="ARTIFACT_UNSUPPORTED", message=why)
            report = importing_pb2.ReportImportRequest(version=key_out(key), failure=failure)
            await self._fail(importer, report)
            raise InvalidOption(why)

    async def _fail(self, importer: str, request: importing_pb2.ReportImportRequest) -> None:
        key, failure = key_in(request.version), request.failure
        version = await self._registry.fail_import(
            importer,
            key,
            failure.reason or "IMPORT_CRASHED",
            failure.message[:2000],
            self._clock.unix(),
        )
        log.warning("import failed", version=str(key), reason=version.reason, why=version.message)
        self._view.put_version(version)
