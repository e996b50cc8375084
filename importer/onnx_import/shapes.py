"""Shapes of the tensors of an ONNX graph, and what a pass takes by them. No image is run: only
sums of sizes are worked out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
)
from onnx.reference import ReferenceEvaluator

from importer.refusal import INVALID, ImportRefused

# Bytes of an element by TensorProto.DataType; others count as four.
_ITEM_BYTES: dict[int, int] = {
    TensorProto.FLOAT16: 2,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.BOOL: 1,
    TensorProto.INT64: 8,
    TensorProto.DOUBLE: 8,
}
Shape = tuple[int, ...]
# Operators that exporters compute shapes with, on at most so many numbers.
_FOLDED = frozenset(
    {"Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand"}
    | {"Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mul", "ReduceMin"}
    | {"Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)
_MAX_NUMBERS = 64
_COUNTS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.BOOL})


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image: peak of live activations in bytes, and operations (a multiply and an add are
    two) of convolutions and matrix products, in billions.
    """

    activation_bytes: int
    gflops: float


def parameters(graph: GraphProto) -> int:
    """The number of weights in the file."""
    return sum(math.prod(tensor.dims) for tensor in graph.initializer)


def inferred(model: ModelProto, height: int, width: int) -> dict[str, TypeProto]:
    """Types and shapes of the tensors, as far as they can be told, for one image of that many
    pixels, or for as many as the file fixes: operator by operator, with the small whole numbers
    that are computed to reshape others worked out on the way. Raises ImportRefused where the
    operators do not fit each other.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    (image,) = [value for value in graph.input if value.name not in weights]
    types = {name: _type(t.data_type, tuple(t.dims)) for name, t in weights.items()}
    batch, channels = shape_of(image.type)[:2]
    kind = image.type.tensor_type.elem_type
    types[image.name] = _type(kind, (batch or 1, channels or 3, height, width))
    data = {name: t for name, t in weights.items() if math.prod(t.dims) <= _MAX_NUMBERS}
    opsets = [opset for opset in model.opset_import if opset.domain in ("", "ai.onnx")]
    for node in graph.node:
        found = _of_node(node, types, data, opsets, model.ir_version)
        types |= found
        if node.op_type in _FOLDED and all(name in found for name in node.output):
            data |= _folded(node, types, data, opsets[0].version)
    return types


def _of_node(
    node: NodeProto,
    types: Mapping[str, TypeProto],
    data: Mapping[str, TensorProto],
    opsets: Sequence[OperatorSetIdProto],
    ir_version: int,
) -> dict[str, TypeProto]:
    schema = onnx.defs.get_schema(node.op_type, opsets[0].version, "")
    given = [name for name in node.input if name in types]
    if len(given) < sum(1 for name in node.input if name):
        return {}
    try:
        return onnx.shape_inference.infer_node_outputs(
            schema,
            node,
            {name: types[name] for name in given},
            {name: data[name] for name in given if name in data},
            opset_imports=list(opsets),
            ir_version=ir_version,
        )
    except onnx.shape_inference.InferenceError as error:
        line = (str(error).strip().splitlines() or [""])[0][:200]
        raise ImportRefused(
            INVALID, f"the graph does not fit together ({line}): export it again"
        ) from error


def _folded(
    node: NodeProto, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto], opset: int
) -> dict[str, TensorProto]:
    """The value of a node that only computes shapes, by the reference implementation; if known."""
    (name,) = node.output
    dims = shape_of(types[name])
    small = None not in dims and math.prod(d for d in dims if d is not None) <= _MAX_NUMBERS
    if not small or types[name].tensor_type.elem_type not in _COUNTS:
        return {}
    if node.op_type == "Shape":
        sizes = shape_of(types[node.input[0]])
        if None in sizes or node.attribute:
            return {}
        return {name: numpy_helper.from_array(np.array(sizes, np.int64), name)}
    if not all(operand in data for operand in node.input if operand):
        return {}
    feeds = {key: numpy_helper.to_array(data[key]) for key in node.input if key}
    try:
        (value,) = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
    except (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError):
        return {}  # inference of its own handles what does not fit
    return {name: numpy_helper.from_array(np.asarray(value), name)}


def _type(kind: int, dims: Shape) -> TypeProto:
    return helper.make_tensor_type_proto(kind, dims)


def shape_of(kind: TypeProto) -> tuple[int | None, ...]:
    """The sizes of a tensor, None where unknown; empty if nothing is known."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return ()
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in tensor.shape.dim
    )


def cost(graph: GraphProto, types: Mapping[str, TypeProto], batch: int) -> Cost:
    """The cost of a graph with the types `inferred` for `batch` images; unknown shapes count
    nothing.
    """
    shapes: dict[str, Shape] = {}
    for name, kind in types.items():
        known = tuple(size for size in shape_of(kind) if size is not None)
        if kind.tensor_type.HasField("shape") and len(known) == len(shape_of(kind)):
            shapes[name] = known
    weights = {tensor.name for tensor in graph.initializer}
    sizes = {
        name: math.prod(shape) * _ITEM_BYTES.get(types[name].tensor_type.elem_type, 4)
        for name, shape in shapes.items()
        if name not in weights
    }
    flops = sum(_flops(node, shapes) for node in graph.node)
    return Cost(_peak(graph, sizes) // batch, flops / 1e9 / batch)


def _peak(graph: GraphProto, sizes: dict[str, int]) -> int:
    """The largest sum of live tensors when the nodes run in the graph's order."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    kept = {output.name for output in graph.output}
    leaving: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in kept:
            leaving.setdefault(index, []).append(name)
    made = {value.name for value in graph.input}
    now = peak = sum(sizes.get(name, 0) for name in made)
    for index, node in enumerate(graph.node):
        made.update(node.output)
        now += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, now)
        now -= sum(sizes.get(name, 0) for name in leaving.get(index, ()) if name in made)
    return peak


def _flops(node: NodeProto, shapes: dict[str, Shape]) -> int:
    """Operations of the operators that do nearly all the work; 0 if a shape is unknown."""
    known = [shapes.get(name) for name in (*node.input[:2], *node.output[:1])]
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"} or len(known) < 3:
        return 0
    left, right, out = known
    if left is None or right is None or out is None:
        return 0
    if node.op_type == "Conv":
        return 2 * math.prod(out) * math.prod(right[1:])  # kernel: out, in / groups, *sides
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(left) * math.prod(right[1:])  # kernel: in, out / groups, *sides
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return 2 * math.prod(out) * left[0 if transposed else -1]
