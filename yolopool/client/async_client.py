"""The client for asyncio: `Client`'s methods, awaited."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc

from yolopool.client import explanations, fleet_records, model_records, requests, uploads
from yolopool.client.detections import Detections, from_response
from yolopool.client.images import ImageLike, Order
from yolopool.client.requests import (
    HeadModeName,
    MaskFormatName,
    OutputLayoutName,
    PriorityName,
    ResidencyModeName,
    ShapePolicyName,
)
from yolopool.client.services import (
    BENCH_TIMEOUT_S,
    CHANGE_TIMEOUT_S,
    DETECT_TIMEOUT_S,
    DRAIN_TIMEOUT_S,
    POLL_S,
    READ_TIMEOUT_S,
    UPLOAD_ATTEMPTS,
    UPLOAD_TIMEOUT_S,
    Services,
    is_importing,
    names_of,
)
from yolopool.client.uploads import Artifact, Progress
from yolopool.errors import InvalidOffset, Unavailable
from yolopool.status import error_from_rpc
from yolopool.v1 import explain_pb2, fleet_pb2, model_pb2, schedule_pb2

Answer = TypeVar("Answer")


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited. Use it in an `async with`, or close it."""

    def __init__(self, address: str | None = None) -> None:
        self.address = requests.address_of(address)
        self._channel = grpc.aio.insecure_channel(self.address, options=requests.CHANNEL_OPTIONS)
        self._stubs = Services(self._channel)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends open calls and the connection."""
        await self._channel.close()

    async def detect(
        self,
        image: ImageLike,
        model: str,
        *,
        channel_order: Order | None = None,
        confidence: float | None = None,
        class_confidences: Mapping[int, float] | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[int] = (),
        agnostic_nms: bool = False,
        region_of_interest: Sequence[float] | None = None,
        masks: MaskFormatName | None = None,
        top_k: int | None = None,
        all_probabilities: bool = False,
        image_size: int | None = None,
        tile_size: int | None = None,
        tile_overlap: float | None = None,
        priority: PriorityName = "normal",
        request_id: str = "",
        timeout_s: float = DETECT_TIMEOUT_S,
    ) -> Detections:
        """As `Client.detect`."""
        request, source = requests.detect(
            image,
            model,
            channel_order=channel_order,
            confidence=confidence,
            class_confidences=class_confidences,
            iou=iou,
            max_detections=max_detections,
            classes=classes,
            agnostic_nms=agnostic_nms,
            region_of_interest=region_of_interest,
            masks=masks,
            top_k=top_k,
            all_probabilities=all_probabilities,
            image_size=image_size,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            priority=priority,
            request_id=request_id,
        )
        answer = await _await(self._stubs.detection.Detect, request, timeout_s)
        return from_response(answer, source, masks != "none")

    async def upload(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Artifact:
        """As `Client.upload`."""
        artifact = await asyncio.to_thread(uploads.artifact, path)
        until = time.monotonic() + timeout_s
        for attempt in range(UPLOAD_ATTEMPTS):
            try:
                call, left = self._stubs.model.UploadArtifact, until - time.monotonic()
                held = await _await(call, artifact.question(), left)
                if not held.complete:
                    await _await(call, artifact.parts(held.received_bytes, progress), left)
                return artifact
            except (Unavailable, InvalidOffset):
                if attempt == UPLOAD_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(POLL_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises, this is a bug")

    async def register(
        self,
        name: str,
        path: str | Path,
        *,
        image_size: int | None = None,
        image_sizes: Sequence[int] = (),
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        shape_policy: ShapePolicyName | None = None,
        head_mode: HeadModeName | None = None,
        output_layout: OutputLayoutName | None = None,
        architecture: str | Path | None = None,
        class_names: Sequence[str] = (),
        placement: model_records.Placement | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """As `Client.register`."""
        until = time.monotonic() + timeout_s
        artifact = await self.upload(path, progress=progress, timeout_s=timeout_s)
        request = requests.register(
            name,
            artifact,
            image_size=image_size,
            image_sizes=image_sizes,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            shape_policy=shape_policy,
            head_mode=head_mode,
            output_layout=output_layout,
            architecture=architecture,
            class_names=class_names,
            where=placement,
        )
        answer = await _await(self._stubs.model.RegisterModel, request, until - time.monotonic())
        version = model_records.version_of(answer.version)
        while wait and is_importing(version, progress) and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
            version = (await self.model(version.name)).versions[0]
        return version

    async def models(self, prefix: str = "") -> tuple[model_records.Model, ...]:
        """As `Client.models`."""
        request = model_pb2.ListModelsRequest(name_prefix=prefix)
        answer = await _await(self._stubs.model.ListModels, request, READ_TIMEOUT_S)
        return tuple(model_records.model_of(model) for model in answer.models)

    async def model(self, model: str) -> model_records.Model:
        """As `Client.model`."""
        request = model_pb2.GetModelRequest(model=model)
        answer = await _await(self._stubs.model.GetModel, request, READ_TIMEOUT_S)
        return model_records.model_of(answer.model)

    async def load(
        self,
        model: str,
        *,
        replicas: int = 1,
        pin: bool = False,
        placement: model_records.Placement | None = None,
        wait: bool = True,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """As `Client.load`."""
        request = requests.load(model, replicas, pin, wait, placement)
        answer = await _await(self._stubs.model.LoadModel, request, timeout_s)
        return model_records.version_of(answer.version)

    async def unload(
        self,
        model: str,
        *,
        wait: bool = True,
        force: bool = False,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """As `Client.unload`."""
        request = model_pb2.UnloadModelRequest(model=model, wait=wait, force=force)
        answer = await _await(self._stubs.model.UnloadModel, request, timeout_s)
        return model_records.version_of(answer.version)

    async def changeover(
        self,
        prepare: Sequence[str],
        release: Sequence[str] = (),
        *,
        replicas: int = 1,
        pin: bool = False,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.Changeover:
        """As `Client.changeover`."""
        request = requests.changeover(prepare, release, replicas, pin)
        answer = await _await(self._stubs.model.Changeover, request, timeout_s)
        return model_records.changeover_of(answer)

    async def set_schedule(
        self,
        name: str,
        cron: str,
        prepare: Sequence[str],
        release: Sequence[str] = (),
        *,
        time_zone: str = "",
        lead_s: float = 0.0,
        replicas: int = 1,
        pin: bool = False,
    ) -> model_records.Schedule:
        """As `Client.set_schedule`."""
        change = requests.changeover(prepare, release, replicas, pin)
        request = requests.schedule(name, cron, time_zone, lead_s, change)
        answer = await _await(self._stubs.schedule.SetSchedule, request, READ_TIMEOUT_S)
        return model_records.schedule_of(answer.schedule)

    async def schedules(self) -> tuple[model_records.Schedule, ...]:
        """As `Client.schedules`."""
        request = schedule_pb2.ListSchedulesRequest()
        answer = await _await(self._stubs.schedule.ListSchedules, request, READ_TIMEOUT_S)
        return tuple(model_records.schedule_of(one) for one in answer.schedules)

    async def delete_schedule(self, name: str) -> None:
        """As `Client.delete_schedule`."""
        request = schedule_pb2.DeleteScheduleRequest(name=name)
        await _await(self._stubs.schedule.DeleteSchedule, request, READ_TIMEOUT_S)

    async def set_residency(
        self,
        model: str,
        mode: ResidencyModeName,
        *,
        idle_release_s: float = 0.0,
        cpu_fallback: bool = False,
    ) -> model_records.ModelVersion:
        """As `Client.set_residency`."""
        request = requests.residency(model, mode, idle_release_s, cpu_fallback)
        answer = await _await(self._stubs.model.SetResidency, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    async def set_placement(
        self, model: str, placement: model_records.Placement
    ) -> model_records.ModelVersion:
        """As `Client.set_placement`."""
        where = requests.placement(placement)
        request = model_pb2.SetPlacementRequest(model=model, placement=where)
        answer = await _await(self._stubs.model.SetPlacement, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    async def set_batching(
        self, model: str, device_kind: str, batching: model_records.Batching | None
    ) -> model_records.ModelVersion:
        """As `Client.set_batching`."""
        request = requests.batching(model, device_kind, batching)
        answer = await _await(self._stubs.model.SetBatching, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    async def build(
        self,
        model: str,
        *,
        backend: str,
        precision: str,
        device_kind: str = "cpu",
        calibration: str | Path | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """As `Client.build`."""
        until, digest = time.monotonic() + timeout_s, ""
        if calibration is not None:
            with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
                path = Path(folder) / "calibration.zip"
                await asyncio.to_thread(uploads.write, Path(calibration), path)
                artifact = await self.upload(path, progress=progress, timeout_s=timeout_s)
                digest = artifact.sha256
        request = model_pb2.BuildModelRequest(
            model=model,
            backend=backend,
            precision=precision,
            device_kind=device_kind,
            calibration=digest,
        )
        answer = await _await(self._stubs.model.BuildModel, request, READ_TIMEOUT_S)
        build = model_records.version_of(answer.build)
        while wait and is_importing(build, progress) and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
            build = (await self.model(build.name)).versions[0]
        return build

    async def set_variant(
        self,
        model: str,
        device_kind: str,
        variant: str,
        drift: model_records.Drift | None = None,
        *,
        unchecked: bool = False,
    ) -> model_records.ModelVersion:
        """As `Client.set_variant`."""
        request = requests.variant(model, device_kind, variant, drift, unchecked)
        answer = await _await(self._stubs.model.SetVariant, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    async def delete(self, model: str) -> tuple[str, ...]:
        """As `Client.delete`."""
        request = model_pb2.DeleteModelRequest(model=model)
        answer = await _await(self._stubs.model.DeleteModel, request, READ_TIMEOUT_S)
        return names_of(answer.deleted)

    async def workers(self) -> tuple[fleet_records.Worker, ...]:
        """As `Client.workers`."""
        request = fleet_pb2.ListWorkersRequest()
        answer = await _await(self._stubs.fleet.ListWorkers, request, READ_TIMEOUT_S)
        return tuple(fleet_records.worker_of(worker) for worker in answer.workers)

    async def drain_worker(
        self, worker: str, *, wait: bool = True, timeout_s: float = DRAIN_TIMEOUT_S
    ) -> tuple[str, ...]:
        """As `Client.drain_worker`."""
        request = fleet_pb2.DrainWorkerRequest(worker=worker, wait=wait)
        answer = await _await(self._stubs.fleet.DrainWorker, request, timeout_s)
        return names_of(answer.not_moved)

    def bench(
        self,
        model: str,
        *,
        worker: str = "",
        device_kind: str = "",
        shapes: Sequence[tuple[int, int]] = (),
        batch_sizes: Sequence[int] = (),
        seconds: float = 0.0,
        image: str | Path | bytes | None = None,
        timeout_s: float = BENCH_TIMEOUT_S,
    ) -> AsyncIterator[fleet_records.BenchPoint]:
        """As `Client.bench`, for `async for`."""
        request = requests.bench(
            model,
            worker=worker,
            device_kind=device_kind,
            shapes=shapes,
            batch_sizes=batch_sizes,
            seconds=seconds,
            image=image,
        )
        call = self._stubs.bench.BenchModel(request, timeout=timeout_s)
        return _each_awaited(call, fleet_records.bench_point_of)

    async def fleet(self) -> fleet_records.Fleet:
        """As `Client.fleet`."""
        request = fleet_pb2.GetFleetRequest()
        return fleet_records.fleet_of(
            await _await(self._stubs.fleet.GetFleet, request, READ_TIMEOUT_S)
        )

    def events(
        self,
        *,
        after: str = "",
        last: int = 0,
        kinds: Sequence[str] = (),
        model: str = "",
        worker: str = "",
        follow: bool = False,
    ) -> AsyncIterator[explanations.Event]:
        """As `Client.events`, for `async for`."""
        request = requests.events(
            after=after, last=last, kinds=kinds, model=model, worker=worker, follow=follow
        )
        call = self._stubs.events.WatchEvents(request, timeout=None if follow else READ_TIMEOUT_S)
        return _each_awaited(call, explanations.event_of)

    async def plan_load(
        self, model: str, *, replicas: int = 1, pin: bool = False
    ) -> tuple[explanations.PlannedStep, ...]:
        """As `Client.plan_load`."""
        request = explain_pb2.PlanLoadRequest(model=model, replicas=replicas, pin=pin)
        answer = await _await(self._stubs.explain.PlanLoad, request, READ_TIMEOUT_S)
        return tuple(explanations.step_of(step) for step in answer.steps)

    async def explain_model(self, model: str) -> explanations.ModelExplanation:
        """As `Client.explain_model`."""
        request = explain_pb2.ExplainModelRequest(model=model)
        answer = await _await(self._stubs.explain.ExplainModel, request, READ_TIMEOUT_S)
        return explanations.model_of(answer)

    async def explain_request(self, request_id: str) -> tuple[explanations.RequestTrace, ...]:
        """As `Client.explain_request`."""
        request = explain_pb2.ExplainRequestRequest(request_id=request_id)
        answer = await _await(self._stubs.explain.ExplainRequest, request, READ_TIMEOUT_S)
        return tuple(explanations.trace_of(trace) for trace in answer.requests)


async def _await(
    method: Callable[..., Awaitable[Answer]], request: Any, timeout_s: float
) -> Answer:
    try:
        return await method(request, timeout=max(timeout_s, 0.001))
    except grpc.RpcError as error:
        raise error_from_rpc(error) from None


async def _each_awaited(call: Any, read: Callable[[Any], Answer]) -> AsyncIterator[Answer]:
    try:
        async for message in call:
            yield read(message)
    except grpc.RpcError as error:
        raise error_from_rpc(error) from None
    finally:
        call.cancel()
