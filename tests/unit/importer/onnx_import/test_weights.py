"""Weights of ONNX graphs that are not finite: NaN anywhere, infinity where it is multiplied."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from importer.onnx_import.graph import read
from importer.onnx_import.weights import check_finite
from importer.refusal import ImportRefused

NAN, INF = float("nan"), float("inf")


def graph(weight: Any, bound: float = 1.0, kind: str = "Conv") -> onnx.GraphProto:
    """A product with `weight`, then a clip at `bound`, which is a constant of a node."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    given = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 32, 32])
    held = numpy_helper.from_array(np.full((3, 3, 1, 1), 0.5, np.float32), "weight")
    values = numpy_helper.to_array(held).copy()
    values[1, 2] = weight
    constant = numpy_helper.from_array(np.array(bound, np.float32), "value")
    nodes = [
        helper.make_node(kind, ["images", "weight"], ["made"]),
        helper.make_node("Constant", [], ["bound"], value=constant),
        helper.make_node("Min", ["made", "bound"], ["output"]),
    ]
    return helper.make_graph(
        nodes, "by hand", [image], [given], [numpy_helper.from_array(values, "weight")]
    )


@pytest.mark.parametrize(
    ("weight", "bound", "kind", "named"),
    [
        (NAN, 1.0, "Conv", "1 in weight"),
        (INF, 1.0, "Conv", "1 in weight"),
        (-INF, 1.0, "MatMul", "1 in weight"),
        (NAN, 1.0, "Add", "1 in weight"),
        (0.5, NAN, "Conv", "1 in bound"),
    ],
)
def test_what_is_not_finite_is_named(weight: float, bound: float, kind: str, named: str) -> None:
    one = graph(weight, bound, kind)
    with pytest.raises(ImportRefused, match="not finite") as caught:
        check_finite(one, one.node)
    assert named in caught.value.message


@pytest.mark.parametrize(("weight", "bound", "kind"), [(0.5, INF, "Conv"), (-INF, 1.0, "Add")])
def test_infinity_may_be_compared_with(weight: float, bound: float, kind: str) -> None:
    one = graph(weight, bound, kind)
    check_finite(one, one.node)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_every_type_of_numbers_is_looked_at(kind: str, value: float) -> None:
    whole = graph(0.5)
    del whole.initializer[:]
    whole.initializer.append(
        helper.make_tensor("weight", TensorProto.DataType.Value(kind), [2], [1.0, value])
    )
    with pytest.raises(ImportRefused, match="1 in weight"):
        check_finite(whole, whole.node)


def test_branches_are_looked_at() -> None:
    one = graph(0.5)
    held = numpy_helper.from_array(np.array([NAN], np.float32), "kept")
    kept = helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1])
    branch = helper.make_graph([], "branch", [], [kept], [held])
    node = helper.make_node("If", ["which"], ["x"], then_branch=branch, else_branch=branch)
    with pytest.raises(ImportRefused, match="1 in kept"):
        check_finite(one, [*one.node, node])


def test_a_file_is_refused_for_them() -> None:
    model = helper.make_model(graph(NAN), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ImportRefused, match="not finite"):
        read(model.SerializeToString())
