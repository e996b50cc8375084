"""The door to a device: what a backend is, for the engine and for the contract suite.

All of it runs on the one device thread: a model is built and used there and nowhere else. Only
`memory` and `pin` may be called from any thread, and `Raw.finish` from one other, always the same.
Nothing here imports torch.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.packs.pack import Pack
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.v1.pack_pb2 import PackManifest

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Answer of one forward pass, with the stages' times in seconds."""

    candidates: tuple[Candidates, ...]
    transfer_s: float  # host to device, as bytes
    inference_s: float  # normalisation to decoded boxes
    postprocess_s: float  # suppression


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What this process uses of its device, what the device has, and what is free now for
    anyone, in bytes.
    """

    used_bytes: int
    total_bytes: int
    available_bytes: int


class RunningPass(Protocol):
    """A pass that was given to the device."""

    def finish(self) -> BatchResult:
        """Waits for the device, once, and suppresses; touches neither model nor backend, so that
        the device thread may go on meanwhile. Once; on any one thread.
        """
        ...


class StagedBatch(Protocol):
    """A batch that was given to the device and not to the model yet."""

    def forward(self) -> RunningPass:
        """Runs the model: returns when the device thread may give the device more, which may be
        before the device is done. Once. Raises OutOfMemory with the device as it was before,
        InferenceFailed.
        """
        ...


class LoadedModel(Protocol):
    """Weights on the device, ready to run."""

    @property
    def weights_bytes(self) -> int:
        """Bytes on the device, measured."""
        ...

    @property
    def private_bytes(self) -> int:
        """Bytes that the backend keeps on the device for this model alone, beside weights."""
        ...

    @property
    def uses_host_memory(self) -> bool:
        """Whether it reads the pack's own memory, which is to stay until it is closed."""
        ...

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """Working memory of a batch of letterboxed images of (height, width) pixels: measured
        where such a pass ran and the device tells, else the import's figure for its pixels.
        """
        ...

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> StagedBatch:
        """Takes letterboxed BGR images, uint8 HWC and all of one shape, one options an image: the
        first of three stages, see `run`.

        Raises OutOfMemory (yolopool.errors) with the device as it was before, InvalidOption.
        """
        ...

    def close(self) -> None:
        """Drops the weights; their memory is given back before this returns. Idempotent. Not
        while a pass is unfinished.
        """
        ...


def run(model: LoadedModel, images: Sequence[U8], options: Sequence[NmsOptions]) -> BatchResult:
    """A whole pass on this thread."""
    return model.stage(images, options).forward().finish()


class Backend(Protocol):
    """One kind of runtime on one device."""

    @property
    def name(self) -> str:
        """`torch` or `simulated`: what runs packs that need nothing else."""
        ...

    @property
    def device_kind(self) -> str:
        """cpu, cuda or sim."""
        ...

    @property
    def device_name(self) -> str:
        """As the device calls itself."""
        ...

    @property
    def compute_class(self) -> str:
        """What the device multiplies with, as types.proto names it; once it is open."""
        ...

    def open(self) -> int:
        """Takes the device; returns the context's bytes, measured. Called once, first."""
        ...

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        """Backend and precision that a pack is run with, where `precision` is ordered."""
        ...

    def load(self, pack: Pack, precision: str) -> LoadedModel:
        """Puts a pack on the device. Raises PackInvalid, OutOfMemory, LoadFailed; keeps nothing.

        What the pack's architecture needs beside weights is built at its first load alone.
        """
        ...

    def reclaim(self) -> None:
        """Gives what is only cached back to the device: the first answer to an OutOfMemory."""
        ...

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Makes copies from this host memory fast; answers what undoes it. Any thread."""
        ...

    def memory(self) -> DeviceMemory:
        """Measures; cheap enough for every heartbeat, and safe on any thread."""
        ...

    def synchronize(self) -> None:
        """Returns when all work given to the device is done."""
        ...

    def close(self) -> None:
        """Gives the device back."""
        ...
