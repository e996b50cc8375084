"""A small real gRPC server that answers from a script: what the clients are held against."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from yolopool import status
from yolopool.error_table import BY_REASON
from yolopool.errors import ImageNotDecodable, YolopoolError
from yolopool.v1 import (
    aliases_pb2,
    aliases_pb2_grpc,
    bench_pb2,
    bench_pb2_grpc,
    detection_pb2,
    detection_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    schedule_pb2,
    schedule_pb2_grpc,
    types_pb2,
    watches_pb2,
    watches_pb2_grpc,
)

NO_IMAGE = b"no image"


@dataclass
class Script:
    """What came in, and what is to come out."""

    calls: list[tuple[str, Any, float | None]] = field(default_factory=list)
    stored: bytes = b""
    break_upload_at: int | None = None
    states: list[int] = field(default_factory=list)
    batching: dict[str, types_pb2.Batching] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def note(self, name: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls.append((name, request, context.time_remaining()))

    def last(self, name: str) -> Any:
        return next(request for call, request, _ in reversed(self.calls) if call == name)


def refuse(context: grpc.ServicerContext, error: YolopoolError) -> None:
    context.set_trailing_metadata(status.trailing_metadata(error))
    context.abort(status.grpc_code(error), error.message)


def a_version(number: int = 1, state: int = model_pb2.VERSION_STATE_READY) -> Any:
    return model_pb2.ModelVersion(
        version=types_pb2.VersionKey(model="shapes", version=number),
        state=state,  # type: ignore[arg-type] # a number of the enum
        progress=0.5,
        step="fuse",
        task="detect",
        class_names=["circle", "square"],
        architecture="yolo11n-detect",
        weights_bytes=10_500_000,
        settings=types_pb2.VersionSettings(
            image_size=320, confidence=0.25, iou=0.7, max_detections=300,
            shape_policy=types_pb2.SHAPE_POLICY_RECT,
        ),
        wanted_replicas=1,
        residency=types_pb2.Residency(
            mode=types_pb2.RESIDENCY_MODE_ON_DEMAND, idle_release_s=30, cpu_fallback=True
        ),
        replicas=[
            model_pb2.ReplicaPlace(worker="box-cpu", device="cpu", replica=a_replica()),
        ],
    )  # fmt: skip


def a_replica() -> Any:
    return types_pb2.Replica(
        version=types_pb2.VersionKey(model="shapes", version=1),
        variant=types_pb2.Variant(backend="torch", precision="fp32", device_kind="cpu"),
        state=types_pb2.REPLICA_STATE_HOT,
        weights_bytes=10_500_000,
        loads_total=1,
    )


class Detection(detection_pb2_grpc.DetectionServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def Detect(self, request: Any, context: Any) -> Any:
        self.script.note("Detect", request, context)
        if request.encoded.startswith(NO_IMAGE):
            refuse(context, ImageNotDecodable("no luck: give a JPEG"))
        if request.model in BY_REASON:
            refuse(context, BY_REASON[request.model]("no luck: try less", retry_after_s=2.0))
        box = types_pb2.Box(x_min=10, y_min=20, x_max=110, y_max=90)
        return detection_pb2.DetectResponse(
            detections=[
                detection_pb2.Detection(class_id=1, class_name="square", confidence=0.9, box=box),
                detection_pb2.Detection(class_id=0, class_name="circle", confidence=0.5, box=box),
            ],
            image_width=160,
            image_height=120,
            version=types_pb2.VersionKey(model="shapes", version=3),
            variant=types_pb2.Variant(backend="torch", precision="fp32", device_kind="cpu"),
            worker="box-cpu",
            device="cpu",
            batch_size=2,
            timing=detection_pb2.Timing(inference_ms=12.5, total_ms=20.0),
            request_id=request.request_id or "made",
        )

    def DetectStream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        opening = next(requests).opening
        self.script.note("DetectStream", opening, context)
        for count, message in enumerate(requests, 1):
            frame = message.frame
            request = detection_pb2.DetectRequest(model=opening.model, encoded=frame.encoded)
            response = self.Detect(request, context)
            yield detection_pb2.DetectStreamResponse(
                frame_id=frame.frame_id, response=response, received=count
            )


class Models(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def UploadArtifact(self, requests: Iterator[Any], context: Any) -> Any:
        header = next(requests).header
        self.script.note("UploadArtifact", header, context)
        script = self.script
        for parts, request in enumerate(requests, 1):
            script.stored += request.chunk
            if script.break_upload_at == parts:
                script.break_upload_at = None
                refuse(context, BY_REASON["UNAVAILABLE"]("going down"))
        complete = hashlib.sha256(script.stored).hexdigest() == header.sha256
        return model_pb2.UploadArtifactResponse(
            complete=complete, received_bytes=len(script.stored)
        )

    def RegisterModel(self, request: Any, context: Any) -> Any:
        self.script.note("RegisterModel", request, context)
        return model_pb2.RegisterModelResponse(version=a_version(1, self._state()))

    def GetModel(self, request: Any, context: Any) -> Any:
        self.script.note("GetModel", request, context)
        if request.model.startswith("absent"):
            refuse(context, BY_REASON["MODEL_NOT_FOUND"]("no model 'absent': register it"))
        model = model_pb2.Model(name="shapes", default_version=1)
        model.versions.append(a_version(1, self._state()))
        for kind, batching in self.script.batching.items():
            model.versions[0].batching[kind].CopyFrom(batching)
        model.versions[0].metadata.update(self.script.metadata)
        model.versions[0].training.update({"epochs": "100", "data": "bolts.yaml"})
        return model_pb2.GetModelResponse(model=model)

    def ListModels(self, request: Any, context: Any) -> Any:
        self.script.note("ListModels", request, context)
        model = model_pb2.Model(name="shapes", default_version=1, versions=[a_version()])
        return model_pb2.ListModelsResponse(models=[model])

    def LoadModel(self, request: Any, context: Any) -> Any:
        self.script.note("LoadModel", request, context)
        return model_pb2.LoadModelResponse(version=a_version())

    def UnloadModel(self, request: Any, context: Any) -> Any:
        self.script.note("UnloadModel", request, context)
        return model_pb2.UnloadModelResponse(version=a_version())

    def DeleteModel(self, request: Any, context: Any) -> Any:
        self.script.note("DeleteModel", request, context)
        keys = [types_pb2.VersionKey(model="shapes", version=1)]
        return model_pb2.DeleteModelResponse(deleted=keys)

    def SweepStore(self, request: Any, context: Any) -> Any:
        self.script.note("SweepStore", request, context)
        file = model_pb2.UnusedFile(kind="pack", name="d" * 64, size_bytes=2048, unused_s=90_000)
        file.removed = not request.dry_run
        young = model_pb2.UnusedFile(kind="upload", name="e" * 64, size_bytes=5, keep_s=30)
        return model_pb2.SweepStoreResponse(files=[file, young])

    def SetResidency(self, request: Any, context: Any) -> Any:
        self.script.note("SetResidency", request, context)
        version = a_version()
        version.residency.CopyFrom(request.residency)
        return model_pb2.SetResidencyResponse(version=version)

    def SetLabels(self, request: Any, context: Any) -> Any:
        self.script.note("SetLabels", request, context)
        version = a_version()
        version.labels.update(request.labels)
        return model_pb2.SetLabelsResponse(version=version)

    def SetPlacement(self, request: Any, context: Any) -> Any:
        self.script.note("SetPlacement", request, context)
        version = a_version()
        version.placement.CopyFrom(request.placement)
        return model_pb2.SetPlacementResponse(version=version)

    def SetBatching(self, request: Any, context: Any) -> Any:
        self.script.note("SetBatching", request, context)
        version = a_version()
        if request.HasField("batching"):
            version.batching[request.device_kind].CopyFrom(request.batching)
        return model_pb2.SetBatchingResponse(version=version)

    def BuildModel(self, request: Any, context: Any) -> Any:
        self.script.note("BuildModel", request, context)
        build = a_version(state=self._state())
        build.version.model = f"shapes+{request.backend}-{request.precision}-{request.device_kind}"
        build.build_of.model, build.build_of.version = "shapes", 1
        return model_pb2.BuildModelResponse(build=build)

    def SetVariant(self, request: Any, context: Any) -> Any:
        self.script.note("SetVariant", request, context)
        version = a_version()
        backend, _, precision = request.variant.partition("/")
        served = version.served[request.device_kind]
        served.variant.backend, served.variant.precision = backend, precision
        if request.HasField("drift"):
            served.drift.CopyFrom(request.drift)
        return model_pb2.SetVariantResponse(version=version)

    def Changeover(self, request: Any, context: Any) -> Any:
        self.script.note("Changeover", request, context)
        keys = [types_pb2.VersionKey(model="old", version=2)]
        return model_pb2.ChangeoverResponse(prepared=[a_version()], released=keys)

    def _state(self) -> int:
        return self.script.states.pop(0) if self.script.states else model_pb2.VERSION_STATE_READY


class Fleet(fleet_pb2_grpc.FleetServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def GetWorker(self, request: Any, context: Any) -> Any:
        self.script.note("GetWorker", request, context)
        worker = fleet_pb2.Worker(id=request.worker, state=fleet_pb2.WORKER_STATE_READY)
        return fleet_pb2.GetWorkerResponse(worker=worker)

    def ListWorkers(self, request: Any, context: Any) -> Any:
        self.script.note("ListWorkers", request, context)
        worker = fleet_pb2.Worker(
            id="box-cpu", device="cpu", state=fleet_pb2.WORKER_STATE_READY,
            ledger=types_pb2.Ledger(
                budget_bytes=2**30, context_bytes=2**28, foreign_bytes=2**27, drift_bytes=2**28
            ),
            load=types_pb2.LoadReport(outstanding=1, queue_capacity=64), replicas=[a_replica()],
            replaces_because="256 MiB did not come back [budget]", cordoned=True,
        )  # fmt: skip
        return fleet_pb2.ListWorkersResponse(workers=[worker])

    def DrainWorker(self, request: Any, context: Any) -> Any:
        self.script.note("DrainWorker", request, context)
        if request.worker != "box-cpu":
            refuse(context, BY_REASON["WORKER_NOT_FOUND"](f"no worker {request.worker!r}"))
        stuck = [types_pb2.VersionKey(model="shapes", version=1)]
        return fleet_pb2.DrainWorkerResponse(not_moved=stuck)

    def GetFleet(self, request: Any, context: Any) -> Any:
        self.script.note("GetFleet", request, context)
        return fleet_pb2.GetFleetResponse(
            cluster="c1", registry_available=True, workers=1, workers_ready=1
        )

    def GetStatistics(self, request: Any, context: Any) -> Any:
        self.script.note("GetStatistics", request, context)
        return fleet_pb2.GetStatisticsResponse(
            window_s=60.0,
            step_s=5.0,
            versions=[
                fleet_pb2.VersionStatistics(
                    version=types_pb2.VersionKey(model="shapes", version=1),
                    requests_per_s=12.5,
                    errors_per_s=0.5,
                    p50_ms=20.0,
                    p99_ms=44.0,
                    queue_ms=3.0,
                    inference_ms=9.5,
                    batch_size=2.5,
                    hit_ratio=0.75,
                    steps=[0.0] * 10 + [10.0, 20.0],
                )
            ],
        )


class Bench(bench_pb2_grpc.BenchServiceServicer):
    """A device that is busy from 4 images on, and full at 16."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def BenchModel(self, request: Any, context: Any) -> Any:
        self.script.note("BenchModel", request, context)
        if request.worker == "nobody":
            refuse(context, BY_REASON["WORKER_NOT_FOUND"]("no worker 'nobody' is known"))
        for shape in request.sweep.shapes or [bench_pb2.Shape(height=320, width=320)]:
            for batch in request.sweep.batch_sizes:
                cut = request.worker == "leaver" and batch > 1
                point = bench_pb2.BenchPoint(shape=shape, batch=batch, done=not cut)
                if batch >= 16:
                    point.reason, point.message = "LEDGER_FULL", "it needs [more] bytes"
                else:
                    point.passes, point.p50_ms = 50, 8.0 + 2 * max(4, batch)
                    point.p99_ms, point.images_per_s = 30.0, 1000 * batch / point.p50_ms
                    point.forward_ms, point.workspace_bytes, point.busy = 14.0, 2**24, 0.25
                yield bench_pb2.BenchModelResponse(
                    version=types_pb2.VersionKey(model="shapes", version=1),
                    worker="box-cpu", device_kind="cpu", device_name="a [fast] CPU",
                    variant=types_pb2.Variant(backend="torch", precision="fp32"), point=point,
                )  # fmt: skip


