"""Several runtimes on the one device of a worker; the pack names the one that runs it.

Torch owns the device. Another runtime uses the same threads, and is imported with the first pack
that needs it.
"""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol
from weakref import WeakSet

from worker.backends.base import Backend, DeviceMemory, LoadedModel
from worker.backends.onnx.model import OnnxModel, cause_of
from worker.packs.manifest import GRAPHS
from worker.packs.pack import Pack
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory, YolopoolError
from yolopool.v1.pack_pb2 import PackManifest

_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Runtime(Protocol):
    """Runs ONNX graphs."""

    @property
    def name(self) -> str:
        """The backend that its packs name."""
        ...

    def load(self, pack: Pack) -> OnnxModel:
        """Prepares a graph in memory of its own. Raises LoadFailed, and errors of the library."""
        ...


class CompositeBackend:
    """`device` owns the device and runs packs for torch; `runtimes` run the others."""

    def __init__(self, device: Backend, *runtimes: Runtime) -> None:
        self._device = device
        self._runtimes: Mapping[str, Runtime] = {runtime.name: runtime for runtime in runtimes}
        # Graphs that are still in use.
        self._graphs: WeakSet[OnnxModel] = WeakSet()
        self.name = device.name
        self.device_kind = device.device_kind

    @property
    def device_name(self) -> str:
        return self._device.device_name

    @property
    def compute_class(self) -> str:
        return self._device.compute_class

    def open(self) -> int:
        return self._device.open()

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        if manifest.backend in GRAPHS:
            return manifest.backend, manifest.precision or "fp32"
        return self._device.variant(manifest, precision)

    def load(self, pack: Pack, precision: str) -> LoadedModel:
        """A graph computes in the precision its pack says; `precision` is for torch alone."""
        backend = pack.manifest.backend
        if backend not in GRAPHS:
            return self._device.load(pack, precision)
        if precision not in _PRECISIONS:
            raise InvalidOption(f"precision {precision!r} is none of {', '.join(_PRECISIONS)}")
        runtime = self._runtimes.get(backend)
        if runtime is None:
            raise LoadFailed(
                f"this {self.device_kind} worker does not run packs built for {backend}, only for "
                f"{', '.join((self.name, *self._runtimes))}: build the version for one of these"
            )
        message = ""
        try:
            model = runtime.load(pack)
            self._graphs.add(model)
            return model
        except YolopoolError:
            raise
        except Exception as error:  # each runtime has error types of its own
            message = cause_of(error)
            if not isinstance(error, MemoryError) and "alloc" not in message:
                raise LoadFailed(
                    f"{backend} does not take this graph ({message}): build the version for "
                    "another backend"
                ) from error
        # Outside the handler, whose traceback held what was made so far.
        self.reclaim()
        raise OutOfMemory(f"{pack.manifest.weights_bytes} bytes do not fit: {message}")

    def reclaim(self) -> None:
        self._device.reclaim()

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        return self._device.pin(memory)

    def memory(self) -> DeviceMemory:
        """Adds the memory of the other runtimes, which torch does not know about. On a CPU the
        whole process is counted already.
        """
        memory = self._device.memory()
        if self.device_kind == "cpu":
            return memory
        graph_bytes = sum(graph.held_bytes for graph in tuple(self._graphs))
        return replace(memory, used_bytes=memory.used_bytes + graph_bytes)

    def synchronize(self) -> None:
        self._device.synchronize()

    def close(self) -> None:
        self._device.close()
