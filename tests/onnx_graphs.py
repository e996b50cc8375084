"""ONNX files made by hand: graphs that answer what they are told to, in any layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Dims = Sequence[int | str]


def answering(
    outputs: Mapping[str, Array],
    *,
    shapes: Mapping[str, Dims] | None = None,
    size: Dims = (1, 3, 320, 320),
    dtype: int = TensorProto.FLOAT,
    metadata: Mapping[str, str] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A graph that gives these arrays whatever the image is, and declares these shapes."""
    image = helper.make_tensor_value_info("images", dtype, list(size))
    nodes = [
        # The image has a say of nothing, but is used, as runtimes want it.
        helper.make_node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["cast"], ["least"], keepdims=0),
        helper.make_node("Sub", ["least", "least"], ["zero"]),
    ]
    made, weights = [], []
    for name, values in outputs.items():
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), f"{name}.values"))
        nodes.append(helper.make_node("Add", [f"{name}.values", "zero"], [name]))
        preloader = list((shapes or {}).get(name, values.shape))
        made.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, preloader))
    graph = helper.make_graph(nodes, "by hand", [image], made, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    helper.set_model_props(model, dict(metadata or {}))
    return model


def write(model: onnx.ModelProto, path: Path) -> Path:
    """The file of a graph."""
    path.write_bytes(model.SerializeToString())
    return path


def run(path: Path, image: Array) -> list[Array]:
    """What ONNX Runtime makes of it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    return list(session.run(None, {wanted.name: image}))
