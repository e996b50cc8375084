"""A simulated device, which only takes time and memory, so that fleets of many workers run for real
on a small machine.

Passes and loads sleep on the device thread, and bytes are counted. Detections are made from the
pixels, so that a test notices an answer that went to the wrong caller.
"""

import mmap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from worker.arrays import U8
from worker.backends.base import BatchResult, DeviceMemory
from worker.packs.pack import Pack
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed, InvalidOption, OutOfMemory
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.vocabulary import INPUT_BYTES_PER_PIXEL

CONTEXT_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class TimeCurve:
    """Seconds of a pass: (fixed + per_image x images x megapixels / 0.41) x (parameters / 2.6 M)
    to the power 0.6.

    The figures are assumed, not measured: a pass of an n-size model at 640 px on a mid-range GPU
    takes some 2 ms, and 0.6 ms more for each image; time grows more slowly than parameters.
    """

    fixed_s: float = 0.002
    per_image_s: float = 0.0006
    load_fixed_s: float = 0.002
    load_bytes_per_s: float = 10e9

    def pass_s(self, shape: tuple[int, int], images: int, parameters: int) -> float:
        size = shape[0] * shape[1] / (640 * 640)
        scale = max(parameters, 1) / 2_600_000
        return float((self.fixed_s + self.per_image_s * images * size) * scale**0.6)

    def slower(self, times: float) -> "TimeCurve":
        """That of a device whose passes take so many times longer."""
        return replace(self, fixed_s=self.fixed_s * times, per_image_s=self.per_image_s * times)

    def load_s(self, size_bytes: int) -> float:
        return self.load_fixed_s + size_bytes / self.load_bytes_per_s


