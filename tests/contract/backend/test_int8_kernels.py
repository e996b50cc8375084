"""OpenVINO's integer kernels on this processor give the numbers of the graph."""

import numpy as np
import onnxruntime
import pytest

from tests import onnx_graphs
from worker.backends.onnx.quantised_graph import fuse_quantisers, unpack_weights
from worker.hardware import compute_class

openvino = pytest.importorskip("openvino")
SIDE, CHANNELS = 20, 32


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_concatenation_of_quantised_tensors_is_computed_right(kernel: int) -> None:
    """Without fused quantisers values are off by a third after the concatenation."""
    file = onnx_graphs.quantised_concatenation(CHANNELS, SIDE, kernel).SerializeToString()
    pixels = np.random.default_rng(1).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(file).run(None, {"x": pixels})
    graph = openvino.Core().read_model(file)
    in_float = compute_class.runs_int8_in_float(compute_class.of_host())
    assert fuse_quantisers(graph) == 3
    assert not in_float or unpack_weights(graph) == 3
    hints = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": not in_float}
    (answer,) = openvino.Core().compile_model(graph, "CPU", hints)(pixels).values()
    # One step of a quantiser of the last convolution's inputs, by the largest of its weights.
    assert np.abs(answer - expected).max() < 0.1
    assert np.abs(expected).mean() > 0.5


def test_int8_in_float_gives_the_same() -> None:
    file = onnx_graphs.quantised_concatenation(CHANNELS, SIDE, 3).SerializeToString()
    pixels = np.random.default_rng(2).normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(file).run(None, {"x": pixels})
    graph = openvino.Core().read_model(file)
    assert (fuse_quantisers(graph), unpack_weights(graph)) == (3, 3)
    hints = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": False}
    (answer,) = openvino.Core().compile_model(graph, "CPU", hints)(pixels).values()
    np.testing.assert_allclose(answer, expected, atol=0.1)


def test_a_graph_in_float_has_no_quantisers() -> None:
    file = onnx_graphs.answering({"output": np.zeros((1, 6, 8), np.float32)})
    graph = openvino.Core().read_model(file.SerializeToString())
    assert (fuse_quantisers(graph), unpack_weights(graph)) == (0, 0)
