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


def quantised_concatenation(channels: int, side: int, kernel: int) -> onnx.ModelProto:
    """Two convolutions in a row, both of whose results a third takes, all in int8 as nncf writes
    it: input `x` (1, channels, side, side), seeded weights.
    """
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def add(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(name: str, values: Array) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def quantised(name: str, limit: float) -> str:
        scale = constant(f"{name}.scale", np.array(limit / 127, np.float32))
        zero = constant(f"{name}.zero", np.array(0, np.int8))
        stored = add("QuantizeLinear", [name, scale, zero], f"{name}.int8")
        return add("DequantizeLinear", [stored, scale, zero], f"{name}.real")

    def convolved(of: str, inputs: int, size: int, name: str) -> str:
        weights = rng.integers(-127, 128, (channels, inputs, size, size)).astype(np.int8)
        each = rng.uniform(0.5, 1.5, channels) / 127 / np.sqrt(inputs * size**2)
        stored = constant(f"{name}.weights", weights)
        scale = constant(f"{name}.scales", each.astype(np.float32))
        zero = constant(f"{name}.zeros", np.zeros(channels, np.int8))
        real = add("DequantizeLinear", [stored, scale, zero], f"{name}.kernel", axis=0)
        bias = constant(f"{name}.bias", rng.normal(size=channels).astype(np.float32))
        pads = [size // 2] * 4
        return add("Conv", [of, real, bias], name, pads=pads, kernel_shape=[size, size])

    def activated(of: str) -> str:
        gate = add("Sigmoid", [of], f"{of}.gate")
        return quantised(add("Mul", [of, gate], f"{of}.silu"), 3.0)

    first = activated(convolved(quantised("x", 3.0), channels, kernel, "first"))
    second = activated(convolved(first, channels, kernel, "second"))
    both = add("Concat", [first, second], "both", axis=1)
    shape = [1, channels, side, side]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in ("x", convolved(both, 2 * channels, 1, "third"))
    ]
    graph = helper.make_graph(nodes, "quantised", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
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
