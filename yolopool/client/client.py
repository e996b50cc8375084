"""The client that blocks; `async_client` has the same methods, awaited, and the same errors.

Both are thin: `requests` makes the messages, `detections` and `records` read the answers. Every
call has a deadline, and every failure is a YolopoolError with reason, retryable, retry_after_s.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Client:
    """Calls a pool at `address` (host:port; by default YOLOPOOL_ADDRESS or 127.0.0.1:50051).

    Safe to share between threads. Close it, or use it in a `with`.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = requests.address_of(address)
        self._channel = grpc.insecure_channel(self.address, options=requests.CHANNEL_OPTIONS)
        self._stubs = Services(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends open calls and the connection."""
        self._channel.close()

    def detect(
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
        """Runs a model on one image: a path, bytes of a file, a PIL image, or a uint8 array of
        (height, width, 3) with its channel order said, or (height, width) for grey.

        Options left out take the version's settings. `masks` ("polygon" by default, "rle",
        "none") is of models that segment; `top_k` and `all_probabilities` of those that classify.
        `image_size` is one that the version allows. `tile_size` or `tile_overlap` (a share, 0.2)
        cut a large image into tiles, 0 meaning the model's own size. Raises YolopoolError; OSError
        for a file that cannot be read.

        >>> Client("localhost:50051").detect("street.jpg", model="shapes").xyxy
        """
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
        answer = _call(self._stubs.detection.Detect, request, timeout_s)
        return from_response(answer, source, masks != "none")

    def upload(
        self,
        path: str | Path,
        *,
        progress: Progress | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Artifact:
        """Stores a file by its content; goes on where a broken upload ended."""
        artifact, until = uploads.artifact(path), time.monotonic() + timeout_s
        for attempt in range(UPLOAD_ATTEMPTS):
            try:
                call, left = self._stubs.model.UploadArtifact, until - time.monotonic()
                held = _call(call, artifact.question(), left)
                if not held.complete:
                    _call(call, artifact.parts(held.received_bytes, progress), left)
                return artifact
            except (Unavailable, InvalidOffset):
                if attempt == UPLOAD_ATTEMPTS - 1:
                    raise
                time.sleep(POLL_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises, this is a bug")

    def register(
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
        """Uploads a model file (.pt or .onnx) and makes it the next version of `name`.

        `output_layout` is of an ONNX file that does not tell how its answer is laid out, and such
        a file may need `class_names`. With wait, returns when the import is READY or FAILED (see
        `state`, `reason`).
        """
        until = time.monotonic() + timeout_s
        artifact = self.upload(path, progress=progress, timeout_s=timeout_s)
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
        answer = _call(self._stubs.model.RegisterModel, request, until - time.monotonic())
        version = model_records.version_of(answer.version)
        while wait and is_importing(version, progress) and time.monotonic() < until:
            time.sleep(POLL_S)
            version = self.model(version.name).versions[0]
        return version

    def models(self, prefix: str = "") -> tuple[model_records.Model, ...]:
        """All models whose name begins so, by name."""
        request = model_pb2.ListModelsRequest(name_prefix=prefix)
        answer = _call(self._stubs.model.ListModels, request, READ_TIMEOUT_S)
        return tuple(model_records.model_of(model) for model in answer.models)

    def model(self, model: str) -> model_records.Model:
        """One model by name, or by name@version with that version alone."""
        request = model_pb2.GetModelRequest(model=model)
        return model_records.model_of(
            _call(self._stubs.model.GetModel, request, READ_TIMEOUT_S).model
        )

    def load(
        self,
        model: str,
        *,
        replicas: int = 1,
        pin: bool = False,
        placement: model_records.Placement | None = None,
        wait: bool = True,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """Wants a version on so many workers; with wait, returns when it is HOT there. A
        `placement` is set first, as `set_placement` does.
        """
        request = requests.load(model, replicas, pin, wait, placement)
        return model_records.version_of(
            _call(self._stubs.model.LoadModel, request, timeout_s).version
        )

    def unload(
        self,
        model: str,
        *,
        wait: bool = True,
        force: bool = False,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.ModelVersion:
        """Wants a version nowhere; with wait, returns when it is gone. `force`: its open requests
        are refused with NotAssigned instead of waited for.
        """
        request = model_pb2.UnloadModelRequest(model=model, wait=wait, force=force)
        return model_records.version_of(
            _call(self._stubs.model.UnloadModel, request, timeout_s).version
        )

    def changeover(
        self,
        prepare: Sequence[str],
        release: Sequence[str] = (),
        *,
        replicas: int = 1,
        pin: bool = False,
        timeout_s: float = CHANGE_TIMEOUT_S,
    ) -> model_records.Changeover:
        """Loads all of `prepare` and then ends what is wanted of `release`, all or nothing.

        Raises ChangeoverFailed (details: model, reason) or DeadlineExceeded if one can't be
        loaded in time; what was wanted before is wanted again then.
        """
        request = requests.changeover(prepare, release, replicas, pin)
        return model_records.changeover_of(_call(self._stubs.model.Changeover, request, timeout_s))

    def set_schedule(
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
        """Makes or replaces a schedule: a changeover at each moment of `cron` (minute hour
        day-of-month month day-of-week) in an IANA `time_zone` (empty: UTC), whose loads begin
        lead_s before. Raises InvalidSchedule.
        """
        change = requests.changeover(prepare, release, replicas, pin)
        request = requests.schedule(name, cron, time_zone, lead_s, change)
        answer = _call(self._stubs.schedule.SetSchedule, request, READ_TIMEOUT_S)
        return model_records.schedule_of(answer.schedule)

    def schedules(self) -> tuple[model_records.Schedule, ...]:
        """All schedules, by name."""
        request = schedule_pb2.ListSchedulesRequest()
        answer = _call(self._stubs.schedule.ListSchedules, request, READ_TIMEOUT_S)
        return tuple(model_records.schedule_of(one) for one in answer.schedules)

    def delete_schedule(self, name: str) -> None:
        """Forgets a schedule; what it loaded stays. Raises ScheduleNotFound."""
        request = schedule_pb2.DeleteScheduleRequest(name=name)
        _call(self._stubs.schedule.DeleteSchedule, request, READ_TIMEOUT_S)

    def set_residency(
        self,
        model: str,
        mode: ResidencyModeName,
        *,
        idle_release_s: float = 0.0,
        cpu_fallback: bool = False,
    ) -> model_records.ModelVersion:
        """Says how a version is kept once loaded; `idle_release_s` (0: 60) is of on-demand."""
        request = requests.residency(model, mode, idle_release_s, cpu_fallback)
        answer = _call(self._stubs.model.SetResidency, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    def set_placement(
        self, model: str, placement: model_records.Placement
    ) -> model_records.ModelVersion:
        """Says where a version may run, on how many workers, and how much it matters."""
        where = requests.placement(placement)
        request = model_pb2.SetPlacementRequest(model=model, placement=where)
        answer = _call(self._stubs.model.SetPlacement, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    def set_batching(
        self, model: str, device_kind: str, batching: model_records.Batching | None
    ) -> model_records.ModelVersion:
        """Says how the images of a version share passes on cpu, cuda or sim; None: as its workers
        were started. Replicas take it over where they are, without a gap.
        """
        request = requests.batching(model, device_kind, batching)
        answer = _call(self._stubs.model.SetBatching, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    def build(
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
        """Makes a build of a version: for torch, onnx, openvino or tensorrt in fp32, fp16, bf16 or
        int8 (which takes `calibration`: a folder of images like those that will be asked about).
        Answers it as a model of its own, to be asked for by its name; `set_variant` serves the
        version by it. With wait, returns when it is READY or FAILED (see `state`, `reason`).
        """
        until, digest = time.monotonic() + timeout_s, ""
        if calibration is not None:
            with tempfile.TemporaryDirectory(prefix="yolopool-") as folder:
                path = Path(folder) / "calibration.zip"
                uploads.write(Path(calibration), path)
                digest = self.upload(path, progress=progress, timeout_s=timeout_s).sha256
        request = model_pb2.BuildModelRequest(
            model=model,
            backend=backend,
            precision=precision,
            device_kind=device_kind,
            calibration=digest,
        )
        answer = _call(self._stubs.model.BuildModel, request, READ_TIMEOUT_S)
        build = model_records.version_of(answer.build)
        while wait and is_importing(build, progress) and time.monotonic() < until:
            time.sleep(POLL_S)
            build = self.model(build.name).versions[0]
        return build

    def set_variant(
        self,
        model: str,
        device_kind: str,
        variant: str,
        drift: model_records.Drift | None = None,
        *,
        unchecked: bool = False,
    ) -> model_records.ModelVersion:
        """Serves a version by one of its builds (backend/precision; empty: as its workers make it)
        on cpu or cuda from now on. Replicas are loaded anew behind their last tickets. `drift` is
        kept with it, and told with each answer. In reduced precision a build serves on the compute
        classes where it was compared (`drift.compute_class`); with `unchecked` on all.
        """
        request = requests.variant(model, device_kind, variant, drift, unchecked)
        answer = _call(self._stubs.model.SetVariant, request, READ_TIMEOUT_S)
        return model_records.version_of(answer.version)

    def delete(self, model: str) -> tuple[str, ...]:
        """Forgets a model, or one version of it; answers what was deleted as name@version."""
        request = model_pb2.DeleteModelRequest(model=model)
        return names_of(_call(self._stubs.model.DeleteModel, request, READ_TIMEOUT_S).deleted)

    def workers(self) -> tuple[fleet_records.Worker, ...]:
        """The workers by id, with ledgers and replicas."""
        request = fleet_pb2.ListWorkersRequest()
        answer = _call(self._stubs.fleet.ListWorkers, request, READ_TIMEOUT_S)
        return tuple(fleet_records.worker_of(worker) for worker in answer.workers)

    def drain_worker(
        self, worker: str, *, wait: bool = True, timeout_s: float = DRAIN_TIMEOUT_S
    ) -> tuple[str, ...]:
        """Takes a worker out once its models are loaded elsewhere; with wait, returns when it has
        left. Answers as name@version what only it held and nobody else has room for.
        """
        request = fleet_pb2.DrainWorkerRequest(worker=worker, wait=wait)
        return names_of(_call(self._stubs.fleet.DrainWorker, request, timeout_s).not_moved)

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
    ) -> Iterator[fleet_records.BenchPoint]:
        """Measures passes by shape, (height, width), and batch size on one worker that holds the
        version, and answers the points as they come. Each comes some times, with more passes: its
        last counts. What is left out takes the server's defaults.

        `image`: bytes or path of an encoded picture to run; none: rectangles on noise.
        """
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
        return _each(call, fleet_records.bench_point_of)

    def fleet(self) -> fleet_records.Fleet:
        """The whole pool in numbers."""
        request = fleet_pb2.GetFleetRequest()
        return fleet_records.fleet_of(_call(self._stubs.fleet.GetFleet, request, READ_TIMEOUT_S))

    def events(
        self,
        *,
        after: str = "",
        last: int = 0,
        kinds: Sequence[str] = (),
        model: str = "",
        worker: str = "",
        follow: bool = False,
    ) -> Iterator[explanations.Event]:
        """What happened to the fleet after an event's id, oldest first: all that is kept, or the
        `last` so many; only of these kinds ("ASSIGNED", ...), model (name | name@version), worker.

        With follow it goes on with those to come, without a deadline: it ends when the control
        plane stops, and raises Unavailable when that or the store is lost. Go on with the last id.
        """
        request = requests.events(
            after=after, last=last, kinds=kinds, model=model, worker=worker, follow=follow
        )
        call = self._stubs.events.WatchEvents(request, timeout=None if follow else READ_TIMEOUT_S)
        return _each(call, explanations.event_of)

    def plan_load(
        self, model: str, *, replicas: int = 1, pin: bool = False
    ) -> tuple[explanations.PlannedStep, ...]:
        """What `load` would do now, in order; nothing is changed. Empty: it is as asked."""
        request = explain_pb2.PlanLoadRequest(model=model, replicas=replicas, pin=pin)
        answer = _call(self._stubs.explain.PlanLoad, request, READ_TIMEOUT_S)
        return tuple(explanations.step_of(step) for step in answer.steps)

    def explain_model(self, model: str) -> explanations.ModelExplanation:
        """Where a version is and why: what is wanted, demand, value, and each worker's verdict."""
        request = explain_pb2.ExplainModelRequest(model=model)
        answer = _call(self._stubs.explain.ExplainModel, request, READ_TIMEOUT_S)
        return explanations.model_of(answer)

    def explain_request(self, request_id: str) -> tuple[explanations.RequestTrace, ...]:
        """What became of a recent request, newest first; the control plane that ended it knows."""
        request = explain_pb2.ExplainRequestRequest(request_id=request_id)
        answer = _call(self._stubs.explain.ExplainRequest, request, READ_TIMEOUT_S)
        return tuple(explanations.trace_of(trace) for trace in answer.requests)


def _call(method: Callable[..., Answer], request: Any, timeout_s: float) -> Answer:
    try:
        return method(request, timeout=max(timeout_s, 0.001))
    except grpc.RpcError as error:
        raise error_from_rpc(error) from None


def _each(call: Any, read: Callable[[Any], Answer]) -> Iterator[Answer]:
    try:
        for message in call:
            yield read(message)
    except grpc.RpcError as error:
        raise error_from_rpc(error) from None
    finally:
        call.cancel()
