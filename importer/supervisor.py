"""Claims import jobs from whichever control plane answers, and runs each in a child process: as
many at once as cores and memory allow.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import structlog

from importer import child, store
from importer.processes import fresh_child, parallel
from importer.processes.prepared import Prepared
from importer.processes.running import Start
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
        self._old: set[asyncio.Task[None]] = set()

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
            self._replace()
        stubs, first = self._stubs, self._at
        for attempt in range(len(stubs)):
            at = (first + attempt) % len(stubs)
            try:
                answer = await getattr(stubs[at], method)(
                    request, timeout=timeout_s, metadata=self._key
                )
                self._at = at
                return answer
            except grpc.aio.AioRpcError as failure:
                error = status.error_from_rpc(failure)
                final = isinstance(error, FailedPrecondition | InvalidArgument | NotFound)
                if final or attempt + 1 == len(stubs):
                    raise error from failure

    def _replace(self) -> None:
        """Calls under way end on the connections that they began on."""
        old = self._channels
        self._open()
        closing = asyncio.create_task(_closed(old, _CLAIM_WAIT_S + CALL_S))
        self._old.add(closing)
        closing.add_done_callback(self._old.discard)

    async def close(self) -> None:
        await _cancelled(*self._old)
        await _closed(self._channels, None)


async def _closed(channels: Sequence[grpc.aio.Channel], grace_s: float | None) -> None:
    try:
        await asyncio.gather(*(channel.close(grace_s) for channel in channels))
    except asyncio.CancelledError:
        await _closed(channels, None)
        raise


class Supervisor:
    """Runs imports, several at once; a pool may have several importers."""

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
        self._prepared: Prepared | None = None
        self._at_once = settings.parallel or parallel.imports_at_once(
            parallel.cores(), parallel.memory_bytes(), settings.memory_limit_bytes
        )
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._failures = 0  # of claims, one after the other

    async def run(self) -> None:
        """Claims and imports until cancelled; jobs in progress then go to other importers."""
        abi, planes = landlock.abi(), self._settings.control_planes
        log.info(
            "importer started",
            id=self._id,
            control_planes=planes,
            landlock_abi=abi,
            at_once=self._at_once,
        )
        if abi < landlock.WHOLE_ABI:
            log.warning("imports are not confined to their own files", landlock_abi=abi)
        if self._settings.prepared:
            self._prepared = Prepared(self._settings.scratch_dir, time.monotonic)
        first = asyncio.create_task(self._prepare())
        try:
            while True:
                await self._claim()
        finally:
            await _cancelled(first, *self._running.values())
            if self._prepared is not None:
                self._prepared.close()
            await self._planes.close()

    async def _prepare(self) -> None:
        """Before the first job comes: it is then as quick as those that follow."""
        if self._prepared is not None:
            with contextlib.suppress(YolopoolError):  # the disk: the first job says so
                await self._prepared.prepare()

    async def _claim(self) -> None:
        """Begins the next import, once there is one and room for it."""
        while len(self._running) >= self._at_once:
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
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
            delay_s = _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)]
            self._failures += 1
            log.warning("no control plane answers", error=str(error), retry_in_s=delay_s)
            await asyncio.sleep(delay_s)
            return
        self._failures = 0
        if answer.HasField("job"):
            self._begin(answer.job)

    def _begin(self, job: pb.ImportJob) -> None:
        """A job that this importer has already goes on: its lease ran out, and is its own again."""
        key = (job.version.model, job.version.version)
        if key not in self._running:
            task = asyncio.create_task(self._import(job))
            self._running[key] = task
            task.add_done_callback(lambda task: self._ended(key, task))

    def _ended(self, key: tuple[str, int], task: "asyncio.Task[None]") -> None:
        del self._running[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("import lost in the importer", model=key[0], version=key[1], exc_info=error)

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
        if self._prepared is not None:
            try:
                return await self._attempt(job, note, self._prepared.start)
            except child.ParentLost:
                log.warning(
                    "an import ended with its prepared parent: once more, in a process of its own",
                    model=job.version.model,
                    version=job.version.version,
                )
        return await self._attempt(job, note, fresh_child.start)

    async def _attempt(
        self,
        job: pb.ImportJob,
        note: Callable[[pb.ImportProgress], Awaitable[None]],
        start: Start,
    ) -> pb.ImportedPack:
        """In a folder of its own: what a broken child leaves is nothing to the next one."""
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
                artifact,
                job.artifact,
                job.settings,
                folder,
                self._limits,
                note,
                weights_of,
                build,
                start,
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


async def _cancelled(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
