"""Imports an ONNX file inside the child: reads it, decides its layout, measures, tries what it
declares, writes the pack.

The file itself becomes the pack's weights; the manifest describes its input and outputs, and the
backend to run it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import json_format
from onnx import TypeProto

from importer import class_names, pack_writer
from importer.onnx_import import graph as onnx_graph
from importer.onnx_import import layout as onnx_layout
from importer.onnx_import import probe
from importer.onnx_import import shapes as onnx_shapes
from importer.onnx_import.graph import Graph
from importer.onnx_import.layout import Decision, Known, Layout, Output, Shape, Undecided
from importer.onnx_import.session import Session
from importer.refusal import INVALID, UNSUPPORTED, ImportRefused
from yolopool.graphs.answers import Form
from yolopool.v1 import types_pb2
from yolopool.v1.pack_pb2 import HeadAttributes, OnnxGraph, OnnxOutput, PackManifest

_STRIDE, _IMAGE_SIZE = 32, 640  # used if the file says nothing: the library's defaults
# Sizes that exports have, tried where the file says no size and is wrong at the default.
_GUESSES = (640, 320, 416, 512, 256)
_NO_LAYOUT = types_pb2.OUTPUT_LAYOUT_UNSPECIFIED
_LAYOUTS = {
    types_pb2.OUTPUT_LAYOUT_OBJECTNESS: Layout.OBJECTNESS,
    types_pb2.OUTPUT_LAYOUT_PLAIN: Layout.PLAIN,
    types_pb2.OUTPUT_LAYOUT_END_TO_END: Layout.END_TO_END,
    types_pb2.OUTPUT_LAYOUT_PAIR: Layout.PAIR,
}
# Takes a graph, a zip of images, their (height, width) and a progress callback; returns the file of
# the int8 graph and the name of the library that made it.
Quantise = Callable[[Graph, Path, tuple[int, int], Callable[[float], None]], tuple[bytes, str]]
_NUMBERS = {layout: number for number, layout in _LAYOUTS.items()}


@dataclass(frozen=True, slots=True)
class Exported:
    """A graph that was exported from a checkpoint here: its task, its outputs, and what its rows
    hold beside boxes and classes (HeadAttributes).
    """

    task: str
    outputs: tuple[str, ...]
    head: dict[str, int]


def encode(
    order: dict[str, Any],
    artifact: Path,
    folder: Path,
    warnings: Sequence[str],
    step: Callable[[float, str], None],
    quantise: Quantise | None = None,
) -> dict[str, Any]:
    """Makes the pack in `folder`; returns an ImportedPack as JSON. `quantise` makes it int8.

    Raises ImportRefused.
    """
    asked = json_format.ParseDict(order["settings"], types_pb2.VersionSettings())
    if order["architecture_yaml"]:
        raise ImportRefused(INVALID, "an ONNX file is its own architecture: give it without --arch")
    step(0.1, "load")
    graph = onnx_graph.read(artifact.read_bytes())
    data = graph.file
    made = Exported(**order["exported"]) if order.get("exported") else None
    if made is None or made.task == "detect":
        made = None  # a detection graph is recognised by its file alone
        _check_kind(graph)
    if quantise is not None:
        _check_int8(graph, made)
    names = _class_names(graph, class_names.of_order(order))
    settings = _resolved(asked, graph)
    step(0.3, "measure")
    size = pack_writer.sides(settings)
    batch = graph.input.batch or 1
    types = onnx_shapes.inferred(graph.model, *size)
    cost = onnx_shapes.cost(graph.model.graph, types, batch)
    decision = _decided(graph, types, names, size, asked, made)
    task = made.task if made is not None else "detect"
    step(0.5, "try")
    # Classifications have no boxes, and so no layout.
    layout = _NUMBERS[decision.layout] if task != "classify" else _NO_LAYOUT
    form = Form(layout, len(names))
    found = _tried(graph, form, decision, asked, settings, cost, order)
    warnings = [*warnings, *found.warnings, *_without_effect(graph, decision)]
    graph = replace(graph, input=found.image)
    settings = _resolved(asked, graph)
    if (bounded := pack_writer.sides(settings)) != size:
        size = bounded
        types = onnx_shapes.inferred(graph.model, *size)
        cost = onnx_shapes.cost(graph.model.graph, types, batch)
    if task != "classify":
        settings.output_layout = layout
        settings.head_mode = _head_mode(asked, decision)
    made_with, parameters = [f"onnx {onnx.__version__}"], onnx_shapes.parameters(graph.model.graph)
    if quantise is not None:
        # The memory of a pass stays that of the fp32 graph: runtimes differ in what they keep in
        # int8, and none needs more.
        data, made_by = quantise(
            graph,
            Path(order["build"]["calibration"]),
            size,
            lambda done: step(0.6 + 0.3 * done, "calibrate"),
        )
        graph = replace(onnx_graph.read(data), input=graph.input)
        made_with.append(made_by)
    step(0.9, "write")
    weights_sha256 = pack_writer.write_weights(folder, [data])
    if quantise is not None:  # what held of the fp32 graph may not hold of this one
        found = _tried(graph, form, decision, asked, settings, cost, order)
        graph = replace(graph, input=found.image)
    manifest = PackManifest(
        architecture=f"onnx-{decision.layout.value}-{task}",
        task=task,
        head=HeadAttributes(**made.head) if made is not None else None,
        class_names=names,
        stride=graph.words.stride or _STRIDE,
        head_mode=settings.head_mode,
        settings=settings,
        gflops=cost.gflops,
        activation_bytes_per_megapixel=max(1, cost.activation_bytes * 1_000_000 // prod(size)),
        artifact=order["sha256"],
        warnings=warnings,
        backend=order["build"]["backend"],
        precision=order["build"]["precision"],
        onnx=_described(graph, decision, settings),
        weights_bytes=len(data),
        parameters=parameters,
        made_with=made_with,
        channels=graph.input.channels,
        weights_sha256=weights_sha256,
        tried=found.tried,
        self_test=found.self_test,
    )
    # Workers never share anything between two graphs, so the digest stands for the architecture.
    skeleton = f'{{"format":{pack_writer.FORMAT},"onnx":"{manifest.weights_sha256}"}}'.encode()
    digest = pack_writer.write_manifest(folder, manifest, skeleton)
    return pack_writer.report(folder, manifest, digest, Path(order["artifact"]))


def _check_int8(graph: Graph, made: Exported | None) -> None:
    """Raises ImportRefused for what is not built in int8."""
    if graph.input.channels != 3:
        raise ImportRefused(
            UNSUPPORTED, "int8 is built for images of three channels: choose another precision"
        )
    if made is not None:
        raise ImportRefused(
            UNSUPPORTED,
            f"int8 is built for detection alone, this model has the task {made.task}: choose "
            "another precision",
        )


def _tried(
    graph: Graph,
    form: Form,
    decision: Decision,
    asked: types_pb2.VersionSettings,
    settings: types_pb2.VersionSettings,
    cost: onnx_shapes.Cost,
    order: dict[str, Any],
) -> probe.Found:
    """Runs the graph to see what it keeps of what it declares. Raises ImportRefused."""
    return probe.tried(
        Session(graph.file, graph.input, decision.outputs),
        probe.Asked(
            image=graph.input,
            form=form,
            scale=_scale(graph.input),
            sizes=(settings.image_size, *settings.image_sizes),
            guesses=() if asked.image_size or graph.words.image_size else _GUESSES,
            rectangles=form.has_boxes and settings.shape_policy == types_pb2.SHAPE_POLICY_RECT,
            stride=graph.words.stride or _STRIDE,
            suppresses=graph.suppression is not None,
            gflops=cost.gflops,
            activation_bytes=cost.activation_bytes,
            memory_bytes=order["memory_bytes"],
        ),
    )


def _without_effect(graph: Graph, decision: Decision) -> list[str]:
    """Warns of the options that can't act on final boxes."""
    if decision.layout is not Layout.END_TO_END:
        return []
    inside = graph.suppression
    if inside is None:
        return ["its boxes are final: the options iou and agnostic_nms have no effect"]
    overlap, confidence = (
        "computed" if value is None else f"{value:g}"
        for value in (inside.overlap, inside.confidence)
    )
    return [
        f"boxes are suppressed inside the graph, by an overlap of {overlap} and a confidence of "
        f"{confidence}: the options iou and agnostic_nms have no effect, and a lower confidence "
        "finds no more; export it without suppression (nms=False) to choose them"
    ]


