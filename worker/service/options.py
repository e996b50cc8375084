"""Resolves the options of a request over the settings of its version, and checks them."""

import math
from dataclasses import dataclass

from worker.postprocess.outputs import NmsOptions
from worker.postprocess.results import MaskFormat
from worker.preprocess.tiling import Tiling
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2, types_pb2
from yolopool.vocabulary import MAX_DETECTIONS

# No confidence is above it, so that a class with this threshold is never reported.
NEVER = 2.0
SEGMENT, CLASSIFY = "segment", "classify"
DEFAULT_TOP_K, MAX_TOP_K = 5, 1000
MIN_TILE, DEFAULT_OVERLAP, MAX_OVERLAP = 32, 0.2, 0.9
_FORMATS = {
    detection_pb2.MASK_FORMAT_UNSPECIFIED: MaskFormat.POLYGON,
    detection_pb2.MASK_FORMAT_NONE: MaskFormat.NONE,
    detection_pb2.MASK_FORMAT_POLYGON: MaskFormat.POLYGON,
    detection_pb2.MASK_FORMAT_RLE: MaskFormat.RLE,
}


def resolve(
    options: detection_pb2.DetectOptions, settings: types_pb2.VersionSettings, classes: int
) -> NmsOptions:
    """The NMS options of one image, for a model with so many classes. Raises InvalidOption."""
    general = _fraction(
        "confidence",
        options.confidence if options.HasField("confidence") else settings.confidence,
    )
    thresholds = [general] * classes
    for override in options.class_confidences:
        index = _class_id(override.class_id, classes)
        thresholds[index] = _fraction(f"confidence of class {index}", override.confidence)
    if options.classes:
        wanted = {_class_id(class_id, classes) for class_id in options.classes}
        thresholds = [t if index in wanted else NEVER for index, t in enumerate(thresholds)]
    limit = (
        options.max_detections if options.HasField("max_detections") else settings.max_detections
    )
    if not 1 <= limit <= MAX_DETECTIONS:
        raise InvalidOption(f"max_detections is {limit}: give 1 to {MAX_DETECTIONS}")
    iou = _fraction("iou", options.iou if options.HasField("iou") else settings.iou)
    masks = options.mask_format != detection_pb2.MASK_FORMAT_NONE
    return NmsOptions(tuple(thresholds), iou, limit, options.agnostic_nms, masks)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What the response contains, and the size and tiles in which the image is run.

    `image_size` is in pixels, before it is rounded up to whole strides. Without `tiling` the image
    is run whole. With `accept_damaged` it is run also where parts of it can't be read.
    """

    masks: MaskFormat
    top_k: int
    all_probabilities: bool
    image_size: int
    tiling: Tiling | None
    accept_damaged: bool


def output_options(
    options: detection_pb2.DetectOptions, settings: types_pb2.VersionSettings, task: str
) -> OutputOptions:
    """The other options, for a model of this task.

    Raises InvalidOption, also for an option that the task does not have: it would be ignored
    silently otherwise.
    """
    if options.mask_format and task != SEGMENT:
        raise InvalidOption(
            f"mask_format is for models that segment, and the task of this one is {task}"
        )
    if task != CLASSIFY and (options.HasField("top_k") or options.all_probabilities):
        raise InvalidOption(
            "top_k and all_probabilities are for models that classify, and the task of this one is "
            f"{task}"
        )
    if task == CLASSIFY and options.HasField("tiling"):
        raise InvalidOption("tiling is for models that find objects, and this one classifies")
    top_k = options.top_k if options.HasField("top_k") else DEFAULT_TOP_K
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidOption(f"top_k is {top_k}: give 1 to {MAX_TOP_K}")
    masks = _FORMATS.get(options.mask_format)
    if masks is None:
        raise InvalidOption(
            f"mask_format {options.mask_format} is unknown: give NONE, POLYGON or RLE"
        )
    size = _image_size(options.image_size, settings)
    return OutputOptions(
        masks,
        top_k,
        options.all_probabilities,
        size,
        _tiling(options, size),
        options.accept_damaged,
    )


def _image_size(asked: int, settings: types_pb2.VersionSettings) -> int:
    allowed = {settings.image_size, *settings.image_sizes}
    if asked and asked not in allowed:
        sizes = ", ".join(str(size) for size in sorted(allowed))
        raise InvalidOption(f"image_size {asked}: this version takes {sizes}")
    return asked or settings.image_size


def _tiling(options: detection_pb2.DetectOptions, image_size: int) -> Tiling | None:
    if not options.HasField("tiling"):
        return None
    size = options.tiling.tile_size or image_size
    if size < MIN_TILE:
        raise InvalidOption(f"tile_size is {size}: give at least {MIN_TILE} pixels")
    overlap = options.tiling.overlap if options.tiling.HasField("overlap") else DEFAULT_OVERLAP
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InvalidOption(f"overlap is {overlap:g}: give 0 to {MAX_OVERLAP}")
    return Tiling(size, float(f"{overlap:.7g}"))


def _fraction(what: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise InvalidOption(f"{what} is {value:g}: give 0 to 1")
    # The wire has float32. 0.7 must mean what it means to the model library, which has float64.
    return float(f"{value:.7g}")


def _class_id(class_id: int, classes: int) -> int:
    if class_id >= classes:
        raise InvalidOption(f"class id {class_id}: this model has 0 to {classes - 1}")
    return class_id
