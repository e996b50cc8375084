"""Checks of requests, once, before they are decoded. Each error says what to change."""

import math
import re
from collections.abc import Mapping, Sequence

from control_plane.caller import CallContext
from yolopool.errors import (
    ImageEmpty,
    ImageShapeMismatch,
    ImageTooLarge,
    InvalidOption,
    InvalidWorker,
)
from yolopool.names import REQUEST_ID
from yolopool.v1 import detection_pb2, fleet_pb2, types_pb2, worker_pb2
from yolopool.vocabulary import (
    MAX_DETECTIONS,
    MAX_METADATA_BYTES,
    MAX_METADATA_TEXTS,
    MAX_STICKY_KEY_CHARS,
    VARIANTS,
)

WORKER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([1-9]\d{0,4})")
_COMPUTE_CLASS = re.compile(r"[a-z0-9_-]{0,32}")
_KINDS = frozenset({"cpu", "cuda", "sim"})
_MAX_IO_PROCESSES = 64
# Of a fencing token's numbers: scripts of the store count in doubles, and the next is higher.
_MAX_COUNT = 2**53
_MAX_WORKER_LABELS = 64 + 1  # the worker adds its compute class

MAX_CLASSES = 10_000
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 4096
MAX_IMAGE_SIZES = 16
MAX_LABELS, MAX_LABEL_CHARS = 16, 120
MAX_REPLICAS = 1000
MAX_NUMBER = 999_999_999  # what a reference can name
MAX_YAML_CHARS = 64 * 1024
MAX_BATCH, MAX_QUEUE, MAX_DELAY_MS = 256, 100_000, 60_000.0
MAX_IDLE_S = 7 * 24 * 3600.0
# The share of the caller's time that is left for the answer's way back. Without it the caller's own
# clock ends the call first, and the reason is lost.
_MARGIN, _MAX_MARGIN_S = 0.05, 0.05


def deadline_of(context: CallContext, now: float, default_s: float) -> float:
    """When to give up (monotonic): a little before the caller does."""
    left_s = context.time_remaining()
    if left_s is None:
        return now + default_s
    return now + max(0.0, left_s - min(_MARGIN * left_s, _MAX_MARGIN_S))


def check_request_id(request_id: str) -> str:
    if request_id and not REQUEST_ID.fullmatch(request_id):
        raise InvalidOption("request_id is at most 128 characters of A-Z a-z 0-9 . _ : / -")
    return request_id


def check_sticky_key(sticky_key: str) -> str:
    if len(sticky_key) > MAX_STICKY_KEY_CHARS:
        raise InvalidOption(f"sticky_key has at most {MAX_STICKY_KEY_CHARS} characters")
    return sticky_key


def infer_request(
    request: detection_pb2.DetectRequest, encoded: bytes, max_image_bytes: int, max_raw_bytes: int
) -> worker_pb2.InferRequest:
    """The message for a worker: image, options and priority, checked. `encoded` is the request's:
    each time that it is read from there it is copied.
    """
    check_request_id(request.request_id)
    if request.priority not in types_pb2.Priority.values():
        raise InvalidOption(f"priority {request.priority} is not known: leave it out for NORMAL")
    body = worker_pb2.InferRequest(priority=request.priority)
    if request.HasField("options"):
        check_options(request.options)
        body.options.CopyFrom(request.options)
    match request.WhichOneof("image"):
        case "encoded":
            body.encoded = _check_encoded(encoded, max_image_bytes)
        case "raw":
            _check_raw(request.raw, max_raw_bytes)
            body.raw.CopyFrom(request.raw)
        case _:
            raise ImageEmpty("the request has no image: set encoded or raw")
    return body


def check_options(options: detection_pb2.DetectOptions) -> None:
    if options.HasField("confidence"):
        _check_fraction("confidence", options.confidence)
    if options.HasField("iou"):
        _check_fraction("iou", options.iou)
    if options.HasField("max_detections"):
        _check_max_detections(options.max_detections)
    if len(options.class_confidences) > MAX_CLASSES or len(options.classes) > MAX_CLASSES:
        raise InvalidOption(f"at most {MAX_CLASSES} classes can be named")
    for threshold in options.class_confidences:
        _check_fraction(f"confidence of class {threshold.class_id}", threshold.confidence)
    if options.HasField("tiling") and options.tiling.HasField("overlap"):
        _check_fraction("overlap of tiles", options.tiling.overlap)
    if options.HasField("region_of_interest"):
        box = options.region_of_interest
        if not (0 <= box.x_min < box.x_max and 0 <= box.y_min < box.y_max):
            raise InvalidOption(
                "region_of_interest must have 0 <= x_min < x_max and 0 <= y_min < y_max"
            )


