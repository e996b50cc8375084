"""Several runtimes on the one device of a worker; the pack names the one that runs it.

Torch owns the device. Another runtime uses the same threads, and is imported with the first pack
that needs it.
"""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from weakref import WeakSet

from worker.backends.base import Backend, DeviceMemory, LoadedModel, Loading
from worker.backends.onnx.graph_load import GraphLoad, Runtime
from worker.backends.onnx.model import OnnxModel
from worker.packs.manifest import GRAPHS
from worker.packs.pack import Pack
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory
from yolopool.v1.pack_pb2 import PackManifest

_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


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
        if pack.manifest.backend not in GRAPHS:
            return self._device.load(pack, precision)
        loading = self._load_of_graph(pack, precision)
        loading.prepare()
        loading.begin()
        try:
            loading.make()
        except OutOfMemory:
            self.reclaim()
            raise
        return loading.end()

    def loads_beside(self, manifest: PackManifest) -> Callable[[Pack, str], Loading] | None:
        """Graphs on a CPU. On CUDA, memory that another thread allocates would break the capture of
        a graph.
        """
        beside = manifest.backend in GRAPHS and self.device_kind == "cpu"
        return self._load_of_graph if beside else None

    def _load_of_graph(self, pack: Pack, precision: str) -> GraphLoad:
        if precision not in _PRECISIONS:
            raise InvalidOption(f"precision {precision!r} is none of {', '.join(_PRECISIONS)}")
        backend = pack.manifest.backend
        runtime = self._runtimes.get(backend)
        if runtime is None:
            raise LoadFailed(
                f"this {self.device_kind} worker does not run packs built for {backend}, only for "
                f"{', '.join((self.name, *self._runtimes))}: build the version for one of these"
            )
        return GraphLoad(runtime, pack, self._graphs.add)

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
