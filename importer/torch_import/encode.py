"""The steps of an import inside the child: load, fuse, encode, write."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import ultralytics
from google.protobuf import json_format

from importer import class_names, pack_writer
from importer.refusal import INVALID, ImportRefused
from importer.torch_import import checkpoint, profile, skeleton_writer, tasks
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.types_pb2 import (
    HEAD_MODE_END_TO_END,
    HEAD_MODE_ONE_TO_MANY,
    HEAD_MODE_UNSPECIFIED,
    HeadMode,
)


def encode(
    order: dict[str, Any],
    artifact: Path,
    folder: Path,
    warnings: Sequence[str],
    step: Callable[[float, str], None],
) -> dict[str, Any]:
    """Makes the pack in `folder`; returns an ImportedPack as JSON. Raises ImportRefused."""
    settings = json_format.ParseDict(order["settings"], types_pb2.VersionSettings())
    step(0.1, "load")
    yaml, names = order["architecture_yaml"], order["class_names"]
    if bool(yaml) > bool(names):
        raise ImportRefused(INVALID, "--arch needs the class names: give them with --names")
    if settings.output_layout:
        raise ImportRefused(
            INVALID, "of a .pt file --layout has no meaning: give it without a layout"
        )
    if yaml:
        loaded = checkpoint.load_weights_only(artifact, yaml, names)
    else:
        loaded = checkpoint.load(artifact, class_names.of_order(order))
    step(0.4, "rebuild")
    model: Any = checkpoint.rebuilt(loaded, settings.head_mode)
    step(0.6, "measure")
    stride = checkpoint.model_stride(model)
    if loaded.task.name == "classify" and settings.image_height:
        raise ImportRefused(
            INVALID, "a model that classifies takes squares: give one size, not a rectangle"
        )
    task, head, head_mode = loaded.task, model.model[-1], _head_mode(model.model[-1])
    result, activation_bytes = profile.probe(model, stride)
    extra, end_to_end = tasks.attributes(task, head), head_mode == HEAD_MODE_END_TO_END
    found = tasks.answer(result)
    tasks.check_answer(task, found, len(loaded.class_names), extra, end_to_end)
    step(0.7, "encode")
    skeleton = skeleton_writer.write_skeleton(model)
    resolved = pack_writer.resolve(settings, loaded.trained_size, stride)
    resolved.head_mode = head_mode
    manifest = PackManifest(
        architecture=checkpoint.architecture_name(loaded.family, task.name),
        task=task.name,
        head=extra,
        class_names=loaded.class_names,
        stride=stride,
        head_mode=head_mode,
        settings=resolved,
        gflops=profile.gflops(model, stride, resolved.image_size),
        activation_bytes_per_megapixel=activation_bytes,
        artifact=order["sha256"],
        warnings=[*warnings, *loaded.warnings],
        backend="torch",
        weights_bytes=skeleton.weights_bytes,
        tensors=skeleton.entries,
        parameters=skeleton.parameters,
        # The libraries whose classes the skeleton names.
        channels=tasks.channels_of(model),
        made_with=[f"ultralytics {ultralytics.__version__}", f"torch {torch.__version__}"],
    )
    step(0.8, "write")
    manifest.weights_sha256 = pack_writer.write_weights(folder, skeleton.parts())
    digest = pack_writer.write_manifest(folder, manifest, skeleton.text)
    return pack_writer.report(folder, manifest, digest, artifact, loaded.training)


def _head_mode(head: Any) -> "HeadMode.ValueType":
    if not hasattr(head, "end2end"):
        return HEAD_MODE_UNSPECIFIED
    return HEAD_MODE_END_TO_END if head.end2end else HEAD_MODE_ONE_TO_MANY