def check_settings(settings: types_pb2.VersionSettings) -> types_pb2.VersionSettings:
    """For a version to register; the import fills in what is unset."""
    _check_sizes(settings)
    if settings.HasField("confidence"):
        _check_fraction("confidence", settings.confidence)
    if settings.HasField("iou"):
        _check_fraction("iou", settings.iou)
    if settings.HasField("max_detections"):
        _check_max_detections(settings.max_detections)
    if settings.head_mode not in types_pb2.HeadMode.values():
        raise InvalidOption(
            f"head_mode {settings.head_mode} is not known: one-to-many or end-to-end"
        )
    if settings.output_layout not in types_pb2.OutputLayout.values():
        raise InvalidOption(f"output_layout {settings.output_layout} is not known: leave it out")
    if settings.shape_policy not in types_pb2.ShapePolicy.values():
        raise InvalidOption(f"shape_policy {settings.shape_policy} is not known: rect or square")
    return settings


def _check_sizes(settings: types_pb2.VersionSettings) -> None:
    size = settings.image_size
    if size and not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE:
        raise InvalidOption(
            f"image_size is {size}: give {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, "
            "or 0 for the size the model was trained with"
        )
    if len(settings.image_sizes) > MAX_IMAGE_SIZES:
        raise InvalidOption(f"at most {MAX_IMAGE_SIZES} image_sizes can be named")
    for other in settings.image_sizes:
        if not MIN_IMAGE_SIZE <= other <= MAX_IMAGE_SIZE:
            raise InvalidOption(
                f"image_sizes has {other}: give {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels"
            )
    sides = settings.image_height, settings.image_width
    if any(sides) and not MIN_IMAGE_SIZE <= min(sides) <= max(sides) <= MAX_IMAGE_SIZE:
        raise InvalidOption(
            f"image_height and image_width are {sides[0]} and {sides[1]}: give both of "
            f"{MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, or none"
        )
    if any(sides) and (settings.image_sizes or size not in (0, max(sides))):
        raise InvalidOption(
            "a rectangle of image_height and image_width is the only size: leave image_size and "
            "image_sizes out"
        )


def check_residency(residency: types_pb2.Residency) -> types_pb2.Residency:
    """How long a version stays on a device; a field that is unset takes its default."""
    if residency.mode not in types_pb2.ResidencyMode.values():
        raise InvalidOption(f"residency mode {residency.mode} is not known: leave it out")
    idle_s = residency.idle_release_s
    # Written so that NaN is rejected too.
    if not 0.0 <= idle_s <= MAX_IDLE_S:
        raise InvalidOption(f"idle_release_s is {idle_s:g}: give 0 (for 60) to {MAX_IDLE_S:g}")
    return residency


def check_placement(placement: types_pb2.Placement) -> types_pb2.Placement:
    """Where a version may run; a field that is unset takes its default."""
    if placement.priority not in types_pb2.Priority.values():
        raise InvalidOption(f"priority {placement.priority} is not known: leave it out")
    if placement.max_replicas > MAX_REPLICAS:
        raise InvalidOption(
            f"max_replicas is {placement.max_replicas}: give 0 (no bound) to {MAX_REPLICAS}"
        )
    texts = (placement.pool, *placement.labels, *placement.labels.values())
    if len(placement.labels) > MAX_LABELS or any(len(text) > MAX_LABEL_CHARS for text in texts):
        raise InvalidOption(
            f"pool and labels: at most {MAX_LABELS} labels of {MAX_LABEL_CHARS} characters"
        )
    return placement


def check_batching(batching: types_pb2.Batching) -> types_pb2.Batching:
    """How requests for a version are batched; 0 leaves a bound to the worker."""
    if batching.max_batch > MAX_BATCH:
        raise InvalidOption(
            f"max_batch is {batching.max_batch}: give 1 to {MAX_BATCH}, 0 for the worker's"
        )
    sizes, max_batch = list(batching.preferred_sizes), batching.max_batch or MAX_BATCH
    if sizes != sorted(set(sizes)) or (sizes and not 1 <= sizes[0] <= sizes[-1] <= max_batch):
        raise InvalidOption(
            f"preferred_sizes are {sizes}: give ascending sizes from 1 to max_batch ({max_batch})"
        )
    # Written so that NaN is rejected too.
    if not 0.0 <= batching.max_delay_ms <= MAX_DELAY_MS:
        raise InvalidOption(
            f"max_delay_ms is {batching.max_delay_ms:g}: give 0 (no delay) to {MAX_DELAY_MS:g}"
        )
    if not 0.0 <= batching.p99_goal_ms <= MAX_DELAY_MS:
        raise InvalidOption(
            f"p99_goal_ms is {batching.p99_goal_ms:g}: give 0 (no goal) to {MAX_DELAY_MS:g}"
        )
    if batching.queue_capacity > MAX_QUEUE:
        raise InvalidOption(
            f"queue_capacity is {batching.queue_capacity}: give 1 to {MAX_QUEUE}, 0 for the "
            "worker's own bound"
        )
    if batching.fixed and (sizes or not batching.max_batch):
        raise InvalidOption(
            "fixed allows one batch size: give max_batch, and leave preferred_sizes out"
        )
    return batching


