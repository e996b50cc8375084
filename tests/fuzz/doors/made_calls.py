"""Calls of every kind that a control plane and KServe v2 answer with more than a refusal: what is
random seldom has so many fields right at once.
"""

import hashlib
from collections.abc import Iterator

from google.protobuf.message import Message

from tests.unit.worker.preprocess.encoded_images import ALL
from yolopool.kserve import grpc_service_pb2 as kserve
from yolopool.v1 import (
    aliases_pb2,
    bench_pb2,
    detection_pb2,
    events_pb2,
    explain_pb2,
    families_pb2,
    fleet_pb2,
    importing_pb2,
    keys_pb2,
    membership_pb2,
    model_pb2,
    peer_pb2,
    rollouts_pb2,
    schedule_pb2,
    types_pb2,
    watches_pb2,
)

JPEG = ALL["jpeg grey"]
_DATA = b"weights of a model"
_DIGEST = hashlib.sha256(_DATA).hexdigest()
_VERSION = types_pb2.VersionKey(model="a", version=1)
_OPTIONS = detection_pb2.DetectOptions(
    confidence=0.4, iou=0.5, max_detections=20, classes=[0, 1], image_size=320, top_k=3,
    class_confidences=[detection_pb2.ClassConfidence(class_id=0, confidence=0.5)],
    region_of_interest=types_pb2.Box(x_min=1, y_min=2, x_max=30, y_max=40),
    tiling=detection_pb2.Tiling(tile_size=320, overlap=0.2),
)  # fmt: skip
_PLACEMENT = types_pb2.Placement(max_replicas=2, labels={"zone": "a"})


def _worker(name: str = "w9", **more: object) -> fleet_pb2.Worker:
    return fleet_pb2.Worker(
        id=name, incarnation="f" * 32, address="127.0.0.1:1", device="sim:0", device_kind="sim",
        state=fleet_pb2.WORKER_STATE_READY, labels={"zone": "a"},
        ledger=types_pb2.Ledger(budget_bytes=1000, weights_bytes=100),
        load=types_pb2.LoadReport(queue_capacity=8, sequence=3, passes_total=4, images_total=10),
        replicas=[
            types_pb2.Replica(
                version=_VERSION, state=types_pb2.REPLICA_STATE_HOT, weights_bytes=100, busy=0.1,
                footprint=types_pb2.Footprint(weights_bytes=100, max_batch=1), inference_ms=2.0,
            )
        ],
    )  # fmt: skip


def _infer(*images: bytes) -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest(model_name="a", id="r")
    request.inputs.add(name="image", datatype="BYTES", shape=[len(images), 1])
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in images)
    request.raw_input_contents.append(raw)
    request.parameters["confidence"].double_param = 0.5
    request.outputs.add(name="boxes")
    return request


def _pixels() -> kserve.ModelInferRequest:
    request = kserve.ModelInferRequest(model_name="team/b", model_version="1")
    tensor = request.inputs.add(name="images", datatype="UINT8", shape=[1, 2, 2, 3])
    tensor.contents.uint_contents.extend(range(12))
    return request