def an_event(number: int) -> events_pb2.Event:
    return events_pb2.Event(
        id=f"{number}-0",
        unix_s=1000.0 + number,
        kind=events_pb2.EVENT_KIND_RELEASED,
        worker="box-cpu",
        version=types_pb2.VersionKey(model="shapes", version=number),
        reason="ROOM",
        message="to make [room]",
    )


class Events(events_pb2_grpc.EventServiceServicer):
    """Two events; who follows hears one more, and then the server goes away."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def WatchEvents(self, request: Any, context: Any) -> Any:
        self.script.note("WatchEvents", request, context)
        seen = int(request.after.partition("-")[0] or 0)
        for number in range(seen + 1, max(2, seen + 1) + 1):
            yield an_event(number)
        if request.follow and seen >= 2:
            refuse(context, BY_REASON["REGISTRY_UNAVAILABLE"]("Redis does not answer"))


class Explain(explain_pb2_grpc.ExplainServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def PlanLoad(self, request: Any, context: Any) -> Any:
        self.script.note("PlanLoad", request, context)
        key = types_pb2.VersionKey(model="shapes", version=1)
        step = explain_pb2.PlannedStep(
            action=explain_pb2.PlannedStep.ASSIGN, version=key, worker="box-cpu", why="it fits",
            line="assign shapes@1 to box-cpu: it fits",
        )  # fmt: skip
        return explain_pb2.PlanLoadResponse(steps=[] if request.model == "there" else [step])

    def ExplainModel(self, request: Any, context: Any) -> Any:
        self.script.note("ExplainModel", request, context)
        return explain_pb2.ExplainModelResponse(
            version=types_pb2.VersionKey(model="shapes", version=1),
            wants=["1 replica is wanted, asked for by name, for 5 min now."],
            rates=types_pb2.Rates(fast=0.5, middle=0.25, slow=0.125),
            rate=0.25,
            value_per_gib=2.5,
            workers=[
                explain_pb2.WorkerVerdict(
                    worker="box-cpu", device="cpu", state=types_pb2.REPLICA_STATE_HOT,
                    feasible=True, why="it is on the device", weights_bytes=2**20,
                    free_bytes=2**30, load_ms=52.5,
                ),
                explain_pb2.WorkerVerdict(
                    worker="box-1", device="sim:1", reason="LEDGER_FULL", load_ms=12_500,
                    why="pinned models leave no room for shapes@1: unload or unpin one",
                ),
            ],
            waiting_reason="LEDGER_FULL: it waits for [room]",
        )  # fmt: skip

    def ExplainRequest(self, request: Any, context: Any) -> Any:
        self.script.note("ExplainRequest", request, context)
        if request.request_id == "absent":
            refuse(context, BY_REASON["REQUEST_NOT_FOUND"]("no such request: ask another"))
        return explain_pb2.ExplainRequestResponse(
            requests=[
                explain_pb2.RequestTrace(
                    request_id=request.request_id, unix_s=1000, principal="anonymous",
                    model="shapes", version=types_pb2.VersionKey(model="shapes", version=1),
                    outcome="OK", retried=["box-1: QUEUE_FULL"], worker="box-cpu", hit=True,
                    total_ms=20, queue_ms=1, inference_ms=12.5, batch_size=2,
                )
            ]
        )  # fmt: skip


def a_schedule() -> Any:
    loads = [model_pb2.LoadModelRequest(model="shapes", replicas=2, pin=True)]
    change = model_pb2.ChangeoverRequest(prepare=loads, release=["old"])
    return schedule_pb2.ScheduleStatus(
        schedule=schedule_pb2.Schedule(
            name="day", cron="0 6 * * *", time_zone="Europe/Berlin", lead_s=600, change=change
        ),
        next_unix_s=1795323600,  # 2026-11-22 06:00 in Berlin
        last_unix_s=1795237200,
        last_error="LEDGER_FULL: no room [now]",
    )


class Schedules(schedule_pb2_grpc.ScheduleServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def SetSchedule(self, request: Any, context: Any) -> Any:
        self.script.note("SetSchedule", request, context)
        status = schedule_pb2.ScheduleStatus(schedule=request.schedule, next_unix_s=1795323600)
        return schedule_pb2.SetScheduleResponse(schedule=status)

    def GetSchedule(self, request: Any, context: Any) -> Any:
        self.script.note("GetSchedule", request, context)
        return schedule_pb2.GetScheduleResponse(schedule=a_schedule())

    def ListSchedules(self, request: Any, context: Any) -> Any:
        self.script.note("ListSchedules", request, context)
        return schedule_pb2.ListSchedulesResponse(schedules=[a_schedule()])

    def DeleteSchedule(self, request: Any, context: Any) -> Any:
        self.script.note("DeleteSchedule", request, context)
        if request.name != "day":
            refuse(context, BY_REASON["SCHEDULE_NOT_FOUND"]("there is no schedule of this name"))
        return schedule_pb2.DeleteScheduleResponse()


def an_alias(**more: Any) -> Any:
    one, two = (
        aliases_pb2.AliasTarget(version=1, weight=950),
        aliases_pb2.AliasTarget(version=2, weight=50),
    )
    before = [aliases_pb2.AliasTarget(version=1, weight=1000)]
    return aliases_pb2.Alias(
        model="shapes",
        name="stable",
        targets=[one, two],
        keep_s=600,
        changed_unix_s=1795237200,
        revision=3,
        kept=[aliases_pb2.KeptVersion(version=3, until_unix_s=1795237800)],
        previous=before,
        history=[
            aliases_pb2.AliasChange(
                unix_s=1795237200,
                kind=aliases_pb2.ALIAS_CHANGE_KIND_SET,
                by="ann",
                why="try [it]",
                before=before,
                after=[one, two],
            )
        ],
        **more,
    )


class Aliases(aliases_pb2_grpc.AliasServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def GetAlias(self, request: Any, context: Any) -> Any:
        self.script.note("GetAlias", request, context)
        switch = aliases_pb2.AliasSwitch(
            targets=[aliases_pb2.AliasTarget(version=4, weight=1000)],
            kind=aliases_pb2.ALIAS_CHANGE_KIND_PROMOTE,
            waits_for="1 more replica of shapes@4",
        )
        return aliases_pb2.GetAliasResponse(alias=an_alias(switch=switch))

    def ListAliases(self, request: Any, context: Any) -> Any:
        self.script.note("ListAliases", request, context)
        return aliases_pb2.ListAliasesResponse(aliases=[an_alias()])

    def SetAlias(self, request: Any, context: Any) -> Any:
        self.script.note("SetAlias", request, context)
        return aliases_pb2.SetAliasResponse(alias=an_alias())

    def PromoteModel(self, request: Any, context: Any) -> Any:
        self.script.note("PromoteModel", request, context)
        if request.expected_version == 9:
            refuse(context, BY_REASON["ALIAS_CHANGED"]("shapes:stable means version 1, not 9"))
        return aliases_pb2.PromoteModelResponse(alias=an_alias())

    def RollbackAlias(self, request: Any, context: Any) -> Any:
        self.script.note("RollbackAlias", request, context)
        return aliases_pb2.RollbackAliasResponse(alias=an_alias())

    def DeleteAlias(self, request: Any, context: Any) -> Any:
        self.script.note("DeleteAlias", request, context)
        return aliases_pb2.DeleteAliasResponse()


class Watches(watches_pb2_grpc.WatchServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    def SetWatch(self, request: Any, context: Any) -> Any:
        self.script.note("SetWatch", request, context)
        return watches_pb2.SetWatchResponse(watch=request.watch)

    def ListWatches(self, request: Any, context: Any) -> Any:
        self.script.note("ListWatches", request, context)
        watch = watches_pb2.Watch(
            name="line7", uri="s3://models/line7/", model="parts", patterns=["*.pt"], every_s=30,
            known_files=3, by="ann", error="SOURCE_UNAVAILABLE: S3 does not answer",
        )  # fmt: skip
        return watches_pb2.ListWatchesResponse(watches=[watch])

    def DeleteWatch(self, request: Any, context: Any) -> Any:
        self.script.note("DeleteWatch", request, context)
        if request.name == "absent":
            refuse(context, BY_REASON["WATCH_NOT_FOUND"]("there is no watch 'absent'"))
        return watches_pb2.DeleteWatchResponse()


class ScriptedPool:
    """`with ScriptedPool() as pool`: listens on `pool.address`, follows `pool.script`."""

    def __init__(self) -> None:
        self.script = Script()
        self._server = grpc.server(ThreadPoolExecutor(8))
        detection_pb2_grpc.add_DetectionServiceServicer_to_server(
            Detection(self.script), self._server
        )
        aliases_pb2_grpc.add_AliasServiceServicer_to_server(Aliases(self.script), self._server)
        watches_pb2_grpc.add_WatchServiceServicer_to_server(Watches(self.script), self._server)
        bench_pb2_grpc.add_BenchServiceServicer_to_server(Bench(self.script), self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(Models(self.script), self._server)
        fleet_pb2_grpc.add_FleetServiceServicer_to_server(Fleet(self.script), self._server)
        events_pb2_grpc.add_EventServiceServicer_to_server(Events(self.script), self._server)
        explain_pb2_grpc.add_ExplainServiceServicer_to_server(Explain(self.script), self._server)
        schedule_pb2_grpc.add_ScheduleServiceServicer_to_server(
            Schedules(self.script), self._server
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> "ScriptedPool":
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        stopped: threading.Event = self._server.stop(0)
        stopped.wait()