def _scale(image: onnx_graph.Input) -> float:
    """What pixels 0..255 are multiplied by to be the graph's input."""
    return 1.0 if image.dtype == "uint8" else 1 / 255


def _decided(
    graph: Graph,
    types: Mapping[str, TypeProto],
    names: Sequence[str],
    size: tuple[int, int],
    asked: types_pb2.VersionSettings,
    made: Exported | None,
) -> Decision:
    """The layout of the output. Raises ImportRefused."""
    if made is not None:
        return Decision(Layout.PLAIN, made.outputs)
    try:
        known = _known(graph, types, names, size)
        return onnx_layout.decide(known, _LAYOUTS.get(asked.output_layout))
    except Undecided as undecided:
        count = _names_in_file(graph)
        words = f"; the file has {count} class names" if count not in (0, len(names)) else ""
        raise ImportRefused(
            UNSUPPORTED, f"the ONNX file is refused: {undecided}{words}"
        ) from undecided


def _check_kind(graph: Graph) -> None:
    task = graph.words.task or "detect"
    if task != "detect":
        raise ImportRefused(
            UNSUPPORTED,
            f"an ONNX file of the task {task[:40]} is not served, one that detects is: upload the "
            ".pt it was made from",
        )
    if graph.words.head == "RTDETRDecoder":
        raise ImportRefused(
            UNSUPPORTED, "RT-DETR stretches images instead of letterboxing them: use a YOLO model"
        )


