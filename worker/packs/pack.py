"""A pack as a worker holds it: its weights in host memory and its description."""

import mmap
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from worker.packs.host_memory import HostMemory
from worker.packs.manifest import TensorPlace
from yolopool.v1.pack_pb2 import PackManifest


@dataclass(frozen=True, slots=True)
class Pack:
    """A verified pack: its digest, manifest and skeleton.json, and its weights if they were read.

    `places` are the manifest's tensors in plain Python.
    """

    digest: str
    manifest: PackManifest
    skeleton: bytes
    places: tuple[TensorPlace, ...]
    memory: HostMemory | None = None

    @property
    def weights(self) -> npt.NDArray[np.uint8]:
        """All weights, uint8 (weights_bytes,), read-only. Raises ValueError without them."""
        return self._fetched().array

    @property
    def weights_buffer(self) -> mmap.mmap:
        """The same bytes for `torch.frombuffer`; nobody writes to them."""
        return self._fetched().buffer

    def close(self) -> None:
        """Frees the memory of the weights, at the latest with its last view. Idempotent."""
        if self.memory is not None:
            self.memory.close()

    def without_weights(self) -> "Pack":
        """The same pack once its weights left host memory."""
        return replace(self, memory=None)

    def _fetched(self) -> HostMemory:
        if self.memory is None:
            raise ValueError("this pack was fetched without its weights")
        return self.memory