def made() -> Iterator[tuple[str, list[Message]]]:
    """The path of a method within the packages, and the messages to send."""
    detect = detection_pb2.DetectRequest(model="a", encoded=JPEG, options=_OPTIONS, request_id="r1")
    raw = types_pb2.RawImage(data=bytes(12), height=2, width=2)
    raw.channel_order = types_pb2.CHANNEL_ORDER_BGR
    yield "DetectionService/Detect", [detect]
    yield "DetectionService/Detect", [detection_pb2.DetectRequest(model="team/b@1", raw=raw)]
    opening = detection_pb2.StreamOpening(model="a", window=4, frame_timeout_ms=50)
    frames: list[Message] = [
        detection_pb2.DetectStreamRequest(
            frame=detection_pb2.StreamFrame(frame_id=number, timestamp_s=number / 25, encoded=JPEG)
        )
        for number in range(1, 4)
    ]
    for newest_only in (False, True):
        opening.newest_only = newest_only
        first = detection_pb2.DetectStreamRequest()
        first.opening.CopyFrom(opening)
        yield "DetectionService/DetectStream", [first, *frames]
    header = model_pb2.UploadHeader(sha256=_DIGEST, size_bytes=len(_DATA))
    parts = [model_pb2.UploadArtifactRequest(header=header)]
    parts += [model_pb2.UploadArtifactRequest(chunk=part) for part in (_DATA[:5], _DATA[5:])]
    yield "ModelService/UploadArtifact", [*parts]
    register = model_pb2.RegisterModelRequest(
        name="new/one", artifact=_DIGEST, class_names=["x", "y"], metadata={"k": "v"},
        placement=_PLACEMENT, residency=types_pb2.Residency(idle_release_s=30),
        settings=types_pb2.VersionSettings(image_size=320, confidence=0.3, image_sizes=[320, 640]),
    )  # fmt: skip
    yield "ModelService/RegisterModel", [register]
    load = model_pb2.LoadModelRequest(model="c", replicas=2, pin=True, placement=_PLACEMENT)
    yield "ModelService/LoadModel", [load]
    batching = types_pb2.Batching(max_batch=8, preferred_sizes=[2, 8], max_delay_ms=3)
    yield (
        "ModelService/SetBatching",
        [model_pb2.SetBatchingRequest(model="a", device_kind="sim", batching=batching)],
    )
    yield (
        "ModelService/SetVariant",
        [
            model_pb2.SetVariantRequest(
                model="a", device_kind="cpu", variant="torch/fp32", unchecked=True
            )
        ],
    )
    yield (
        "ModelService/BuildModel",
        [
            model_pb2.BuildModelRequest(
                model="a", backend="openvino", precision="bf16", device_kind="cpu"
            )
        ],
    )
    change = model_pb2.ChangeoverRequest(prepare=[load], release=["a"])
    yield "ModelService/Changeover", [change]
    schedule = schedule_pb2.Schedule(
        name="day", cron="0 6 * * 1-5", time_zone="Europe/Berlin", lead_s=60, change=change
    )
    yield "ScheduleService/SetSchedule", [schedule_pb2.SetScheduleRequest(schedule=schedule)]
    watched = watches_pb2.Watch(
        name="w", uri="s3://bucket/m/", model="a", patterns=["*.pt"], profile="p", every_s=1.5
    )
    yield "WatchService/SetWatch", [watches_pb2.SetWatchRequest(watch=watched)]
    target = aliases_pb2.AliasTarget(version=1, weight=1000)
    yield (
        "AliasService/SetAlias",
        [
            aliases_pb2.SetAliasRequest(
                alias="a:stable", targets=[target], keep_s=5.0, within_s=1.0, why="w", force=True
            )
        ],
    )
    yield (
        "AliasService/PromoteModel",
        [
            aliases_pb2.PromoteModelRequest(
                model="a@1", alias="stable", expected_version=0, request_id="r"
            )
        ],
    )
    yield "AliasService/RollbackAlias", [aliases_pb2.RollbackAliasRequest(alias="a:stable")]
    plan = rollouts_pb2.RolloutPlan(
        steps=[0, 1000],
        shadow=50,
        min_s=0.0,
        false_alarms=0.1,
        tolerance=rollouts_pb2.RolloutTolerance(errors=0.2, lost=0.4),
    )
    begin = rollouts_pb2.StartRolloutRequest(alias="a:stable", candidate=2, plan=plan, why="w")
    yield "RolloutService/StartRollout", [begin]
    yield "RolloutService/AbortRollout", [rollouts_pb2.AbortRolloutRequest(alias="a:stable")]
    for begins in (("", ""), ("06:00", "22:00"), ("dawn", "dusk-15m")):
        members = [
            families_pb2.FamilyMember(model="a", begins=begins[0]),
            families_pb2.FamilyMember(model="a@1", begins=begins[1]),
        ]
        by_sun = types_pb2.Place(latitude=52.52, longitude=13.41) if "dawn" in begins else None
        family = families_pb2.Family(members=members, time_zone="Europe/Berlin", place=by_sun)
        yield (
            "FamilyService/SetFamily",
            [families_pb2.SetFamilyRequest(alias="s:any", family=family)],
        )
    yield "FamilyService/GetFamily", [families_pb2.GetFamilyRequest(alias="s:any")]
    key = keys_pb2.CreateKeyRequest(
        label="l", tenant="t", role=keys_pb2.ROLE_OPERATE, models=["team/*"], lifetime_s=60
    )
    yield "KeyService/CreateKey", [key]
    beats: list[Message] = [membership_pb2.HeartbeatRequest(worker=_worker()) for _ in range(2)]
    token = types_pb2.FencingToken(epoch=1, counter=1)
    yield (
        "MembershipService/Join",
        [membership_pb2.JoinRequest(worker=_worker(), highest_token=token)],
    )
    yield "MembershipService/Heartbeat", beats
    report = membership_pb2.ReportExitRequest(
        worker="w9", device="sim:0", device_kind="sim", incarnation="f" * 32, requests=["r1"]
    )
    report.exit.SetInParent()
    yield "MembershipService/ReportExit", [report]
    done = importing_pb2.ReportImportRequest(importer="i1", version=_VERSION)
    done.progress.fraction = 0.5
    yield "ImportService/ReportImport", [done]
    pack = importing_pb2.ReportImportRequest(importer="i1", version=_VERSION)
    pack.pack.CopyFrom(
        importing_pb2.ImportedPack(
            digest=_DIGEST, architecture="yolo", task="detect", class_names=["x"], weights_bytes=9,
            settings=types_pb2.VersionSettings(image_size=320, confidence=0.2, iou=0.7),
        )
    )  # fmt: skip
    yield "ImportService/ReportImport", [pack]
    sweep = bench_pb2.Sweep(batch_sizes=[1, 2], seconds=0.01)
    sweep.shapes.add(height=320, width=320)
    yield "BenchService/BenchModel", [bench_pb2.BenchModelRequest(model="a", sweep=sweep)]
    watch = events_pb2.WatchEventsRequest(after="1-0", last=5, model="a", follow=True)
    yield "EventService/WatchEvents", [watch]
    yield "ExplainService/PlanLoad", [explain_pb2.PlanLoadRequest(model="c", replicas=1)]
    yield "PeerService/WantVersion", [peer_pb2.WantVersionRequest(version=_VERSION)]
    yield "GRPCInferenceService/ModelInfer", [_infer(JPEG, JPEG)]
    yield "GRPCInferenceService/ModelInfer", [_pixels()]
    yield "GRPCInferenceService/ModelStreamInfer", [_infer(JPEG), _pixels()]