def _class_names(graph: Graph, said: class_names.Said) -> tuple[str, ...]:
    names = said.names or class_names.of_file(graph.words.names)
    if not names:
        raise ImportRefused(
            INVALID, "the file does not say its class names: give them with --names, in order"
        )
    names = said.put(names)
    class_names.check(names)
    return names


def _names_in_file(graph: Graph) -> int:
    names = graph.words.names
    return len(names) if isinstance(names, list | tuple | dict) else 0


def _known(
    graph: Graph, types: Mapping[str, TypeProto], names: Sequence[str], size: tuple[int, int]
) -> Known:
    """What the file says about its outputs; free sizes are those for images of `size`."""
    words = graph.words
    inferred = {name: onnx_shapes.shape_of(kind) for name, kind in types.items()}
    return Known(
        outputs=tuple(
            Output(output.name, _completed(output.shape, inferred.get(output.name, ())))
            for output in graph.outputs
        ),
        classes=len(names),
        size=size,
        names_in_file=_names_in_file(graph) == len(names),
        final=words.final,
        suppresses=graph.suppression is not None,
    )


def _completed(said: Shape, inferred: Shape) -> Shape:
    if len(said) != len(inferred):
        return said or inferred
    return tuple(a if a is not None else b for a, b in zip(said, inferred, strict=True))


def _head_mode(
    asked: types_pb2.VersionSettings, decision: Decision
) -> "types_pb2.HeadMode.ValueType":
    final = decision.layout is Layout.END_TO_END
    mode = types_pb2.HEAD_MODE_END_TO_END if final else types_pb2.HEAD_MODE_ONE_TO_MANY
    if asked.head_mode not in (types_pb2.HEAD_MODE_UNSPECIFIED, mode):
        raise ImportRefused(
            UNSUPPORTED, "an ONNX file has the head it was exported with: give it without --head"
        )
    return mode


def _resolved(asked: types_pb2.VersionSettings, graph: Graph) -> types_pb2.VersionSettings:
    image, stride = graph.input, graph.words.stride or _STRIDE
    if not 8 <= stride <= 1024:
        raise ImportRefused(INVALID, f"the file's stride is {stride}: export it again")
    resolved = types_pb2.VersionSettings()
    resolved.CopyFrom(asked)
    if image.height:
        _check_fixed(asked, image, stride)
        resolved.image_size = max(image.height, image.width)
        if image.height != image.width:
            resolved.image_height, resolved.image_width = image.height, image.width
        resolved.shape_policy = types_pb2.SHAPE_POLICY_SQUARE
    return pack_writer.resolve(resolved, graph.words.image_size or _IMAGE_SIZE, stride)


def _check_fixed(asked: types_pb2.VersionSettings, image: onnx_graph.Input, stride: int) -> None:
    """Refuses settings that a graph of one fixed size cannot serve."""
    remedy = "export it with free sizes (dynamic=True, --dynamic)"
    fixed = f"the file takes {image.width}x{image.height} pixels alone"
    if image.height % stride or image.width % stride:
        raise ImportRefused(UNSUPPORTED, f"{fixed}, served are whole strides ({stride}): {remedy}")
    longer = max(image.height, image.width)
    for size in (asked.image_size or longer, *asked.image_sizes):
        if -(-size // stride) * stride != longer:
            raise ImportRefused(
                INVALID, f"{fixed}, {size} were asked for: leave the size out, or {remedy}"
            )
    rectangle = asked.image_height, asked.image_width
    if rectangle not in ((0, 0), (image.height, image.width)):
        raise ImportRefused(
            INVALID,
            f"{fixed}, {rectangle[1]}x{rectangle[0]} were asked for: leave the size out, or "
            f"{remedy}",
        )
    if asked.shape_policy == types_pb2.SHAPE_POLICY_RECT:
        raise ImportRefused(
            INVALID,
            f"{fixed}, other shapes were asked for: leave the shape policy out, or {remedy}",
        )


def _described(graph: Graph, decision: Decision, settings: types_pb2.VersionSettings) -> OnnxGraph:
    image = graph.input
    shapes = {output.name: output.shape for output in graph.outputs}
    return OnnxGraph(
        opset=graph.opset,
        input=image.name,
        dtype=image.dtype,
        scale=_scale(image),
        batch=image.batch,
        height=image.height,
        width=image.width,
        layout=settings.output_layout,
        outputs=[
            OnnxOutput(name=name, shape=[size or 0 for size in shapes[name]])
            for name in decision.outputs
        ],
    )