class SimulatedBackend:
    """Device sim:`number` with `memory_bytes`. `fail` is called with each step (load, run), and may
    raise the error of the step. `look` is called with each image of a pass, and `answer` with each
    image and its answer.
    """

    name = "simulated"
    device_kind = "sim"

    def __init__(
        self,
        number: int,
        memory_bytes: int,
        curve: TimeCurve | None = None,
        fail: Callable[[str], None] = lambda step: None,
        sleep: Callable[[float], None] = time.sleep,
        look: Callable[[U8], None] | None = None,
        answer: Callable[[U8, Candidates], Candidates] | None = None,
    ) -> None:
        self.device_name = f"simulated {number}"
        self.compute_class = "sim"
        self.curve = curve or TimeCurve()
        self.fail = fail
        self.sleep = sleep
        self.look, self.answer = look, answer
        # Whether packs are loaded beside passes, as graphs are on a CPU.
        self.beside = False
        # Bytes that other processes use of the device.
        self.foreign_bytes = 0
        self._total_bytes = memory_bytes
        self._used_bytes = 0

    def open(self) -> int:
        self._used_bytes = CONTEXT_BYTES
        return self._used_bytes

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        return self.name, precision

    def load(self, pack: Pack, precision: str) -> "SimulatedModel":
        if precision != "fp32":
            raise InvalidOption(f"precision {precision!r} is not built here: use fp32")
        self.fail("load")
        self.allocate(pack.manifest.weights_bytes)
        self.sleep(self.curve.load_s(pack.manifest.weights_bytes))
        return SimulatedModel(self, pack)

    def loads_beside(
        self, manifest: PackManifest
    ) -> "Callable[[Pack, str], SimulatedLoading] | None":
        return partial(SimulatedLoading, self) if self.beside else None

    def allocate(self, size_bytes: int) -> None:
        """Allocates bytes of the device, or raises OutOfMemory and allocates none."""
        available = self._total_bytes - self.foreign_bytes - self._used_bytes
        if size_bytes > available:
            raise OutOfMemory(
                f"{size_bytes} bytes do not fit: {available} of {self._total_bytes} are free: "
                "release a model"
            )
        self._used_bytes += size_bytes

    def free(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes

    def memory(self) -> DeviceMemory:
        available = self._total_bytes - self.foreign_bytes - self._used_bytes
        return DeviceMemory(self._used_bytes, self._total_bytes, max(0, available))

    def reclaim(self) -> None:
        """Nothing is cached."""

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        return lambda: None

    def synchronize(self) -> None:
        """Nothing runs beside the caller."""

    def close(self) -> None:
        self._used_bytes = 0


@dataclass(slots=True)
class SimulatedLoading:
    """A load beside passes, whose bytes are measured."""

    backend: SimulatedBackend
    pack: Pack
    precision: str
    _model: "SimulatedModel | None" = None
    _before_bytes: int = 0

    def prepare(self) -> None:
        """There is no library."""

    def begin(self) -> None:
        self._before_bytes = self.backend.memory().used_bytes

    def make(self) -> None:
        self._model = self.backend.load(self.pack, self.precision)

    def try_out(self, shape: tuple[int, int], ask: bool) -> str:
        assert self._model is not None, "it was made"
        self._model.forward([np.zeros((*shape, 3), np.uint8)])
        return self._model.self_test() if ask else ""

    def drop(self) -> None:
        if self._model is not None:
            self._model.close()

    def leave_out(self, size_bytes: int) -> None:
        self._before_bytes += size_bytes

    def end(self) -> "SimulatedModel":
        assert self._model is not None, "it was made"
        self._model.weights_bytes = self.backend.memory().used_bytes - self._before_bytes
        return self._model


class SimulatedModel:
    """Weights of which only the bytes are counted."""

    def __init__(self, backend: SimulatedBackend, pack: Pack) -> None:
        self._backend = backend
        self._manifest = pack.manifest
        self._open = True
        self.weights_bytes = pack.manifest.weights_bytes

    @property
    def answer(self) -> Callable[[U8, Candidates], Candidates] | None:
        return self._backend.answer

    @property
    def private_bytes(self) -> int:
        return 0

    @property
    def uses_host_memory(self) -> bool:
        return False

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        pixels = shape[0] * shape[1] * batch
        activations = pixels * self._manifest.activation_bytes_per_megapixel // 10**6
        return activations + pixels * INPUT_BYTES_PER_PIXEL

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> "_Staged":
        if not self._open:
            raise InferenceFailed("this model was closed")
        return _Staged(self, images, options)

    def forward(self, images: Sequence[U8]) -> float:
        """Takes the time of a pass, and its memory meanwhile; returns the seconds."""
        self._backend.fail("run")
        if self._backend.look is not None:
            for image in images:
                self._backend.look(image)
        height, width = images[0].shape[:2]
        workspace = self.workspace_bytes((height, width), len(images))
        self._backend.allocate(workspace)
        try:
            seconds = self._backend.curve.pass_s(
                (height, width), len(images), self._manifest.parameters
            )
            self._backend.sleep(seconds)
        finally:
            self._backend.free(workspace)
        return seconds

    def self_test(self) -> str:
        return ""

    def close(self) -> None:
        if self._open:
            self._open = False
            self._backend.free(self.weights_bytes)


@dataclass(frozen=True, slots=True)
class _Staged:
    model: SimulatedModel
    images: Sequence[U8]
    options: Sequence[NmsOptions]

    def forward(self) -> "_Raw":
        seconds = self.model.forward(self.images)
        return _Raw(self.images, self.options, seconds, self.model.answer)


@dataclass(frozen=True, slots=True)
class _Raw:
    images: Sequence[U8]
    options: Sequence[NmsOptions]
    inference_s: float
    answer: Callable[[U8, Candidates], Candidates] | None

    def finish(self) -> BatchResult:
        pairs = list(zip(self.images, self.options, strict=True))
        answers = tuple(_answer(*pair) for pair in pairs)
        if self.answer is not None:
            answers = tuple(map(self.answer, self.images, answers))
        return BatchResult(answers, 0.0, self.inference_s, 0.0)


def _answer(image: U8, options: NmsOptions) -> Candidates:
    """One box in the middle half. Its class and its confidence of 0.5..1 encode the mean of some
    pixels; the mean of all would take CPU time that a device would not.
    """
    height, width = image.shape[:2]
    mean = float(image[::8, ::8].mean())
    class_id = int(mean) % len(options.class_confidence)
    confidence = np.float32(0.5 + mean / 510)
    found = confidence > options.class_confidence[class_id] and options.max_detections > 0
    count = 1 if found else 0
    box = (width / 4, height / 4, 3 * width / 4, 3 * height / 4)
    return Candidates(
        np.array([box] * count, np.float32).reshape(-1, 4),
        np.array([confidence] * count, np.float32),
        np.array([class_id] * count, np.int64),
    )
