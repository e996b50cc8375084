"""Claims import jobs from whichever control plane answers, and runs each in a child process."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import structlog

from importer import child, store
from importer.refusal import CRASHED, ImportRefused
from importer.settings import Settings
from yolopool import status
from yolopool.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SignatureInvalid,
    SignatureRequired,
    StorageFailed,
    YolopoolError,
)
from yolopool.server import exhaustion, grpc_server
from yolopool.server.confinement import landlock
from yolopool.tls.certificates import Certificates
from yolopool.transport import bearer
from yolopool.v1 import importing_pb2 as pb
from yolopool.v1.importing_pb2_grpc import ImportServiceStub

log = structlog.get_logger()

_CLAIM_WAIT_S = 20.0
CALL_S = 5.0
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class ControlPlanes:
    """The import service of a control plane: the one that answered last, otherwise the next."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        api_key: str = "",
        certificates: Certificates | None = None,
    ) -> None:
        self._key = bearer(api_key)
        self._certificates = certificates
        self._addresses = addresses
        self._open()
        self._at = 0

    def _open(self) -> None:
        self._channels = [
            grpc_server.open_channel(address, self._certificates) for address in self._addresses
        ]
        # The generated stub is typed for the blocking channel; the calls are the same.
        self._stubs: list[Any] = [ImportServiceStub(channel) for channel in self._channels]

    async def call(self, method: str, request: Any, timeout_s: float) -> Any:
        """Calls control planes in turn until one answers; raises the last error if none does.

        An error that every control plane would give is raised at once.
        """
        if self._certificates is not None and self._certificates.refresh():
            await self.close()
            self._open()
        for attempt in range(len(self._stubs)):
            try:
                return await getattr(self._stubs[self._at], method)(
                    request, timeout=timeout_s, metadata=self._key
                )
            except grpc.aio.AioRpcError as failure:
                error = status.error_from_rpc(failure)
                final = isinstance(error, FailedPrecondition | InvalidArgument | NotFound)
                if final or attempt + 1 == len(self._stubs):
                    raise error from failure
                self._at = (self._at + 1) % len(self._stubs)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class Supervisor:
    """Runs one import at a time; start several importers for more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._planes = ControlPlanes(
            settings.control_planes, settings.api_key.get_secret_value(), settings.certificates()
        )
        self._signers = settings.signers()
        self._id = uuid.uuid4().hex
        self._limits = child.Limits(
            settings.memory_limit_bytes, settings.time_limit_s, settings.require_sandbox
        )

    async def run(self) -> None:
        """Claims and imports until cancelled; a job in progress then goes to another importer."""
        failures = 0
        abi, planes = landlock.abi(), self._settings.control_planes
        log.info("importer started", id=self._id, control_planes=planes, landlock_abi=abi)
        if abi < landlock.WHOLE_ABI:
            log.warning("imports are not confined to their own files", landlock_abi=abi)
        try:
            while True:
                # Each time, since what a killed importer left is too young when this one starts.
                await asyncio.to_thread(
                    store.sweep_scratch,
                    self._settings.scratch_dir,
                    child.CALIBRATION_TIMES * self._settings.time_limit_s,
                )
                try:
                    claim = pb.ClaimImportRequest(importer=self._id, wait_s=_CLAIM_WAIT_S)
                    answer = await self._planes.call("ClaimImport", claim, _CLAIM_WAIT_S + CALL_S)
                except YolopoolError as error:
                    delay_s = _BACK_OFF_S[min(failures, len(_BACK_OFF_S) - 1)]
                    failures += 1
                    log.warning("no control plane answers", error=str(error), retry_in_s=delay_s)
                    await asyncio.sleep(delay_s)
                    continue
                failures = 0
                if answer.HasField("job"):
                    await self._import(answer.job)
        finally:
            await self._planes.close()

    async def _import(self, job: pb.ImportJob) -> None:
        log.info("import begins", model=job.version.model, version=job.version.version)
        request = pb.ReportImportRequest(importer=self._id, version=job.version)
        try:
            request.pack.CopyFrom(await self._run_leased(job))
        except ImportRefused as refusal:
            request.failure.reason, request.failure.message = refusal.reason, refusal.message
        except (ResourceExhausted, StorageFailed, SignatureInvalid, SignatureRequired) as error:
            request.failure.reason, request.failure.message = error.reason, error.message
        except YolopoolError as error:
            log.warning("import abandoned", error=str(error))
            return
        except Exception as error:
            log.exception("import failed in the importer")
            said = exhaustion.typed(error) or ImportRefused(
                CRASHED, "the importer itself failed: see its log, and retry"
            )
            request.failure.reason, request.failure.message = said.reason, said.message
        log.info(
            "import ends",
            model=job.version.model,
            version=job.version.version,
            digest=request.pack.digest,
            reason=request.failure.reason,
        )
        await self._report_result(request)

    async def _run_leased(self, job: pb.ImportJob) -> pb.ImportedPack:
        """Runs the import while reports keep its lease; ends it if the lease is lost."""
        progress = pb.ImportProgress()
        fresh = asyncio.Event()

        async def note(news: pb.ImportProgress) -> None:
            progress.CopyFrom(news)
            fresh.set()

        work = asyncio.create_task(self._work(job, note))
        keep = asyncio.create_task(self._keep_lease(job, progress, fresh))
        try:
            await asyncio.wait((work, keep), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            keep.result()
            raise AssertionError("the lease keeper ends only by an error")
        finally:
            for task in (work, keep):
                task.cancel()
            await asyncio.gather(work, keep, return_exceptions=True)

    async def _work(
        self, job: pb.ImportJob, note: Callable[[pb.ImportProgress], Awaitable[None]]
    ) -> pb.ImportedPack:
        with store.scratch(self._settings.scratch_dir) as folder:
            artifact = await self._fetch(job.artifact_uri, folder, "artifact.pt")
            signers = self._signers
            await asyncio.to_thread(signers.check, artifact, job.artifact, job.signature)
            build = child.Build(job.build.backend, job.build.precision)
            if job.calibration_uri:
                images = await self._fetch(job.calibration_uri, folder, "calibration.zip")
                build = replace(build, calibration=str(images), calibration_sha256=job.calibration)
            weights_of = child.Architecture(
                job.architecture_yaml, tuple(job.class_names), dict(job.renamed_classes)
            )
            pack = await child.run(
                artifact, job.artifact, job.settings, folder, self._limits, note, weights_of, build
            )
            await asyncio.to_thread(store.verify_pack, folder, pack.digest)
            await asyncio.to_thread(store.publish, folder, job.pack_store_uri, pack.digest)
            return pack

    async def _fetch(self, uri: str, folder: Path, name: str) -> Path:
        limit_bytes = self._settings.max_artifact_bytes
        return await asyncio.to_thread(store.fetch_artifact, uri, folder, limit_bytes, name)

    async def _keep_lease(
        self, job: pb.ImportJob, progress: pb.ImportProgress, fresh: asyncio.Event
    ) -> None:
        """Reports each step at once, and repeats the last one well before the lease expires."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.2, job.lease_s / 3)):
                    await fresh.wait()
            fresh.clear()
            request = pb.ReportImportRequest(
                importer=self._id, version=job.version, progress=progress
            )
            try:
                await self._planes.call("ReportImport", request, CALL_S)
            except (FailedPrecondition, NotFound):
                raise
            except YolopoolError as error:
                # The job cannot have been given to another importer while no control plane answers.
                log.warning("progress not reported", error=str(error))

    async def _report_result(self, request: pb.ReportImportRequest) -> None:
        """Reports the result until a control plane accepts it, or says that the lease was lost."""
        attempt = 0
        while True:
            try:
                await self._planes.call("ReportImport", request, CALL_S)
                return
            except (FailedPrecondition, InvalidArgument, NotFound) as error:
                log.warning("the result was not accepted", error=str(error))
                return
            except YolopoolError:
                await asyncio.sleep(_BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)])
                attempt += 1