def check_device_kind(device_kind: str) -> str:
    if device_kind not in VARIANTS:
        kinds = ", ".join(sorted(VARIANTS))
        raise InvalidOption(f"device_kind {device_kind!r} is not known: one of {kinds}")
    return device_kind


def check_drift(drift: types_pb2.Drift) -> types_pb2.Drift:
    """What a comparison of builds measured; every answer of the build carries it."""
    shares = (drift.exact_map50, drift.exact_map50_95, drift.map50, drift.map50_95)
    # Written so that NaN is rejected too.
    largest = (drift.largest_px, drift.largest_confidence)
    finite = all(0.0 <= value < math.inf for value in largest)
    if not finite or not all(0.0 <= share <= 1.0 for share in shares):
        raise InvalidOption(
            "drift: largest_px and largest_confidence are at least 0, and mAP is 0 to 1"
        )
    if drift.matched > drift.objects or len(drift.exact) > MAX_LABEL_CHARS:
        raise InvalidOption("drift: matched is at most objects, and exact is backend/precision")
    if not _COMPUTE_CLASS.fullmatch(drift.compute_class):
        raise InvalidOption("drift: compute_class has at most 32 characters of a-z 0-9 _ -")
    return drift


def check_architecture(yaml: str, class_names: Sequence[str]) -> None:
    """The architecture of a file that has only weights, or only the class names of an ONNX file."""
    if yaml and not class_names:
        raise InvalidOption("architecture_yaml needs class_names: give both or none")
    if len(yaml) > MAX_YAML_CHARS:
        raise InvalidOption(
            f"architecture_yaml has {len(yaml)} characters, and at most {MAX_YAML_CHARS} fit"
        )
    if len(class_names) > MAX_CLASSES or any(not 0 < len(name) <= 1000 for name in class_names):
        raise InvalidOption(f"class_names: 1 to {MAX_CLASSES} names of 1 to 1000 characters")


def check_renamed(renamed: Mapping[int, str], class_names: Sequence[str]) -> None:
    """Other names for some classes, in place of all of them."""
    if renamed and class_names:
        raise InvalidOption("class_names and renamed_classes: give all names, or some by their id")
    if len(renamed) > MAX_CLASSES or any(not 0 < len(name) <= 1000 for name in renamed.values()):
        raise InvalidOption(f"renamed_classes: up to {MAX_CLASSES} names of 1 to 1000 characters")


def check_metadata(texts: Mapping[str, str]) -> dict[str, str]:
    """Texts for people that are kept with a version, in the registry."""
    held = sum(len(name.encode()) + len(text.encode()) for name, text in texts.items())
    if len(texts) > MAX_METADATA_TEXTS or held > MAX_METADATA_BYTES:
        raise InvalidOption(
            f"metadata: {len(texts)} texts of {held} bytes, and at most {MAX_METADATA_TEXTS} of "
            f"{MAX_METADATA_BYTES} bytes fit"
        )
    if any(not 0 < len(name) <= MAX_LABEL_CHARS for name in texts):
        raise InvalidOption(f"metadata: names have 1 to {MAX_LABEL_CHARS} characters")
    return dict(texts)


def check_replicas(replicas: int) -> int:
    if replicas > MAX_REPLICAS:
        raise InvalidOption(f"replicas is {replicas}: give 1 to {MAX_REPLICAS}")
    return replicas or 1


def check_number(number: int) -> int:
    """Of a version; 0: the next."""
    if number > MAX_NUMBER:
        raise InvalidOption(f"number is {number}: give 1 to {MAX_NUMBER}, or 0 for the next")
    return number


def check_grace(grace_s: float) -> float:
    if not (math.isfinite(grace_s) and grace_s >= 0):
        raise InvalidOption(f"grace_s is {grace_s:g}: give seconds, 0 or more")
    return grace_s


