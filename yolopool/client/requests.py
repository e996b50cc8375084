"""The messages that the clients send, made of what callers give. Nothing is sent here.

Pure but for reading an image file. Raises InvalidOption for what no server would take.
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from PIL import Image

from yolopool.client import images
from yolopool.client.model_records import Batching, Drift, Placement, drift_to
from yolopool.errors import InvalidOption
from yolopool.labels import check_labels
from yolopool.v1 import bench_pb2, detection_pb2, model_pb2, types_pb2

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
_RESIDENCIES = {
    "normal": types_pb2.RESIDENCY_MODE_NORMAL,
    "hot-standby": types_pb2.RESIDENCY_MODE_HOT_STANDBY,
    "on-demand": types_pb2.RESIDENCY_MODE_ON_DEMAND,
}


class DetectOptions(TypedDict, total=False):
    """The options of `detect`; those left out take the version's settings.

    The image: `channel_order` of an array with colours, "bgr" (OpenCV) or "rgb"; `bit_depth`, how
    many bits of each level of a 16-bit array or PIL image are used (12 of many cameras), 8 to 16,
    default all; `accept_damaged`, to run an image of which parts can't be read, and be told so by
    `Detections.image_damage`; `image_size`, the longest side to scale it to, one that the version
    allows; `region_of_interest`, (x_min, y_min, x_max, y_max) in pixels, to detect only there;
    `tile_size` and `tile_overlap`, to cut a large image into tiles (side in pixels, 0: the model's
    own size; overlap as a share, 0..0.9).

    The result: `confidence`, least confidence 0..1, and `class_confidences` for single classes by
    id; `iou`, overlap above which NMS drops the less confident box; `agnostic_nms`, to suppress
    across classes; `max_detections`; `classes`, only these class ids; `masks` of a segmentation,
    "polygon" (default), "rle" or "none"; `top_k`, how many classes a classification names, and
    `all_probabilities`, to get the probability of every class.

    The call: `priority`, "interactive", "normal" (default; of a stream "bulk") or "bulk";
    `request_id`, a name of your own for logs and `explain_request`; `timeout_s`, its deadline
    (default 30), in a stream that of each frame; `sticky_key`, a text: where an alias has several
    versions, requests with the same one are answered by the same.
    """

    channel_order: images.Order | None
    bit_depth: int | None
    accept_damaged: bool
    confidence: float | None
    class_confidences: Mapping[int, float] | None
    iou: float | None
    max_detections: int | None
    classes: Sequence[int]
    agnostic_nms: bool
    region_of_interest: Sequence[float] | None
    masks: MaskFormatName | None
    top_k: int | None
    all_probabilities: bool
    image_size: int | None
    tile_size: int | None
    tile_overlap: float | None
    priority: PriorityName
    request_id: str
    sticky_key: str
    timeout_s: float


class RegisterOptions(TypedDict, total=False):
    """The settings of a version that `register` makes; those left out take the file's or the
    pool's defaults.

    `image_size` is the longest side in pixels, or the (height, width) of a rectangle, `image_sizes`
    are others that requests may ask for (of a square). `output_layout` is for an ONNX file that
    does not say how its output is laid out. `class_names` are for a file that lacks them or has
    wrong ones; {3: "nut"} renames some. `architecture` (a YAML file, or the name of one of the
    model library's) is for a file that holds weights alone, and needs `class_names` too.
    `placement` says where the version may run. `metadata` are texts to keep with the version, by
    file name. `signature` is a .minisig file; by default the one beside the model's file. `labels`
    are to find it by; `number` is that of the version, above all that the name had (0: the next).
    """

    image_size: int | tuple[int, int] | None
    image_sizes: Sequence[int]
    confidence: float | None
    iou: float | None
    max_detections: int | None
    shape_policy: ShapePolicyName | None
    head_mode: HeadModeName | None
    output_layout: OutputLayoutName | None
    architecture: str | Path | None
    class_names: Sequence[str] | Mapping[int, str]
    placement: Placement | None
    metadata: Mapping[str, str]
    signature: str | Path | None
    labels: Mapping[str, str]
    number: int


def detect(
    image: images.ImageLike, model: str, given: DetectOptions
) -> tuple[detection_pb2.DetectRequest, Image.Image | bytes]:
    """The message of a Detect, and the image to draw its results on."""
    refuse_unknown("detect", given, DetectOptions)
    request = detection_pb2.DetectRequest(
        model=model,
        priority=priority(given.get("priority", "normal")),
        request_id=given.get("request_id", ""),
        sticky_key=given.get("sticky_key", ""),
    )
    source = images.put(image, given.get("channel_order"), given.get("bit_depth"), request)
    put_options(request.options, given)
    return request, source


def put_options(options: detection_pb2.DetectOptions, given: DetectOptions) -> None:
    """What is asked for of an image."""
    options.accept_damaged = given.get("accept_damaged", False)
    _put_thresholds(options, given)
    _put_region(options, given)
    _put_form(options, given)


def priority(word: str) -> types_pb2.Priority.ValueType:
    """Raises InvalidOption for an unknown one."""
    found = {str(name): value for name, value in _PRIORITIES.items()}.get(word)
    if found is None:
        raise InvalidOption(f"priority {word!r}: one of {', '.join(_PRIORITIES)}")
    return found


def refuse_unknown(method: str, given: Mapping[str, Any], known: type) -> None:
    """Raises TypeError for an option that is not declared, as Python does for a parameter."""
    for name in given:
        if name not in known.__annotations__:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")


def _put_thresholds(options: detection_pb2.DetectOptions, given: DetectOptions) -> None:
    """Which objects are reported."""
    if (confidence := given.get("confidence")) is not None:
        options.confidence = confidence
    if (iou := given.get("iou")) is not None:
        options.iou = iou
    if (most := given.get("max_detections")) is not None:
        options.max_detections = _unsigned("max_detections", most)
    for class_id, value in (given.get("class_confidences") or {}).items():
        options.class_confidences.add(class_id=_unsigned("class id", class_id), confidence=value)
    options.classes.extend(_unsigned("class id", class_id) for class_id in given.get("classes", ()))
    options.agnostic_nms = given.get("agnostic_nms", False)


def _put_region(options: detection_pb2.DetectOptions, given: DetectOptions) -> None:
    """Which part of the image is looked at, and how large."""
    if (region := given.get("region_of_interest")) is not None:
        if len(region) != 4:
            raise InvalidOption("region_of_interest: give (x_min, y_min, x_max, y_max) in pixels")
        x_min, y_min, x_max, y_max = (float(value) for value in region)
        options.region_of_interest.CopyFrom(
            types_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
        )
    options.image_size = _unsigned("image_size", given.get("image_size") or 0)
    tile_size, overlap = given.get("tile_size"), given.get("tile_overlap")
    if tile_size is not None or overlap is not None:
        options.tiling.tile_size = _unsigned("tile_size", tile_size or 0)
        if overlap is not None:
            options.tiling.overlap = overlap


def _put_form(options: detection_pb2.DetectOptions, given: DetectOptions) -> None:
    """In which form the results are sent."""
    masks = given.get("masks")
    if masks not in _MASKS:
        raise InvalidOption(f"masks {masks!r}: none, polygon or rle")
    options.mask_format = _MASKS[masks]
    if (top_k := given.get("top_k")) is not None:
        options.top_k = _unsigned("top_k", top_k)
    options.all_probabilities = given.get("all_probabilities", False)


def _unsigned(what: str, value: int) -> int:
    number = int(value)
    if not 0 <= number < 2**32:
        raise InvalidOption(f"{what} is {value}: it must not be negative")
    return number


def register(
    name: str, artifact_sha256: str, file_name: str, architecture_yaml: str, given: RegisterOptions
) -> model_pb2.RegisterModelRequest:
    """The message that makes a version of an uploaded file; safe to send again."""
    shape_policy, head_mode = given.get("shape_policy"), given.get("head_mode")
    output_layout, where = given.get("output_layout"), given.get("placement")
    if head_mode not in _HEADS:
        raise InvalidOption(f"head_mode {head_mode!r}: one-to-many or end-to-end")
    if output_layout not in _LAYOUTS:
        words = ", ".join(str(word) for word in _LAYOUTS if word)
        raise InvalidOption(f"output_layout {output_layout!r}: one of {words}")
    if shape_policy not in _POLICIES:
        raise InvalidOption(f"shape_policy {shape_policy!r}: rect or square")
    size = given.get("image_size") or 0
    height, width = (0, 0) if isinstance(size, int) else _rectangle(size)
    settings = types_pb2.VersionSettings(
        image_size=_unsigned("image_size", size) if isinstance(size, int) else 0,
        image_height=height,
        image_width=width,
        image_sizes=[_unsigned("image_sizes", size) for size in given.get("image_sizes", ())],
        confidence=given.get("confidence"),
        iou=given.get("iou"),
        max_detections=given.get("max_detections"),
        shape_policy=_POLICIES[shape_policy],
        head_mode=_HEADS[head_mode],
        output_layout=_LAYOUTS[output_layout],
    )
    names = given.get("class_names", ())
    renamed = names if isinstance(names, Mapping) else {}
    return model_pb2.RegisterModelRequest(
        name=name,
        artifact=artifact_sha256,
        settings=settings,
        source_name=file_name,
        request_id=uuid.uuid4().hex,
        architecture_yaml=architecture_yaml,
        class_names=() if isinstance(names, Mapping) else names,
        renamed_classes={_unsigned("class id", number): one for number, one in renamed.items()},
        metadata=given.get("metadata"),
        labels=check_labels(given.get("labels", {})),
        number=_unsigned("number", given.get("number", 0)),
        placement=placement(where) if where is not None else None,
    )


def _rectangle(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2:
        raise InvalidOption(f"image_size {size!r}: give the longest side, or (height, width)")
    height, width = (_unsigned("image_size", side) for side in size)
    return height, width


def placement(where: Placement) -> types_pb2.Placement:
    """Where a version may run; raises InvalidOption for an unknown priority."""
    return types_pb2.Placement(
        pool=where.pool,
        labels=where.labels,
        max_replicas=_unsigned("max_replicas", where.max_replicas),
        priority=priority(where.priority),
    )


def batching(model: str, device_kind: str, asked: Batching | None) -> model_pb2.SetBatchingRequest:
    """The message that sets how a version is batched; None: as its workers were started."""
    request = model_pb2.SetBatchingRequest(model=model, device_kind=device_kind)
    if asked is not None:
        request.batching.max_batch = _unsigned("max_batch", asked.max_batch)
        sizes = (_unsigned("a preferred size", size) for size in asked.preferred_sizes)
        request.batching.preferred_sizes.extend(sizes)
        request.batching.max_delay_ms = asked.max_delay_ms
        request.batching.queue_capacity = _unsigned("queue_capacity", asked.queue_capacity)
        request.batching.fixed = asked.fixed
        request.batching.p99_goal_ms = asked.p99_goal_ms
        request.batching.SetInParent()
    return request


def variant(
    model: str, device_kind: str, variant: str, drift: Drift | None, unchecked: bool
) -> model_pb2.SetVariantRequest:
    """The message that sets which build serves a version."""
    request = model_pb2.SetVariantRequest(
        model=model, device_kind=device_kind, variant=variant, unchecked=unchecked
    )
    if drift is not None:
        request.drift.CopyFrom(drift_to(drift))
    return request


def load(
    model: str, replicas: int, pin: bool, wait: bool, where: Placement | None
) -> model_pb2.LoadModelRequest:
    """The message that loads a version; `where` also changes its placement."""
    place = placement(where) if where is not None else None
    return model_pb2.LoadModelRequest(
        model=model, replicas=replicas, pin=pin, wait=wait, placement=place
    )


def residency(
    model: str, mode: ResidencyModeName, idle_release_s: float, cpu_fallback: bool
) -> model_pb2.SetResidencyRequest:
    """The message that sets how a version is kept."""
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
    """The message that measures a curve; shapes are (height, width). Raises OSError for an image
    file that cannot be read.
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


def changeover(
    prepare: Sequence[str], release: Sequence[str], replicas: int, pin: bool
) -> model_pb2.ChangeoverRequest:
    """The message of a changeover; `replicas` and `pin` hold for each model to prepare."""
    for models in (prepare, release):
        if isinstance(models, str):
            raise InvalidOption(
                f"{models!r} is a single name: give a list of models, such as [{models!r}]"
            )
    number = _unsigned("replicas", replicas)
    return model_pb2.ChangeoverRequest(
        prepare=[
            model_pb2.LoadModelRequest(model=name, replicas=number, pin=pin) for name in prepare
        ],
        release=release,
    )
