"""Reads and checks an ONNX file; never runs it.

Refused is what would make it more than arithmetic on its input: operators outside the standard,
functions of its own, tensors kept in other files.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from importer.onnx_import import weights
from importer.onnx_import.layout import Output
from importer.onnx_import.shapes import shape_of
from importer.refusal import INVALID, UNSAFE, UNSUPPORTED, ImportRefused

_STANDARD = ("", "ai.onnx")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform")
_OLDEST_OPSET = 9
# The newest opset and version of the file format (IR) that ONNX Runtime takes, and the newest type
# of numbers in that; the release of it that is installed is asked in a test.
NEWEST_OPSET, NEWEST_IR, _NEWEST_TYPE = 26, 13, TensorProto.INT2
_MAX_NODES, _MAX_DEPTH, _MAX_OUTPUTS = 50_000, 8, 64
_MAX_TEXT = 4 * 1024**2
_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.UINT8: "uint8",
}
_EXPORT = "export it again from its .pt, with its usual tool"


@dataclass(frozen=True, slots=True)
class Input:
    """The image input: NCHW, RGB or grey; 0 for a size that the file leaves free."""

    name: str
    dtype: str
    batch: int
    height: int
    width: int
    channels: int = 3


@dataclass(frozen=True, slots=True)
class Words:
    """The metadata that the exporting tool wrote; empty or None where it wrote nothing. `names` are
    the class names as they are written.
    """

    names: Any = None
    stride: int | None = None
    task: str = ""
    head: str = ""
    image_size: int | None = None
    final: bool | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """Operators of suppression inside a graph: their thresholds, None where it computes them."""

    overlap: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked ONNX file, and its bytes as runtimes take them; `suppression` is None where it has
    no operator of it.
    """

    file: bytes
    model: ModelProto
    opset: int
    input: Input
    outputs: tuple[Output, ...]
    words: Words
    suppression: Suppression | None


def read(data: bytes) -> Graph:
    """Parses and checks a file. Raises ImportRefused."""
    model = _parsed(data)
    if model.functions:
        raise ImportRefused(
            UNSUPPORTED,
            f"the graph brings functions of its own ({_some(model.functions)}): {_EXPORT}",
        )
    opset = _opset(model)
    if _lower_ir(model):
        data = model.SerializeToString()
    nodes = list(_nodes(model.graph, 0))
    strange = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD}
    if strange:
        words = ", ".join(sorted(strange))[:200]
        raise ImportRefused(
            UNSUPPORTED,
            f"the graph uses operators outside the ONNX standard ({words}), which not every "
            f"runtime has: {_EXPORT}, without plugins (of TensorRT and others)",
        )
    if chance := sorted({node.op_type for node in nodes if node.op_type.startswith(_RANDOM)}):
        raise ImportRefused(
            UNSUPPORTED,
            f"the graph answers by chance ({', '.join(chance)}): {_EXPORT}, in its evaluation mode",
        )
    _check_tensors(model.graph, nodes)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _invalid(_line(error)) from error
    weights.check_finite(model.graph, nodes)
    return Graph(
        data,
        model,
        opset,
        _input(model.graph),
        _outputs(model.graph),
        _words(model),
        _suppression(model.graph, nodes),
    )


def _parsed(data: bytes) -> ModelProto:
    try:
        model = ModelProto.FromString(data)
    except MemoryError:
        raise
    except Exception as error:  # the exception types of protobuf differ between its versions
        raise _invalid("it can't be parsed, it may be cut short") from error
    if not model.graph.node or not model.graph.output:
        raise _invalid("it holds no graph")
    return model


def _opset(model: ModelProto) -> int:
    versions = [opset.version for opset in model.opset_import if opset.domain in _STANDARD]
    newest = min(NEWEST_OPSET, onnx.defs.onnx_opset_version())
    if len(versions) != 1 or not _OLDEST_OPSET <= versions[0] <= newest:
        raise ImportRefused(
            UNSUPPORTED,
            f"its opset is {versions or 'missing'}, served are {_OLDEST_OPSET} to {newest}: "
            f"{_EXPORT} and another opset",
        )
    return int(versions[0])


def _lower_ir(model: ModelProto) -> bool:
    """Writes the newest version of the format that runtimes take over a newer one; returns whether
    it did. What later versions added is types of numbers. Raises ImportRefused if one is used.
    """
    if model.ir_version <= NEWEST_IR:
        return False
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    for node in _nodes(model.graph, 0):
        kinds |= {attribute.t.data_type for attribute in node.attribute}
        kinds |= {attribute.i for attribute in node.attribute if attribute.name == "to"}
    if max(kinds, default=0) > _NEWEST_TYPE:
        raise ImportRefused(
            UNSUPPORTED,
            f"its format is of version {model.ir_version} and uses types of numbers that runtimes "
            f"do not know, served are versions up to {NEWEST_IR}: {_EXPORT}, in fp32",
        )
    model.ir_version = NEWEST_IR
    return True