def _check_fraction(name: str, value: float) -> None:
    # Written so that NaN is rejected too.
    if not 0.0 <= value <= 1.0:
        raise InvalidOption(f"{name} is {value:g}: give 0 to 1")


def _check_max_detections(value: int) -> None:
    if not 1 <= value <= MAX_DETECTIONS:
        raise InvalidOption(f"max_detections is {value}: give 1 to {MAX_DETECTIONS}")


def _check_encoded(data: bytes, max_image_bytes: int) -> bytes:
    if not data:
        raise ImageEmpty("the image has no bytes")
    if len(data) > max_image_bytes:
        raise ImageTooLarge(
            f"the image has {len(data)} bytes, and at most {max_image_bytes} are accepted: save it "
            "smaller, as JPEG, or raise --max-image-bytes of control planes and workers"
        )
    return data


def _check_raw(raw: types_pb2.RawImage, max_raw_bytes: int) -> None:
    if not raw.height or not raw.width:
        raise ImageEmpty(f"the raw image is {raw.width} x {raw.height} pixels")
    gray = raw.channel_order == types_pb2.CHANNEL_ORDER_GRAY
    if raw.channel_order not in types_pb2.ChannelOrder.values()[1:]:
        raise InvalidOption("raw.channel_order is not set: give BGR, RGB or GRAY")
    expected = raw.height * raw.width * (1 if gray else 3)
    if expected > max_raw_bytes:
        raise ImageTooLarge(
            f"the raw image has {expected} bytes, and at most {max_raw_bytes} are accepted: send "
            "it encoded, as JPEG or PNG, or raise --max-raw-bytes of control planes and workers"
        )
    if len(raw.data) != expected:
        raise ImageShapeMismatch(
            f"{raw.width} x {raw.height} pixels in {1 if gray else 3} channels are {expected} "
            f"bytes, and the request has {len(raw.data)}"
        )


def check_importer(name: str) -> str:
    if not name or len(name) > 128:
        raise InvalidOption("importer is the name it chose at start: 1 to 128 characters")
    return name


def check_worker(worker: fleet_pb2.Worker) -> fleet_pb2.Worker:
    """A worker that joins. Raises InvalidWorker."""
    if not WORKER_ID.fullmatch(worker.id):
        raise InvalidWorker(
            f"{worker.id[:80]!r} is no worker id: use 1 to 120 of A-Z a-z 0-9 . _ -"
        )
    if not worker.incarnation or len(worker.incarnation) > 64:
        raise InvalidWorker(f"worker {worker.id} has no incarnation of 1 to 64 characters")
    if not (worker.address and worker.device and worker.device_kind):
        raise InvalidWorker(
            f"worker {worker.id} says no address, no device or no kind of device: say all of them"
        )
    return check_heartbeat(worker)


def check_token(token: types_pb2.FencingToken) -> types_pb2.FencingToken:
    """The highest token that a worker has seen: the next is above it. Raises InvalidWorker."""
    if max(token.epoch, token.counter) >= _MAX_COUNT:
        raise InvalidWorker("no control plane gave out a fencing token as high as that")
    return token


def check_heartbeat(worker: fleet_pb2.Worker) -> fleet_pb2.Worker:
    """A worker that has joined; what it leaves out is as it was. Raises InvalidWorker."""
    for text in (*filter(None, (worker.address,)), *worker.io_addresses):
        address = _ADDRESS.fullmatch(text)
        if address is None or int(address[1]) > 65535:
            raise InvalidWorker(f"{text[:80]!r} of worker {worker.id} is no host:port")
    if len(worker.io_addresses) > _MAX_IO_PROCESSES:
        raise InvalidWorker(f"worker {worker.id} has more than {_MAX_IO_PROCESSES} I/O processes")
    if worker.device_kind and worker.device_kind not in _KINDS:
        raise InvalidWorker(
            f"worker {worker.id} has device {worker.device[:80]!r} of kind "
            f"{worker.device_kind[:80]!r}: known kinds are {', '.join(sorted(_KINDS))}"
        )
    if not _COMPUTE_CLASS.fullmatch(worker.variant.compute_class):
        raise InvalidWorker(
            f"worker {worker.id}: compute_class has at most 32 characters of a-z 0-9 _ -"
        )
    if len(worker.labels) > _MAX_WORKER_LABELS:
        raise InvalidWorker(f"worker {worker.id} has more than {_MAX_WORKER_LABELS} labels")
    return worker
