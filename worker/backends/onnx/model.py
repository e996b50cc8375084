"""One ONNX graph in three stages, for any runtime: stack the images, run the pass, read the boxes.

The pack says what the graph takes and how its outputs are read. Where the file fixes the batch
size, a batch is cut into pieces and the last one is filled up; where it fixes the pixels, images of
another size are refused.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from worker.arrays import U8
from worker.backends.base import BatchResult
from worker.backends.onnx import exported_heads, layouts
from worker.packs.manifest import channels_of
from worker.packs.pack import Pack
from worker.postprocess import heads
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed, InvalidOption, OutOfMemory
from yolopool.graphs import answers, pictures, self_test
from yolopool.graphs.answers import Form

Outputs = Sequence[npt.NDArray[np.generic]]
# Characters of an error that are told.
_MAX_CAUSE = 300


class Session(Protocol):
    """A graph that a runtime prepared."""

    def run(self, images: U8) -> Outputs:
        """Runs BGR or grey images, uint8 (batch, height, width, channels). Returns the outputs that
        the pack names, in its order, in memory that no later pass writes to. Raises any error of
        the runtime.
        """
        ...

    def close(self) -> None:
        """Frees all of it."""
        ...


class OnnxModel:
    """A LoadedModel; the weights are the session's own copy. `held_bytes` are measured: the weights
    and what the runtime made of them.
    """

    uses_host_memory = False

    def __init__(self, pack: Pack, session: Session, held_bytes: int) -> None:
        self.manifest = pack.manifest
        self.graph = pack.manifest.onnx
        self.head = exported_heads.head_of(pack.manifest)
        self.session: Session | None = session
        self._made_bytes = held_bytes

    @property
    def held_bytes(self) -> int:
        """All its bytes on the device, between passes."""
        return self._made_bytes if self.session is not None else 0

    @property
    def weights_bytes(self) -> int:
        return min(self._made_bytes, self.manifest.weights_bytes)

    @property
    def private_bytes(self) -> int:
        """What the runtime keeps beside the weights: reordered copies, the prepared graph."""
        return self._made_bytes - self.weights_bytes

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """Activations by the figure from the import, and the input as uint8 and as float32."""
        pieces = -(-batch // self.graph.batch) if self.graph.batch else 1
        pixels = shape[0] * shape[1] * max(batch // pieces, self.graph.batch)
        return pixels * self.manifest.activation_bytes_per_megapixel // 10**6 + pixels * 3 * 5

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> "_Staged":
        if self.session is None:
            raise ValueError("this model was closed")
        classes, graph = len(self.manifest.class_names), self.graph
        if any(len(image_options.class_confidence) != classes for image_options in options):
            raise InvalidOption(f"class_confidence must have {classes} values, one a class")
        height, width = images[0].shape[:2]
        if graph.height and (height, width) != (graph.height, graph.width):
            raise InvalidOption(
                f"this version is a graph of {graph.width}x{graph.height} pixels alone, the image "
                f"was to be {width}x{height}: leave the size out, or export it with free sizes"
            )
        began = time.perf_counter()
        try:
            pixels = np.stack(images)
        except MemoryError as error:
            raise _too_large(images, error) from error
        return _Staged(self, self.session, pixels, options, time.perf_counter() - began)

    def self_test(self) -> str:
        test = self.manifest.self_test
        if not test.height or self.session is None:
            return ""
        size = (test.height, test.width)
        picture = pictures.scene(test.scene, *size, channels_of(self.manifest))
        images = [picture] * (self.graph.batch or 1)
        form = Form(self.graph.layout, len(self.manifest.class_names))
        try:
            outputs = self.session.run(np.stack(images))
            now = answers.read(form, outputs, len(images), size)[0]
        except answers.Unreadable as error:
            return str(error)
        except Exception as error:  # each runtime has error types of its own
            if isinstance(error, MemoryError) or "alloc" in str(error):
                raise _too_large(images, error) from error
            return f"the pass failed: {cause_of(error)}"
        return self_test.difference(form, test.rows, now, self.manifest.precision)

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None


@dataclass(frozen=True, slots=True)
class _Staged:
    """pixels: uint8 (batch, height, width, channels), BGR or grey."""

    model: OnnxModel
    session: Session
    pixels: U8
    options: Sequence[NmsOptions]
    staged_s: float

    def forward(self) -> "_Running":
        began = time.perf_counter()
        try:
            answers = [self.session.run(piece) for piece in self._pieces()]
        except MemoryError as error:
            raise _too_large(self.pixels, error) from error
        except Exception as error:  # each runtime has error types of its own
            if "alloc" in str(error):
                raise _too_large(self.pixels, error) from error
            raise InferenceFailed(f"the forward pass failed: {cause_of(error)}") from error
        return _Running(self, answers, time.perf_counter() - began)

    def _pieces(self) -> list[U8]:
        """The batch, in pieces of the batch size that the graph takes."""
        fixed = self.model.graph.batch
        if not fixed:
            return [self.pixels]
        missing = -len(self.pixels) % fixed
        full = np.concatenate((self.pixels, np.repeat(self.pixels[-1:], missing, axis=0)))
        return [full[start : start + fixed] for start in range(0, len(full), fixed)]


@dataclass(frozen=True, slots=True)
class _Running:
    staged: _Staged
    answers: Sequence[Outputs]
    inference_s: float

    def finish(self) -> BatchResult:
        began = time.perf_counter()
        found: list[Candidates] = []
        batch, height, width, _ = self.staged.pixels.shape
        batch = self.staged.model.graph.batch or batch
        for number, outputs in enumerate(self.answers):
            options = self.staged.options[number * batch : (number + 1) * batch]
            found += self._of_piece(outputs, options, batch, (height, width))
        finished_s = time.perf_counter() - began
        return BatchResult(tuple(found), self.staged.staged_s, self.inference_s, finished_s)

    def _of_piece(
        self, outputs: Outputs, options: Sequence[NmsOptions], batch: int, size: tuple[int, int]
    ) -> tuple[Candidates, ...]:
        """The candidates of images that have options; those that fill the batch up have none."""
        model = self.staged.model
        if model.manifest.task != heads.DETECT:
            return exported_heads.candidates(model.head, outputs, options)
        classes = len(model.manifest.class_names)
        read = layouts.decode(model.graph.layout, outputs, classes, batch, size)
        if isinstance(read, layouts.Final):
            read = layouts.Final(read.rows[: len(options)])
        return layouts.candidates(read, options)


def _too_large(images: Sequence[U8] | U8, error: Exception) -> OutOfMemory:
    height, width = images[0].shape[:2]
    return OutOfMemory(
        f"{len(images)} images of {width}x{height} do not fit beside the models: send smaller ones "
        f"or release a model: {cause_of(error)}"
    )


def cause_of(error: Exception) -> str:
    """The first line of a runtime's error; of a long one the end, before which ONNX Runtime names
    the functions of its own that it came through.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _MAX_CAUSE else f"...{line[-_MAX_CAUSE:]}"
