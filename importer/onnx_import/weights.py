"""Checks that the weights of an ONNX graph are finite.

NaN is no weight of a working graph. Infinity is one where graphs compare or clip, and never where
they multiply.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from importer.refusal import INVALID, ImportRefused

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)
_MULTIPLIED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization"}
    | {"LayerNormalization", "GroupNormalization"}
)


def check_finite(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Raises ImportRefused, and names the tensors, for weights that are not finite. `nodes` are all
    of the graph, those of its branches too.
    """
    nodes = list(nodes)
    multiplied = {name for node in nodes if node.op_type in _MULTIPLIED for name in node.input}
    wrong = {}
    for name, tensor in _tensors(graph, nodes):
        values = numpy_helper.to_array(tensor)
        broken = ~np.isfinite(values) if name in multiplied else np.isnan(values)
        if broken.any():
            wrong[name] = int(broken.sum())
    if wrong:
        shown = ", ".join(f"{count} in {name[:80]}" for name, count in [*wrong.items()][:3])
        raise ImportRefused(
            INVALID,
            f"the weights of the graph are not finite: {sum(wrong.values())} are NaN or infinite "
            f"({shown}{', ...' if len(wrong) > 3 else ''}): the training diverged, or the export "
            "overflowed; check the model where it was trained, and export it in fp32",
        )


def _tensors(graph: GraphProto, nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    """The initializers and constants of floating point numbers, by name."""
    held = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                held.append((node.output[0], attribute.t))
            elif attribute.type == AttributeProto.GRAPH:
                held += [(tensor.name, tensor) for tensor in attribute.g.initializer]
    return ((name, tensor) for name, tensor in held if tensor.data_type in _FLOATS)
