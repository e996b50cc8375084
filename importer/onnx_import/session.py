"""The only user of ONNX Runtime in the importer: runs a graph on a few pictures, in the sandbox."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from importer.onnx_import.graph import Input
from importer.refusal import UNSUPPORTED, ImportRefused

U8 = npt.NDArray[np.uint8]


class PassFailed(Exception):
    """The runtime could not run a pass; the message is its own, in one line."""


class Session:
    """A graph on one thread; `outputs` are the names of those to read, in order."""

    def __init__(self, file: bytes, image: Input, outputs: Sequence[str]) -> None:
        """Raises ImportRefused if the runtime cannot load the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has error types of its own
            _raise_if_memory(error)
            raise ImportRefused(
                UNSUPPORTED,
                f"ONNX Runtime {onnxruntime.__version__} can't load the graph ({_line(error)}): "
                "export it again, for an older opset",
            ) from error
        self._input, self._outputs = image, list(outputs)

    def run(self, images: Sequence[U8], scale: float) -> list[npt.NDArray[np.generic]]:
        """Runs one pass of images, uint8 BGR or grey (height, width, channels), whose pixels times
        `scale` are what the graph takes. Raises PassFailed, MemoryError.
        """
        pixels = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
        if self._input.dtype != "uint8":
            pixels = (pixels * np.float32(scale)).astype(self._input.dtype)
        try:
            outputs: list[npt.NDArray[np.generic]] = self._session.run(
                self._outputs, {self._input.name: np.ascontiguousarray(pixels)}
            )
        except Exception as error:
            _raise_if_memory(error)
            raise PassFailed(_line(error)) from error
        return outputs


def _raise_if_memory(error: Exception) -> None:
    if isinstance(error, MemoryError) or "alloc" in str(error):
        raise MemoryError(str(error)) from error


def _line(error: Exception) -> str:
    """The operator that failed and the end of what the runtime says, which has the cause; the
    beginning has its own code and types.
    """
    text = " ".join(str(error).split())
    node = re.search(r"while running (\w+) node", text)
    said = text.rpartition("Status Message: ")[2][-150:].partition(" ")[2] or text[-150:]
    return f"{node[1]}: {said}" if node else said
