"""The door to nncf: a checked ONNX graph to one in int8, by the numbers that its layers give of
images. QuantizeLinear and DequantizeLinear are ONNX's own, so every runtime reads the result.

What follows the last convolutions stays in float: there pixels, of hundreds, lie beside scores, of
0 to 1, and one scale for both would leave nothing of the scores.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nncf
import nncf.onnx.quantization.quantize_model  # otherwise imported by the call, behind the filter
from nncf.onnx import engine
from onnx import GraphProto, NodeProto

from importer.onnx_import import calibration
from importer.onnx_import.graph import Graph
from importer.refusal import UNSUPPORTED, ImportRefused

# Older opsets have one scale for a tensor, not one for each channel.
_MIN_OPSET = 13


def quantised(
    graph: Graph, images: Path, size: tuple[int, int], heard: Callable[[float], None]
) -> tuple[bytes, str]:
    """The file of the graph in int8, calibrated on a zip of images of `size` (height, width),
    and what made it. `heard` is told the share that is done. Raises ImportRefused.
    """
    if graph.opset < _MIN_OPSET:
        raise ImportRefused(
            UNSUPPORTED,
            f"the file is of opset {graph.opset}, int8 needs {_MIN_OPSET}: export it again",
        )
    shown = calibration.Images(images, graph.input, size, heard)
    _of_one_thread()
    try:
        made = nncf.quantize(
            graph.model,
            nncf.Dataset(shown),
            # Symmetric: asymmetric ranges halve OpenVINO's speed and gain nothing measurable.
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(shown),
            # nncf does not count constants as nodes.
            ignored_scope=nncf.IgnoredScope(decoding(graph.model.graph), validate=False),
        )
    except (ImportRefused, MemoryError):
        raise
    except Exception as error:  # whatever an unknown graph makes the library raise
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ImportRefused(
            UNSUPPORTED, f"the graph can't be put into int8 ({line}): build it in fp32"
        ) from error
    return made.SerializeToString(), f"nncf {nncf.__version__}"


def decoding(graph: GraphProto) -> list[str]:
    """The names of the nodes after the last convolutions; nodes without a name get one."""
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        node.name = node.name or f"node {number}"
    waiting, found = [output.name for output in graph.output], dict[str, None]()
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker.name not in found and not _ends(maker, weights):
            found[maker.name] = None
            waiting += maker.input
    return list(found)


def _ends(node: NodeProto, weights: dict[str, tuple[int, ...]]) -> bool:
    """What is before a convolution to one channel, which takes the mean of a distribution (DFL),
    is decoding too; what only a shape is taken of is not.
    """
    if node.op_type == "Conv":
        return weights.get(node.input[1], (0,))[0] != 1
    return node.op_type == "Shape"


def _of_one_thread() -> None:
    """ONNX Runtime would start one a core, each with memory of its own, and nncf has no word to
    say so.
    """
    library: Any = engine.rt
    options = library.SessionOptions

    def of_one() -> Any:
        made = options()
        made.intra_op_num_threads = made.inter_op_num_threads = 1
        return made

    library.SessionOptions = of_one
