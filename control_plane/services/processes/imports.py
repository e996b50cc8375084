"""ImportService: importers claim versions and report on them; they never see the registry."""

from control_plane.caller import CallContext, principal_of
from control_plane.convert.validation import check_importer
from control_plane.convert.versions import key_in, key_out, pack_in, settings_in, settings_out
from control_plane.models.import_jobs import LEASE_S, ImportJobs
from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.types.version import ModelVersion
from yolopool.errors import InvalidOption
from yolopool.v1 import importing_pb2, importing_pb2_grpc


class ImportService(importing_pb2_grpc.ImportServiceServicer):
    def __init__(self, jobs: ImportJobs, artifacts: FolderArtifacts) -> None:
        self._jobs = jobs
        self._artifacts = artifacts

    async def ClaimImport(
        self, request: importing_pb2.ClaimImportRequest, context: CallContext
    ) -> importing_pb2.ClaimImportResponse:
        importer, by = check_importer(request.importer), principal_of(context).name
        version = await self._jobs.claim(importer, by, request.wait_s)
        if version is None:
            return importing_pb2.ClaimImportResponse()
        return importing_pb2.ClaimImportResponse(job=self._job(version))

    async def ReportImport(
        self, request: importing_pb2.ReportImportRequest, context: CallContext
    ) -> importing_pb2.ReportImportResponse:
        importer, key = check_importer(request.importer), key_in(request.version)
        by = principal_of(context).name
        self._jobs.saw(importer)
        match request.WhichOneof("report"):
            case "progress":
                progress = request.progress
                await self._jobs.progress(importer, by, key, progress.fraction, progress.step)
            case "pack":
                pack, settings = pack_in(request.pack), settings_in(request.pack.settings)
                await self._jobs.finish(importer, by, key, pack, settings)
            case "failure":
                failure = request.failure
                await self._jobs.fail(importer, by, key, failure.reason, failure.message)
            case _:
                raise InvalidOption("the report is empty: send progress, a pack or a failure")
        return importing_pb2.ReportImportResponse()

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
            renamed_classes=given.renamed,
            signature=given.signature,
        )
        if given.build_of is not None:
            (ordered,) = given.served.values()
            job.build.backend, job.build.precision = ordered.backend, ordered.precision
        if given.calibration:
            job.calibration = given.calibration
            job.calibration_uri = self._artifacts.uri(given.calibration)
        return job
