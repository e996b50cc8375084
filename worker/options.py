"""Options of a request over the settings of its version, resolved and checked."""

import math

from worker.backends.base import NmsOptions
from yolopool.errors import InvalidOption
from yolopool.v1 import detection_pb2, types_pb2

MAX_DETECTIONS = 3000
# No confidence is above it: a class with this threshold is not asked for.
NEVER = 2.0


def resolve(
    options: detection_pb2.DetectOptions, settings: types_pb2.VersionSettings, classes: int
) -> NmsOptions:
    """Thresholds of one image for a model of so many classes. Raises InvalidOption."""
    general = _fraction(
        "confidence",
        options.confidence if options.HasField("confidence") else settings.confidence,
    )
    thresholds = [general] * classes
    for one in options.class_confidences:
        index = _class_id(one.class_id, classes)
        thresholds[index] = _fraction(f"confidence of class {index}", one.confidence)
    if options.classes:
        wanted = {_class_id(class_id, classes) for class_id in options.classes}
        thresholds = [t if index in wanted else NEVER for index, t in enumerate(thresholds)]
    most = options.max_detections if options.HasField("max_detections") else settings.max_detections
    if not 1 <= most <= MAX_DETECTIONS:
        raise InvalidOption(f"max_detections is {most}: give 1 to {MAX_DETECTIONS}")
    iou = _fraction("iou", options.iou if options.HasField("iou") else settings.iou)
    return NmsOptions(tuple(thresholds), iou, most, options.agnostic_nms)


def _fraction(what: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise InvalidOption(f"{what} is {value:g}: give 0 to 1")
    # float32 on the wire: 0.7 is to mean what it means to the model library.
    return float(f"{value:.7g}")


def _class_id(class_id: int, classes: int) -> int:
    if class_id >= classes:
        raise InvalidOption(f"class id {class_id}: this model has 0 to {classes - 1}")
    return class_id
