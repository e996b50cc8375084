"""Makes an ONNX pack of a checkpoint: loads, fuses and exports it, then imports the ONNX file.

The graph takes uint8 pixels and normalises them, leaves batch and sizes free, and ends before NMS.
Its metadata is that of the library's own export.
"""

import warnings as python_warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf import json_format
from torch import nn

from importer import class_names
from importer.encoder import Encode
from importer.onnx_import.encode import Exported
from importer.refusal import INVALID, UNSUPPORTED, ImportRefused
from importer.torch_import import checkpoint, tasks
from yolopool.v1 import types_pb2

_OPSET = 17
# All sizes differ, so that the exporter cannot confuse them; whole strides of 64.
_BATCH, _SIDES = 2, (128, 192)
_ROWS, _PROTOTYPES = "output0", "output1"


def encode(
    of_graph: Encode,
    order: dict[str, Any],
    artifact: Path,
    folder: Path,
    warnings: Sequence[str],
    step: Callable[[float, str], None],
) -> dict[str, Any]:
    """Exports the checkpoint and makes the pack in `folder` with `of_graph`, the encoder of ONNX
    files; returns an ImportedPack as JSON. Raises ImportRefused.
    """
    settings = json_format.ParseDict(order["settings"], types_pb2.VersionSettings())
    step(0.1, "load")
    if order["architecture_yaml"]:
        loaded = checkpoint.load_weights_only(
            artifact, order["architecture_yaml"], order["class_names"]
        )
    else:
        loaded = checkpoint.load(artifact, class_names.of_order(order))
    model: Any = checkpoint.rebuilt(loaded, settings.head_mode)
    step(0.3, "export")
    path = folder / "exported.onnx"
    exported = _export(model, loaded, path)
    _describe(model, loaded, path)
    # Head and layout of the graph follow from its shapes, not from the version's settings.
    settings.head_mode = types_pb2.HEAD_MODE_UNSPECIFIED
    settings.output_layout = types_pb2.OUTPUT_LAYOUT_UNSPECIFIED
    asked = {
        "settings": json_format.MessageToDict(settings, preserving_proto_field_name=True),
        "architecture_yaml": "",
        "class_names": (),
        "renamed": {},
        "exported": asdict(exported),
    }
    try:
        return of_graph(
            order | asked,
            path,
            folder,
            [*warnings, *loaded.warnings],
            lambda done, what: step(0.5 + done / 2, what),
        )
    finally:
        path.unlink()


class _FromPixels(nn.Module):
    """Runs the model on uint8 NCHW: gives the head's rows, and prototypes for masks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.model(pixels.float() / 255)
        return answer if isinstance(answer, tuple) else (answer,)


def _export(model: Any, loaded: checkpoint.Checkpoint, path: Path) -> Exported:
    """Writes the graph; returns its outputs. Raises ImportRefused."""
    head = model.model[-1]
    # Anchors are then computed from the actual sizes, not from those of the example.
    head.export = head.dynamic = True
    head.format = "onnx"
    final = bool(getattr(head, "end2end", False))
    if final and loaded.task.name != "detect":
        raise ImportRefused(
            UNSUPPORTED,
            f"the end-to-end head of a model of the task {loaded.task.name} is built for torch "
            "alone: register it with the one-to-many head (--head one-to-many)",
        )
    whole, extra = _FromPixels(model).eval(), tasks.attributes(loaded.task, head)
    free = {"images": {0: "batch", 2: "height", 3: "width"}, _ROWS: {0: "batch"}}
    if not final and loaded.task.name != "classify":
        free[_ROWS][2] = "rows"
    outputs = [_ROWS]
    if extra.mask_coefficients:
        outputs.append(_PROTOTYPES)
        free[_PROTOTYPES] = {0: "batch", 2: "mask_height", 3: "mask_width"}
    example = torch.zeros((_BATCH, tasks.channels_of(model), *_SIDES), dtype=torch.uint8)
    try:
        with torch.no_grad():
            outcome = whole(example[:1])
        tasks.check_answer(loaded.task, outcome, len(loaded.class_names), extra, final)
        with torch.no_grad(), python_warnings.catch_warnings():
            # The tracer warns about sizes read in Python, the exporter that it is deprecated.
            python_warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (example,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=outputs,
                dynamic_axes=free,
            )
    except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ImportRefused(
            UNSUPPORTED, f"the model can't be exported to ONNX ({line}): serve it by torch"
        ) from error
    head_attributes = json_format.MessageToDict(extra, preserving_proto_field_name=True)
    return Exported(loaded.task.name, tuple(outputs), head_attributes)


def _describe(model: Any, loaded: checkpoint.Checkpoint, path: Path) -> None:
    graph = onnx.load(path)
    words = {
        "names": str(dict(enumerate(loaded.class_names))),
        "stride": str(checkpoint.model_stride(model)),
        "task": loaded.task.name,
        "imgsz": str([loaded.trained_size] * 2),
        "end2end": str(bool(getattr(model.model[-1], "end2end", False))),
        "args": "{'nms': False}",
        "head": type(model.model[-1]).__name__,
    }
    onnx.helper.set_model_props(graph, words)
    try:
        onnx.save(graph, path)
    except ValueError as error:
        raise ImportRefused(INVALID, "the model is too large for one ONNX file") from error
