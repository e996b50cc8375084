"""Several runtimes on the one device of a worker: which one runs a pack, the pack says.

The device is torch's; a runtime beside it has the same threads, and is imported with the first
pack that needs it.
"""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol
from weakref import WeakSet

from worker.backends.base import Backend, DeviceMemory, LoadedModel
from worker.backends.onnx.model import OnnxModel
from worker.packs.manifest import GRAPHS
from worker.packs.pack import Pack
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory, YolopoolError
from yolopool.v1.pack_pb2 import PackManifest

_PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class Runtime(Protocol):
    """What runs ONNX graphs."""

    @property
    def name(self) -> str:
        """The backend of the packs it runs."""
        ...

    def load(self, pack: Pack) -> OnnxModel:
        """Makes a graph ready, of memory of its own. Raises LoadFailed, and what the library
        raises.
        """
        ...


class CompositeBackend:
    """`device` has the device and runs packs of torch, `runtimes` run the others."""

    def __init__(self, device: Backend, *runtimes: Runtime) -> None:
        self._device = device
        self._runtimes: Mapping[str, Runtime] = {one.name: one for one in runtimes}
        # Those that were loaded, and somebody still has.
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
        """A graph computes in what its pack says; `precision` is for those of torch."""
        backend = pack.manifest.backend
        if backend not in GRAPHS:
            return self._device.load(pack, precision)
        if precision not in _PRECISIONS:
            raise InvalidOption(f"precision {precision!r} is none of {', '.join(_PRECISIONS)}")
        runtime = self._runtimes.get(backend)
        if runtime is None:
            raise LoadFailed(
                f"a pack built for {backend} is not run on this {self.device_kind} worker, which "
                f"runs {', '.join((self.name, *self._runtimes))}: build the version for one of "
                "these"
            )
        message = ""
        try:
            model = runtime.load(pack)
            self._graphs.add(model)
            return model
        except YolopoolError:
            raise
        except Exception as error:  # each runtime has types of its own
            message = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            if not isinstance(error, MemoryError) and "alloc" not in message:
                raise LoadFailed(
                    f"{backend} does not take this graph ({message}): build the version for "
                    "another backend"
                ) from error
        # Out of the handler, whose traceback held what was made so far.
        self.reclaim()
        raise OutOfMemory(f"{pack.manifest.weights_bytes} bytes do not fit: {message}")

    def reclaim(self) -> None:
        self._device.reclaim()

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        return self._device.pin(memory)

    def memory(self) -> DeviceMemory:
        """What torch does not know of on its device is of the runtimes beside it; on a CPU all of
        the process is counted already.
        """
        memory = self._device.memory()
        if self.device_kind == "cpu":
            return memory
        beside = sum(one.held_bytes for one in tuple(self._graphs))
        return replace(memory, used_bytes=memory.used_bytes + beside)

    def synchronize(self) -> None:
        self._device.synchronize()

    def close(self) -> None:
        self._device.close()
