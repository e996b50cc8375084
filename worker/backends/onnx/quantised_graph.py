"""Makes OpenVINO compute an int8 ONNX graph right, in integers or in float.

An ONNX graph in int8 has QuantizeLinear and DequantizeLinear in pairs. OpenVINO 2026.4 reads a pair
as FakeQuantize, Convert, Convert, Subtract, Multiply, and its low-precision transformation then
computes wrong numbers after a concatenation of two such chains, on every processor: values are off
by a third. One FakeQuantize with the range of the real values means the same and is computed right.
"""

from typing import Any

# The operators before the Subtract and Multiply that end a chain, from the end.
_OF_VALUES = ("Convert", "Convert", "FakeQuantize")
_OF_WEIGHTS = ("Convert", "Constant")


def fuse_quantisers(model: Any) -> int:
    """Replaces each pair of the `openvino.Model` by a FakeQuantize; returns how many there were."""
    return _replace(model, _OF_VALUES, _fake_quantize)


def unpack_weights(model: Any) -> int:
    """Replaces int8 weights of the `openvino.Model` by the numbers they stand for, in float32;
    returns how many. Otherwise OpenVINO looks for kernels that take int8 weights, also in float.
    """
    return _replace(model, _OF_WEIGHTS, _real_weights)


def _replace(model: Any, operators: tuple[str, ...], made: Any) -> int:
    count = 0
    for end in model.get_ordered_ops():
        if end.get_type_name() == "Multiply" and (node := _instead(end, operators, made)):
            for consumer in list(end.output(0).get_target_inputs()):
                consumer.replace_source_output(node.output(0))
            count += 1
    if count:
        model.validate_nodes_and_infer_types()
    return count


def _instead(multiply: Any, operators: tuple[str, ...], made: Any) -> Any:
    """What replaces the chain that ends in `multiply`; None if none of these operators does."""
    scale, before, zero = _constant(multiply, 1), _input(multiply), 0.0
    if before.get_type_name() == "Subtract":
        zero, before = _constant(before, 1), _input(before)
    chain = [before]
    while len(chain) < len(operators) and chain[-1].get_type_name() == "Convert":
        chain.append(_input(chain[-1]))
    if tuple(node.get_type_name() for node in chain) != operators or scale is None or zero is None:
        return None
    return made(chain[-1], scale, zero)


def _fake_quantize(quantise: Any, scale: Any, zero: Any) -> Any:
    from openvino import opset13

    low, high = (_constant(quantise, at) for at in (3, 4))
    if low is None or high is None:
        return None
    limits = (opset13.constant((limit - zero) * scale) for limit in (low, high))
    taken = (quantise.input_value(at) for at in range(3))
    return opset13.fake_quantize(*taken, *limits, quantise.get_attributes()["levels"])


def _real_weights(stored: Any, scale: Any, zero: Any) -> Any:
    from openvino import opset13

    return opset13.constant((stored.data.astype("float32") - zero) * scale)


def _input(node: Any) -> Any:
    return node.input_value(0).get_node()


def _constant(node: Any, at: int) -> Any:
    """An input as float32; None if it is neither a constant nor one converted or reshaped."""
    output = node.input_value(at)
    source = output.get_node()
    while source.get_type_name() in ("Convert", "Reshape"):
        source = _input(source)
    if source.get_type_name() != "Constant":
        return None
    return source.data.astype("float32").reshape(tuple(output.get_shape()))
