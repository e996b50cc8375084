"""Calls as data: what each method of the two clients sends, and how long it may take.

Pure but for reading the image's file; the clients only await what is made here.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from yolopool.client import images
from yolopool.client.model_records import Batching, Drift, Placement, drift_to
from yolopool.client.uploads import Artifact, architecture_text
from yolopool.errors import InvalidOption
from yolopool.v1 import bench_pb2, detection_pb2, events_pb2, model_pb2, schedule_pb2, types_pb2

DEFAULT_ADDRESS = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
# Calls that change nothing are sent again by the transport while their deadline lasts.
_REPEATABLE = {
    "yolopool.v1.DetectionService": ("Detect",),
    "yolopool.v1.ModelService": ("ListModels", "GetModel"),
    "yolopool.v1.FleetService": ("ListWorkers", "GetFleet"),
    "yolopool.v1.EventService": ("WatchEvents",),
    "yolopool.v1.ExplainService": ("PlanLoad", "ExplainModel", "ExplainRequest"),
    "yolopool.v1.ScheduleService": ("ListSchedules",),
}
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [
                            {"service": service, "method": method}
                            for service, methods in _REPEATABLE.items()
                            for method in methods
                        ],
                        "retryPolicy": {
                            "maxAttempts": 4,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"],
                        },
                    }
                ]
            }
        ),
    ),
)

PriorityName = Literal["interactive", "normal", "bulk"]
ShapePolicyName = Literal["rect", "square"]
HeadModeName = Literal["one-to-many", "end-to-end"]
OutputLayoutName = Literal["objectness", "plain", "end-to-end", "pair"]
ResidencyModeName = Literal["normal", "hot-standby", "on-demand"]
_PRIORITIES = {
    "interactive": types_pb2.PRIORITY_INTERACTIVE,
    "normal": types_pb2.PRIORITY_NORMAL,
    "bulk": types_pb2.PRIORITY_BULK,
}
MaskFormatName = Literal["none", "polygon", "rle"]
_MASKS = {
    None: detection_pb2.MASK_FORMAT_UNSPECIFIED,
    "none": detection_pb2.MASK_FORMAT_NONE,
    "polygon": detection_pb2.MASK_FORMAT_POLYGON,
    "rle": detection_pb2.MASK_FORMAT_RLE,
}
_POLICIES = {
    None: types_pb2.SHAPE_POLICY_UNSPECIFIED,
    "rect": types_pb2.SHAPE_POLICY_RECT,
    "square": types_pb2.SHAPE_POLICY_SQUARE,
}
_HEADS = {
    None: types_pb2.HEAD_MODE_UNSPECIFIED,
    "one-to-many": types_pb2.HEAD_MODE_ONE_TO_MANY,
    "end-to-end": types_pb2.HEAD_MODE_END_TO_END,
}
_LAYOUTS = {
    None: types_pb2.OUTPUT_LAYOUT_UNSPECIFIED,
    "objectness": types_pb2.OUTPUT_LAYOUT_OBJECTNESS,
    "plain": types_pb2.OUTPUT_LAYOUT_PLAIN,
    "end-to-end": types_pb2.OUTPUT_LAYOUT_END_TO_END,
    "pair": types_pb2.OUTPUT_LAYOUT_PAIR,
}
_KIND = "EVENT_KIND_"
_RESIDENCIES = {
    "normal": types_pb2.RESIDENCY_MODE_NORMAL,
    "hot-standby": types_pb2.RESIDENCY_MODE_HOT_STANDBY,
    "on-demand": types_pb2.RESIDENCY_MODE_ON_DEMAND,
}


def address_of(address: str | None) -> str:
    """The given address, else YOLOPOOL_ADDRESS, else the default port of this machine."""
    return address or os.environ.get("YOLOPOOL_ADDRESS") or DEFAULT_ADDRESS


def detect(
    image: images.ImageLike,
    model: str,
    *,
    channel_order: images.Order | None,
    confidence: float | None,
    class_confidences: Mapping[int, float] | None,
    iou: float | None,
    max_detections: int | None,
    classes: Sequence[int],
    agnostic_nms: bool,
    region_of_interest: Sequence[float] | None,
    masks: MaskFormatName | None,
    top_k: int | None,
    all_probabilities: bool,
    image_size: int | None,
    tile_size: int | None,
    tile_overlap: float | None,
    priority: PriorityName,
    request_id: str,
) -> tuple[detection_pb2.DetectRequest, Image.Image | bytes]:
    """The message of a Detect, and the image for drawing on."""
    if priority not in _PRIORITIES:
        raise InvalidOption(f"priority {priority!r}: one of {', '.join(_PRIORITIES)}")
    request = detection_pb2.DetectRequest(
        model=model, priority=_PRIORITIES[priority], request_id=request_id
    )
    source = images.put(image, channel_order, request)
    options = request.options
    _put_thresholds(options, confidence, class_confidences or {}, iou, max_detections)
    options.classes.extend(_unsigned("class id", class_id) for class_id in classes)
    options.agnostic_nms = agnostic_nms
    if region_of_interest is not None:
        if len(region_of_interest) != 4:
            raise InvalidOption("region_of_interest: give (x_min, y_min, x_max, y_max) in pixels")
        x_min, y_min, x_max, y_max = (float(value) for value in region_of_interest)
        options.region_of_interest.CopyFrom(
            types_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
        )
    _put_form(options, masks, top_k, all_probabilities)
    options.image_size = _unsigned("image_size", image_size or 0)
    if tile_size is not None or tile_overlap is not None:
        options.tiling.tile_size = _unsigned("tile_size", tile_size or 0)
        if tile_overlap is not None:
            options.tiling.overlap = tile_overlap
    return request, source


def _put_thresholds(
    options: detection_pb2.DetectOptions,
    confidence: float | None,
    class_confidences: Mapping[int, float],
    iou: float | None,
    max_detections: int | None,
) -> None:
    if confidence is not None:
        options.confidence = confidence
    if iou is not None:
        options.iou = iou
    if max_detections is not None:
        options.max_detections = _unsigned("max_detections", max_detections)
    for class_id, value in class_confidences.items():
        options.class_confidences.add(class_id=_unsigned("class id", class_id), confidence=value)


def _put_form(
    options: detection_pb2.DetectOptions,
    masks: MaskFormatName | None,
    top_k: int | None,
    all_probabilities: bool,
) -> None:
    """In which form results are told."""
    if masks not in _MASKS:
        raise InvalidOption(f"masks {masks!r}: none, polygon or rle")
    options.mask_format = _MASKS[masks]
    if top_k is not None:
        options.top_k = _unsigned("top_k", top_k)
    options.all_probabilities = all_probabilities


def _unsigned(what: str, value: int) -> int:
    number = int(value)
    if not 0 <= number < 2**32:
        raise InvalidOption(f"{what} is {value}: it must not be negative")
    return number


def register(
    name: str,
    artifact: "Artifact",
    *,
    image_size: int | None,
    image_sizes: Sequence[int],
    confidence: float | None,
    iou: float | None,
    max_detections: int | None,
    shape_policy: ShapePolicyName | None,
    head_mode: HeadModeName | None,
    output_layout: OutputLayoutName | None,
    architecture: str | Path | None,
    class_names: Sequence[str],
    where: Placement | None,
) -> model_pb2.RegisterModelRequest:
    """The message that makes a version of an uploaded file; safe to send again."""
    if head_mode not in _HEADS:
        raise InvalidOption(f"head_mode {head_mode!r}: one-to-many or end-to-end")
    if output_layout not in _LAYOUTS:
        words = ", ".join(str(word) for word in _LAYOUTS if word)
        raise InvalidOption(f"output_layout {output_layout!r}: one of {words}")
    if shape_policy not in _POLICIES:
        raise InvalidOption(f"shape_policy {shape_policy!r}: rect or square")
    settings = types_pb2.VersionSettings(
        image_size=_unsigned("image_size", image_size or 0),
        image_sizes=[_unsigned("image_sizes", size) for size in image_sizes],
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        shape_policy=_POLICIES[shape_policy],
        head_mode=_HEADS[head_mode],
        output_layout=_LAYOUTS[output_layout],
    )
    return model_pb2.RegisterModelRequest(
        name=name,
        artifact=artifact.sha256,
        settings=settings,
        source_name=artifact.path.name,
        request_id=uuid.uuid4().hex,
        architecture_yaml=architecture_text(architecture) if architecture is not None else "",
        class_names=class_names,
        placement=placement(where) if where is not None else None,
    )


def placement(where: Placement) -> types_pb2.Placement:
    """Where a version may run; raises InvalidOption for a priority nobody knows."""
    priority = next((_PRIORITIES[one] for one in _PRIORITIES if one == where.priority), None)
    if priority is None:
        raise InvalidOption(f"priority {where.priority!r}: one of {', '.join(_PRIORITIES)}")
    return types_pb2.Placement(
        pool=where.pool,
        labels=where.labels,
        max_replicas=_unsigned("max_replicas", where.max_replicas),
        priority=priority,
    )


def batching(model: str, device_kind: str, one: Batching | None) -> model_pb2.SetBatchingRequest:
    """The message that says how a version is batched; None: as its workers were started."""
    request = model_pb2.SetBatchingRequest(model=model, device_kind=device_kind)
    if one is not None:
        request.batching.max_batch = _unsigned("max_batch", one.max_batch)
        sizes = (_unsigned("a preferred size", size) for size in one.preferred_sizes)
        request.batching.preferred_sizes.extend(sizes)
        request.batching.max_delay_ms = one.max_delay_ms
        request.batching.queue_capacity = _unsigned("queue_capacity", one.queue_capacity)
        request.batching.fixed = one.fixed
        request.batching.SetInParent()
    return request


def variant(
    model: str, device_kind: str, variant: str, drift: Drift | None, unchecked: bool
) -> model_pb2.SetVariantRequest:
    """The message that says which build serves a version."""
    request = model_pb2.SetVariantRequest(
        model=model, device_kind=device_kind, variant=variant, unchecked=unchecked
    )
    if drift is not None:
        request.drift.CopyFrom(drift_to(drift))
    return request


def load(
    model: str, replicas: int, pin: bool, wait: bool, where: Placement | None
) -> model_pb2.LoadModelRequest:
    """The message that wants a version loaded; `where`: it may only be there from now on."""
    return model_pb2.LoadModelRequest(
        model=model,
        replicas=replicas,
        pin=pin,
        wait=wait,
        placement=placement(where) if where is not None else None,
    )


def residency(
    model: str, mode: ResidencyModeName, idle_release_s: float, cpu_fallback: bool
) -> model_pb2.SetResidencyRequest:
    """The message that says how a version is kept."""
    if mode not in _RESIDENCIES:
        raise InvalidOption(f"residency mode {mode!r}: one of {', '.join(_RESIDENCIES)}")
    kept = types_pb2.Residency(
        mode=_RESIDENCIES[mode], idle_release_s=idle_release_s, cpu_fallback=cpu_fallback
    )
    return model_pb2.SetResidencyRequest(model=model, residency=kept)


def bench(
    model: str,
    *,
    worker: str,
    device_kind: str,
    shapes: Sequence[tuple[int, int]],
    batch_sizes: Sequence[int],
    seconds: float,
    image: str | Path | bytes | None,
) -> bench_pb2.BenchModelRequest:
    """The message that asks for a curve; shapes are (height, width). OSError for a file that cannot
    be read.
    """
    sweep = bench_pb2.Sweep(
        shapes=[
            bench_pb2.Shape(height=_unsigned("height", height), width=_unsigned("width", width))
            for height, width in shapes
        ],
        batch_sizes=[_unsigned("a batch size", size) for size in batch_sizes],
        seconds=seconds,
        image=Path(image).read_bytes() if isinstance(image, str | Path) else image or b"",
    )
    return bench_pb2.BenchModelRequest(
        model=model, worker=worker, device_kind=device_kind, sweep=sweep
    )


def events(
    *, after: str, last: int, kinds: Sequence[str], model: str, worker: str, follow: bool
) -> events_pb2.WatchEventsRequest:
    """The message that asks for events; kinds as in events.proto, without EVENT_KIND_."""
    known = [name.removeprefix(_KIND) for name, _ in events_pb2.EventKind.items()][1:]
    unknown = [kind for kind in kinds if kind.upper() not in known]
    if unknown:
        raise InvalidOption(f"kind {unknown[0]!r} of event: one of {', '.join(known)}")
    return events_pb2.WatchEventsRequest(
        after=after,
        last=_unsigned("last", last),
        kinds=[events_pb2.EventKind.Value(f"{_KIND}{kind.upper()}") for kind in kinds],
        model=model,
        worker=worker,
        follow=follow,
    )


def changeover(
    prepare: Sequence[str], release: Sequence[str], replicas: int, pin: bool
) -> model_pb2.ChangeoverRequest:
    """The message of a changeover: of each model to prepare so many replicas, pinned or not."""
    for models in (prepare, release):
        if isinstance(models, str):
            raise InvalidOption(
                f"{models!r} is one name: give a list of models, such as [{models!r}]"
            )
    number = _unsigned("replicas", replicas)
    return model_pb2.ChangeoverRequest(
        prepare=[
            model_pb2.LoadModelRequest(model=one, replicas=number, pin=pin) for one in prepare
        ],
        release=release,
    )


def schedule(
    name: str, cron: str, time_zone: str, lead_s: float, change: model_pb2.ChangeoverRequest
) -> schedule_pb2.SetScheduleRequest:
    """The message that makes or replaces a schedule."""
    return schedule_pb2.SetScheduleRequest(
        schedule=schedule_pb2.Schedule(
            name=name, cron=cron, time_zone=time_zone, lead_s=lead_s, change=change
        )
    )
