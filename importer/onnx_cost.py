"""What a pass through an ONNX graph takes, told from the shapes of its tensors: nothing is run."""

import math
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto

# Bytes of an element by TensorProto.DataType; what is not here counts four.
_ITEM_BYTES: dict[int, int] = {
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.DOUBLE: 8,
}
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image: peak of live activations in bytes, and operations (a multiply and an add are
    two) of convolutions and matrix products, in billions.
    """

    activation_bytes: int
    gflops: float


def parameters(graph: GraphProto) -> int:
    """Numbers that the file keeps as weights."""
    return sum(math.prod(one.dims) for one in graph.initializer)


def cost(model: ModelProto, height: int, width: int) -> Cost:
    """Of one image of that many pixels. Tensors whose shape can't be told count nothing."""
    sized = ModelProto()
    sized.CopyFrom(model)
    weights = {one.name: tuple(one.dims) for one in sized.graph.initializer}
    (image,) = [one for one in sized.graph.input if one.name not in weights]
    for dim, size in zip(image.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dim.dim_value = size
    for output in sized.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(sized, data_prop=True).graph
    shapes, sizes = dict(weights), {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        if tensor.HasField("shape") and all(size > 0 for size in dims):
            shapes[value.name] = tuple(dims)
            sizes[value.name] = math.prod(dims) * _ITEM_BYTES.get(tensor.elem_type, 4)
    flops = sum(_flops(node, shapes) for node in graph.node)
    return Cost(_peak(graph, sizes), flops / 1e9)


def _peak(graph: GraphProto, sizes: dict[str, int]) -> int:
    """Largest sum of tensors that are made and still read later, over the graph's order."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    kept = {one.name for one in graph.output}
    leaving: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in kept:
            leaving.setdefault(index, []).append(name)
    made = {one.name for one in graph.input}
    now = peak = sum(sizes.get(name, 0) for name in made)
    for index, node in enumerate(graph.node):
        made.update(node.output)
        now += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, now)
        now -= sum(sizes.get(name, 0) for name in leaving.get(index, ()) if name in made)
    return peak


def _flops(node: NodeProto, shapes: dict[str, Shape]) -> int:
    """Of the operators that do nearly all the work; 0 where a shape is not known."""
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
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return 2 * math.prod(out) * left[0 if transposed else -1]