def _nodes(graph: GraphProto, depth: int) -> Iterator[NodeProto]:
    """Those of branches and loops too."""
    if depth > _MAX_DEPTH or len(graph.node) > _MAX_NODES:
        raise _invalid(
            f"more than {_MAX_NODES} operators, or {_MAX_DEPTH} graphs within each other"
        )
    for node in graph.node:
        yield node
        for inside in _subgraphs(node):
            yield from _nodes(inside, depth + 1)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_tensors(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Refuses tensors in other files: whoever runs the model would open a path that it names."""
    graphs = [graph, *(inside for node in nodes for inside in _subgraphs(node))]
    for inner in graphs:
        tensors = [*inner.initializer]
        for sparse in inner.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
        for node in inner.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
                for kept in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    tensors += [kept.values, kept.indices]
        if any(t.data_location == TensorProto.EXTERNAL or t.external_data for t in tensors):
            raise ImportRefused(
                UNSAFE,
                "the graph keeps weights in other files, which are not read: save it as one file "
                "(onnx.save with save_as_external_data=False)",
            )


def _suppression(graph: GraphProto, nodes: Iterable[NodeProto]) -> Suppression | None:
    nodes = list(nodes)
    suppressing = [node for node in nodes if node.op_type == "NonMaxSuppression"]
    if not suppressing:
        return None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t

    def value(place: int) -> float | None:
        inputs = suppressing[0].input
        if len(inputs) <= place or not inputs[place]:
            return 0.0  # as the operator is defined
        tensor = constants.get(inputs[place])
        if tensor is None or not (values := numpy_helper.to_array(tensor)).size:
            return None
        return float(values.flat[0])

    return Suppression(value(3), value(4))


def _input(graph: GraphProto) -> Input:
    weights = {tensor.name for tensor in graph.initializer}
    images = [value for value in graph.input if value.name not in weights]
    if len(images) != 1:
        raise ImportRefused(
            UNSUPPORTED, f"it has {len(images)} inputs ({_some(images)}), served is one: the images"
        )
    (image,) = images
    shape, kind = shape_of(image.type), image.type.tensor_type.elem_type
    if kind not in _DTYPES:
        name = TensorProto.DataType.Name(kind) if kind else "no tensor"
        raise ImportRefused(
            UNSUPPORTED, f"its input is {name}, served are float32, float16 and uint8: {_EXPORT}"
        )
    if len(shape) != 4 or shape[1] not in (1, 3):
        known = len(shape) == 4 and shape[-1] not in (1, 3)
        remedy = "with images of 1 or 3 channels" if known else "with the channels first"
        raise ImportRefused(
            UNSUPPORTED,
            f"its input is {_said(shape)}, served is (batch, 3 or 1, height, width): {_EXPORT}, "
            f"{remedy}",
        )
    batch, channels, height, width = (0 if size is None else size for size in shape)
    if any(size and not 32 <= size <= 4096 for size in (height, width)) or batch > 1024:
        raise ImportRefused(
            UNSUPPORTED, f"its input is {_said(shape)}: served are 32 to 4096 pixels"
        )
    if bool(height) != bool(width):
        raise ImportRefused(
            UNSUPPORTED, f"its input is {_said(shape)}: {_EXPORT}, with both sides free or none"
        )
    return Input(image.name, _DTYPES[kind], batch, height, width, channels)


def _outputs(graph: GraphProto) -> tuple[Output, ...]:
    if len(graph.output) > _MAX_OUTPUTS:
        raise _invalid(f"{len(graph.output)} outputs")
    return tuple(Output(output.name, shape_of(output.type)) for output in graph.output)


def _words(model: ModelProto) -> Words:
    """The metadata that the exports of Ultralytics and of the YOLOv5 repository carry."""
    said = {prop.key: prop.value for prop in model.metadata_props}
    if sum(len(value) for value in said.values()) > _MAX_TEXT:
        raise _invalid("more than 4 MiB of metadata")
    size = _literal(said, "imgsz")
    size = max(size) if isinstance(size, list | tuple) and size else size
    stride = _literal(said, "stride")
    return Words(
        names=_literal(said, "names"),
        stride=int(stride) if isinstance(stride, int | float) else None,
        task=said.get("task", ""),
        head=said.get("head", ""),
        image_size=size if type(size) is int and 32 <= size <= 4096 else None,
        final=_is_final(said),
    )


def _is_final(said: dict[str, str]) -> bool | None:
    """Whether NMS or an end-to-end head is inside; exports since YOLOv8 say so."""
    arguments = _literal(said, "args")
    told = isinstance(arguments, dict) and "nms" in arguments
    if "end2end" not in said and not told:
        return None
    return said.get("end2end") == "True" or (told and arguments["nms"] is True)


def _literal(said: dict[str, str], key: str) -> Any:
    """Parses a value that the tool printed as a Python literal, without evaluating it."""
    try:
        return ast.literal_eval(said[key]) if key in said else None
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise _invalid(f"its metadata {key} can't be read") from error


def _said(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def _some(named: Iterable[Any]) -> str:
    return ", ".join(entry.name for entry in named)[:200]


def _line(error: object) -> str:
    return (str(error).strip().splitlines() or ["not valid"])[0][:200]


def _invalid(wrong: str) -> ImportRefused:
    return ImportRefused(INVALID, f"the ONNX file is refused: {wrong}: {_EXPORT}")
