"""The tasks that are served: the library's model and heads of each, and the form of its output.

A head outside the table is refused by name, with what to do instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules import head as heads

from importer.refusal import INVALID, UNSUPPORTED, ImportRefused
from importer.torch_import.architecture import check_keypoints
from yolopool.v1.pack_pb2 import HeadAttributes

_SERVED = "detect, segment, pose, obb and classify models of YOLOv3 to YOLO26 are served"
_FIX_WORDS = "if its words are fixed, by set_classes, export it to ONNX and register the .onnx file"
# Heads of the library that are not served, and why.
_ODD = {
    "RTDETRDecoder": "RT-DETR stretches images instead of letterboxing them",
    "WorldDetect": f"YOLO-World takes words with each image; {_FIX_WORDS}",
    "YOLOEDetect": f"YOLOE takes words or examples with each image; {_FIX_WORDS}",
    "YOLOESegment": "YOLOE takes words or examples with each image",
    "YOLOESegment26": "YOLOE takes words or examples with each image",
    "SemanticSegment": "the task semantic gives a class for each pixel and no objects",
    "Depth": "the task depth gives distances and no objects",
}
_MAX_MASK_COEFFICIENTS = 1_024


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its name, the library's model, its heads, and the usual size of an image."""

    name: str
    model: type[nn.Module]
    heads: tuple[type[nn.Module], ...]
    image_size: int = 640


TASKS = (
    Task("detect", tasks.DetectionModel, (heads.Detect, heads.v10Detect)),
    Task("segment", tasks.SegmentationModel, (heads.Segment, heads.Segment26)),
    Task("pose", tasks.PoseModel, (heads.Pose, heads.Pose26)),
    Task("obb", tasks.OBBModel, (heads.OBB, heads.OBB26)),
    Task("classify", tasks.ClassificationModel, (heads.Classify,), 224),
)


def task_of(model: Any) -> Task:
    """The task of a loaded model. Raises ImportRefused for one that is not served."""
    layers = getattr(model, "_modules", {}).get("model")
    if not isinstance(layers, nn.Sequential) or not len(layers):
        raise ImportRefused(INVALID, "the model has no layers: upload the .pt of a training")
    task = _of_head(type(layers[-1]).__name__)
    if type(model) is not task.model or type(layers[-1]) not in task.heads:
        raise ImportRefused(
            UNSUPPORTED,
            f"a {type(model).__name__} with the head {type(layers[-1]).__name__} is no model of "
            f"the library's own: {_SERVED}",
        )
    channels = channels_of(model)
    if channels not in ((3,) if task.name == "classify" else (1, 3)):
        raise ImportRefused(
            UNSUPPORTED,
            f"the model takes images of {channels} channels, served are 3 (colours) and, but for "
            "models that classify, 1 (grey): train it on such images",
        )
    return task


def channels_of(model: Any) -> int:
    """How many channels the images of a loaded model have; 0 if it has no convolution."""
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    return first.in_channels if first is not None else 0


def task_of_layers(known: Mapping[str, Any]) -> Task:
    """The task of a checked architecture. Raises ImportRefused for one that is not served."""
    return _of_head(known["head"][-1][2])


def _of_head(name: str) -> Task:
    for task in TASKS:
        if any(name == head.__name__ for head in task.heads):
            return task
    why = _ODD.get(name, f"the last layer {name[:60]} is no head that is served")
    raise ImportRefused(UNSUPPORTED, f"{why}: {_SERVED}")


def class_count(task: Task, head: Any) -> int:
    """The number of classes of a head."""
    return int(head.linear.out_features if task.name == "classify" else head.nc)


def attributes(task: Task, head: Any) -> HeadAttributes:
    """The attributes of a head that post-processing needs. Raises ImportRefused for odd values."""
    found = HeadAttributes()
    if task.name == "pose":
        # Checked again: an architecture may also give it among the layer's arguments.
        check_keypoints(head.kpt_shape)
        found.keypoints, found.keypoint_values = head.kpt_shape
    elif task.name == "segment":
        if not 1 <= head.nm <= _MAX_MASK_COEFFICIENTS:
            raise _invalid(f"{head.nm} mask coefficients", f"1 to {_MAX_MASK_COEFFICIENTS}")
        found.mask_coefficients = head.nm
    elif task.name == "obb":
        if head.ne != 1:
            raise _invalid(f"{head.ne} angles a box", "one")
        found.angles = 1
    return found


def _invalid(has: str, served: str) -> ImportRefused:
    return ImportRefused(UNSUPPORTED, f"the head has {has}, served are {served}: train it so")


def answer(result: Any) -> tuple[torch.Tensor, ...]:
    """The outputs of a forward pass for post-processing: rows, and mask prototypes if any.

    Leaves out the raw maps for the library's losses.
    """
    first = result[0] if isinstance(result, tuple) else result
    return first if isinstance(first, tuple) else (first,)


def check_answer(
    task: Task,
    found: tuple[torch.Tensor, ...],
    classes: int,
    extra: HeadAttributes,
    end_to_end: bool,
) -> None:
    """Raises ImportRefused if the outputs for one image do not have the form of the task, or are
    not finite: the model would fail in every worker.
    """
    rows, *prototypes = found
    forms = [tuple(prototype.shape) for prototype in prototypes]
    if task.name == "classify":
        fits = rows.shape == (1, classes) and not forms
    else:
        beside = extra.keypoints * extra.keypoint_values + extra.mask_coefficients + extra.angles
        width = rows.shape[-1 if end_to_end else 1] if rows.ndim == 3 else 0
        fits = width == beside + (6 if end_to_end else 4 + classes)
        fits &= [form[:2] for form in forms] == [(1, extra.mask_coefficients)] * (
            task.name == "segment"
        )
    if not fits:
        raise ImportRefused(
            INVALID, f"the model's answer has not the form of the task {task.name}: save it again"
        )
    if not all(torch.isfinite(output).all() for output in found):
        raise ImportRefused(
            INVALID,
            "the model's answer to a plain image is not finite: its numbers overflow; upload a "
            "checkpoint of an earlier epoch, or train it again",
        )
