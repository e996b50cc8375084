"""The only user of ONNX Runtime: runs graphs on a CPU or a CUDA device.

With `tensorrt` it uses the TensorRT provider. That is experimental: it has run on no hardware yet,
and is off unless a setting asks for it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np

from worker.arrays import U8
from worker.backends.onnx.model import Outputs
from worker.concurrency.own_thread import on_own_thread
from worker.hardware import allocator
from worker.hardware.host import yield_to_passes
from worker.packs.memory_file import memory_file
from worker.packs.pack import Pack
from yolopool.errors import LoadFailed
from yolopool.v1.pack_pb2 import OnnxGraph

_DTYPES = {"uint8": np.uint8, "float32": np.float32, "float16": np.float16}
_NEEDED = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntime:
    """`device_kind` is cpu or cuda; `compute_threads` is for a CPU; `used_bytes` measures the
    memory in use on the device. With `tensorrt`, TensorRT runs the graphs, and CUDA what it can't.
    """

    def __init__(
        self,
        device_kind: str,
        compute_threads: int = 0,
        used_bytes: Callable[[], int] = allocator.allocated_bytes,
        tensorrt: bool = False,
    ) -> None:
        self.name = "tensorrt" if tensorrt else "onnx"
        self.prepares_in_passes = tensorrt or device_kind != "cpu"
        self._kinds = ("tensorrt", "cuda") if tensorrt else (device_kind,)
        self._threads = compute_threads
        self.used_bytes = used_bytes

    def open(self) -> None:
        _library()

    def load(self, pack: Pack) -> "_Session":
        runtime = _library()
        wanted = [_NEEDED[kind] for kind in self._kinds]
        available = runtime.get_available_providers()
        missing = [provider for provider in wanted if provider not in available]
        if missing:
            raise LoadFailed(
                f"the ONNX Runtime installed here has no {' and no '.join(missing)}: install "
                "onnxruntime-gpu in place of onnxruntime, or build the version for torch"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # An arena would keep the activations of the largest batch for good, for each model.
        options.enable_cpu_mem_arena = False
        # Threads that spin while they wait would take cores from other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        with memory_file(pack.weights) as path:
            make = partial(runtime.InferenceSession, path, options, providers=wanted)
            # On CUDA the device thread waits for it.
            read = _none_disabled if self._kinds == ("cpu",) else tuple
            session = on_own_thread(partial(make, disabled_optimizers=read()))
        session.disable_fallback()  # it would read the file again, for another provider
        return _Session(session, pack.manifest.onnx)


def _none_disabled() -> Iterator[str]:
    """The library reads it once it has started the session's threads, and before it optimises the
    graph. The threads keep their priority, and the graph is optimised at a low one.
    """
    yield_to_passes()
    allocator.use_heap_of_loads()
    yield from ()


class _Session:
    """A graph that takes uint8, as all of our own builds do, normalises by itself."""

    def __init__(self, session: Any, graph: OnnxGraph) -> None:
        self._session = session
        self._input = graph.input
        self._dtype, self._scale = _DTYPES[graph.dtype], np.float32(graph.scale)
        self._outputs = [output.name for output in graph.outputs]

    def run(self, images: U8) -> Outputs:
        outputs: Sequence[Any] = self._session.run(
            self._outputs, {self._input: self._to_input(images)}
        )
        return outputs

    def close(self) -> None:
        self._session = None
        allocator.give_back_loads()

    def _to_input(self, images: U8) -> Any:
        """NCHW, RGB or grey."""
        batch, height, width, channels = images.shape
        planes = np.empty((batch, channels, height, width), np.uint8)
        for image, into in zip(images, planes, strict=True):
            for channel in range(channels):
                cv2.extractChannel(image, channels - 1 - channel, dst=into[channel])
        if self._dtype == np.uint8:
            return planes
        return (planes * self._scale).astype(self._dtype, copy=False)


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise LoadFailed(
            f"this version needs ONNX Runtime, which this worker lacks ({error}): "
            "pip install yolopool[onnx]"
        ) from error
    return onnxruntime
