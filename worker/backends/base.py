"""What a backend is: the interface to a device, for the engine and for the contract suite.

All of it runs on the one device thread: a model is built and used there and nowhere else. Only
`memory` and `pin` may be called on any thread, `RunningPass.finish` on the finish thread, and the
steps of a `Loading` where they say.
Nothing here imports torch.
"""

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.arrays import U8
from worker.packs.pack import Pack
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.v1.pack_pb2 import PackManifest


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The answer of one forward pass, with the times of its stages."""

    candidates: tuple[Candidates, ...]
    transfer_s: float  # copy of the images to the device
    inference_s: float  # from normalisation to decoded boxes
    postprocess_s: float  # NMS


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What this process uses of its device, what the device has, and what is free for any process
    now, in bytes.
    """

    used_bytes: int
    total_bytes: int
    available_bytes: int


class RunningPass(Protocol):
    """A pass that runs on the device."""

    def finish(self) -> BatchResult:
        """Waits for the device and runs NMS. Touches neither model nor backend, so that the device
        thread can go on meanwhile. Called once, on the finish thread.
        """
        ...


class StagedBatch(Protocol):
    """A batch that was copied to the device and not run yet."""

    def forward(self) -> RunningPass:
        """Runs the model. Returns when the device can take more work, which may be before it is
        done. Called once.

        Raises InferenceFailed, and OutOfMemory with the device as it was before.
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
        """Bytes that the backend keeps on the device for this model alone, beside its weights."""
        ...

    @property
    def uses_host_memory(self) -> bool:
        """Whether the model reads the pack's own memory, which must then stay until `close`."""
        ...

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """Working memory of a batch of letterboxed images of (height, width) pixels: measured where
        such a pass ran and the device reports it, else by the figure from the import.
        """
        ...

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> StagedBatch:
        """Copies letterboxed BGR images, uint8 HWC and all of one shape, to the device; `options`
        has one entry for each image. The first of three stages, see `run`.

        Raises InvalidOption, and OutOfMemory with the device as it was before.
        """
        ...

    def self_test(self) -> str:
        """Asks what the import asked; how the answer differs from that at the import, as the end of
        a sentence. Empty: it does not, or the pack has no such question.
        """
        ...

    def close(self) -> None:
        """Drops the weights; their memory is free when this returns. Idempotent. Not called while a
        pass is unfinished.
        """
        ...


def run(model: LoadedModel, images: Sequence[U8], options: Sequence[NmsOptions]) -> BatchResult:
    """Runs a whole pass on this thread."""
    return model.stage(images, options).forward().finish()


class Loading(Protocol):
    """A load in steps, to be run in this order."""

    def prepare(self) -> None:
        """On any thread, beside passes: what is needed for any model. Raises LoadFailed."""
        ...

    def begin(self) -> None:
        """On the device thread, while no pass is in flight: measures the memory before."""
        ...

    def make(self) -> None:
        """On any thread, beside passes. Raises as `Backend.load`."""
        ...

    def try_out(self, shape: tuple[int, int], ask: bool) -> str:
        """On any thread, beside passes: runs a pass of one image of (height, width) pixels, where
        the runtime prepares something in it and, with `ask`, the self-test: see
        `LoadedModel.self_test`. Raises as `StagedBatch.forward`.
        """
        ...

    def drop(self) -> None:
        """On any thread, in place of `end`: frees what was made. Idempotent."""
        ...

    def leave_out(self, size_bytes: int) -> None:
        """On the device thread, between `begin` and `end`: another model took so many bytes of the
        device, or gave them back (negative).
        """
        ...

    def end(self) -> LoadedModel:
        """On the device thread, while no pass is in flight: measures what it holds by now, and
        returns the model.
        """
        ...


class Backend(Protocol):
    """One kind of runtime on one device."""

    @property
    def name(self) -> str:
        """`torch` or `simulated`: the runtime of packs that name no other."""
        ...

    @property
    def device_kind(self) -> str:
        """cpu, cuda or sim."""
        ...

    @property
    def device_name(self) -> str:
        """The name that the device reports."""
        ...

    @property
    def compute_class(self) -> str:
        """What the device multiplies with, as types.proto names it; once it is open."""
        ...

    def open(self) -> int:
        """Opens the device; returns the measured bytes of its context. Called once, first."""
        ...

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        """The backend and the precision that a pack runs with when `precision` is ordered."""
        ...

    def load(self, pack: Pack, precision: str) -> LoadedModel:
        """Puts a pack on the device. What its architecture needs beside weights is built only at
        the first load.

        Raises PackInvalid, OutOfMemory and LoadFailed; nothing is left on the device then.
        """
        ...

    def loads_beside(self, manifest: PackManifest) -> Callable[[Pack, str], Loading] | None:
        """What makes, in place of `load`, a load that runs beside passes; None: such packs are
        loaded on the device thread alone. It raises InvalidOption and LoadFailed.
        """
        ...

    def reclaim(self) -> None:
        """Gives cached memory back to the device: the first response to an OutOfMemory."""
        ...

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Makes copies from this host memory fast; returns a call that undoes it. Any thread."""
        ...

    def memory(self) -> DeviceMemory:
        """Measures the memory; cheap enough for every heartbeat. Any thread."""
        ...

    def synchronize(self) -> None:
        """Waits until the device has done all its work."""
        ...

    def close(self) -> None:
        """Closes the device."""
        ...
