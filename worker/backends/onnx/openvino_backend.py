"""The only user of OpenVINO: ONNX graphs compiled for the CPU, with normalisation inside them."""

import sys
from functools import partial
from types import ModuleType
from typing import Any, cast

import numpy as np

from worker.arrays import U8
from worker.backends.onnx.beside import beside_passes
from worker.backends.onnx.model import Outputs
from worker.backends.onnx.quantised_graph import fuse_quantisers, unpack_weights
from worker.hardware import allocator, compute_class
from worker.packs.manifest import channels_of
from worker.packs.memory_file import memory_file
from worker.packs.pack import Pack
from yolopool.errors import LoadFailed
from yolopool.v1.pack_pb2 import OnnxGraph
from yolopool.vocabulary import can_compute

# By default OpenVINO computes in bf16 wherever the CPU can; of int8 what the graph keeps in float.
_HINTS = {"": "f32", "fp32": "f32", "bf16": "bf16", "int8": "f32"}
# What keeps the convolutions of an int8 graph in float: its numbers stay those of int8.
_IN_FLOAT = {"LP_TRANSFORMS_MODE": False}


class OpenVino:
    """One stream, since a worker runs one pass at a time; of `compute_threads` threads, 0: OpenVINO
    chooses.
    """

    name = "openvino"
    # Kernels, and weights in their order.
    prepares_in_passes = True

    def __init__(self, compute_threads: int = 0) -> None:
        self._threads = compute_threads
        self._core: Any = None
        self._small: Any = None

    def open(self) -> None:
        openvino = _library()
        if self._core is None:
            core = openvino.Core()
            # What the device needs for any model counts as context, not as the first model's.
            core.get_property("CPU", "FULL_DEVICE_NAME")
            self._small = _small_model(openvino)
            self._core = core

    def used_bytes(self) -> int:
        return allocator.allocated_bytes()

    def load(self, pack: Pack) -> "_Session":
        openvino = _library()
        assert self._core is not None, "it is open"
        hint = _HINTS[pack.manifest.precision]
        if hint == "bf16" and not _computes_bf16(self._core):
            raise LoadFailed("this CPU does not compute in bf16: build the version in fp32")
        in_float = self._lacks_int8(pack)
        config = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            **(_IN_FLOAT if in_float else {}),
        }
        # Threads get the priority of the one that makes them. OpenVINO gives those of a model that
        # has gone to the next.
        small = self._core.compile_model(self._small, "CPU", config)
        del small
        with memory_file(pack.weights) as path:
            graph = beside_passes(partial(self._core.read_model, path))
        if pack.manifest.precision == "int8":
            fuse_quantisers(graph)
        if in_float:
            unpack_weights(graph)
        graph = _with_input(openvino, graph, pack)
        compiled = beside_passes(partial(self._core.compile_model, graph, "CPU", config))
        del graph
        return _Session(compiled, pack.manifest.onnx)

    def _lacks_int8(self, pack: Pack) -> bool:
        """Whether OpenVINO's integer kernels for this processor give other numbers than the graph.

        Without VNNI they do: sums of two products overflow 16 bits (docs/builds.md).
        """
        return pack.manifest.precision == "int8" and compute_class.runs_int8_in_float(
            compute_class.of_host()
        )


class _Session:
    def __init__(self, compiled: Any, graph: OnnxGraph) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = [output.name for output in graph.outputs]

    def run(self, images: U8) -> Outputs:
        self._request.infer({0: images}, share_inputs=True)
        outputs = [np.array(self._request.get_tensor(name).data) for name in self._outputs]
        # Otherwise each model would keep the activations of its largest batch. Costs 0.1 ms.
        self._compiled.release_memory()
        return outputs

    def close(self) -> None:
        self._request = self._compiled = None
        allocator.give_back_loads()


def _with_input(openvino: Any, graph: Any, pack: Pack) -> Any:
    """The graph with preprocessing in front: from uint8 NHWC, BGR or grey, to what it takes."""
    from openvino.preprocess import ColorFormat, PrePostProcessor

    about, kinds = pack.manifest.onnx, openvino.Type
    steps = PrePostProcessor(graph)
    image = steps.input()
    image.tensor().set_element_type(kinds.u8).set_layout(openvino.Layout("NHWC"))
    image.model().set_layout(openvino.Layout("NCHW"))
    if channels_of(pack.manifest) == 3:
        image.tensor().set_color_format(ColorFormat.BGR)
        image.preprocess().convert_color(ColorFormat.RGB)
    if about.dtype != "uint8":
        image.preprocess().convert_element_type(kinds.f32).scale(1 / about.scale)
    return beside_passes(steps.build)


def _small_model(openvino: Any) -> Any:
    """A convolution, whose pass needs all threads of a stream."""
    from openvino import opset13

    image = opset13.parameter([1, 8, 64, 64], np.float32)
    weights = opset13.constant(np.zeros((8, 8, 3, 3), np.float32))
    ones = [1, 1]
    return openvino.Model([opset13.convolution(image, weights, ones, ones, ones, ones)], [image])


def _computes_bf16(core: Any) -> bool:
    """OpenVINO says what the processor can do; its kernels are oneDNN's, which may be limited."""
    used = compute_class.of_onednn(compute_class.of_host())
    capable = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return capable and can_compute("openvino/bf16", used)


def _library() -> Any:
    # Its telemetry would report each start, from a process that it forks off this one. It works
    # without.
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    try:
        import openvino
    except ImportError as error:
        raise LoadFailed(
            f"this version needs OpenVINO, which this worker lacks ({error}): "
            "pip install yolopool[openvino]"
        ) from error
    return openvino
