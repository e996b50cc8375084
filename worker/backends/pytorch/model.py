"""One model run by torch, in three stages: images to the device, the forward pass, suppression.

On CUDA each stage has a stream of its own, and nothing waits for the device but `finish`, once.
The finishing thread touches only what its pass left it.
"""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from worker.arrays import F32, I64
from worker.backends.base import U8, BatchResult
from worker.backends.pytorch.architecture import Architecture, Output
from worker.backends.pytorch.capture_policy import GraphKey
from worker.packs.pack import Pack
from worker.postprocess import heads
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed, InvalidOption, OutOfMemory

if TYPE_CHECKING:
    from worker.backends.pytorch.backend import TorchBackend
from worker.backends.pytorch.streams import Streams

_MOST_PEAKS = 256


class TorchModel:
    """Weights on the device, as views for the skeleton of their architecture."""

    def __init__(self, backend: "TorchBackend", pack: Pack, dtype: torch.dtype) -> None:
        self.backend = backend
        self.dtype = dtype
        self.shared: Architecture = backend.architecture(pack)
        self._manifest = pack.manifest
        self.shared.check(pack.manifest)
        flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
        if backend.device.type == "cuda":
            flat = flat.to(backend.device, non_blocking=True)  # at once if the memory is pinned
        tensors = self.shared.skeleton.views(pack.places, flat)
        self.weights_bytes = pack.manifest.weights_bytes
        if dtype != torch.float32:
            tensors = [
                tensor.to(dtype, copy=True)
                if tensor.dtype == torch.float32 and index not in self.shared.exact
                else tensor.clone()
                for index, tensor in enumerate(tensors)
            ]
            self.weights_bytes = sum(tensor.nbytes for tensor in tensors)
        self.tensors = tensors
        self.shared.users += 1

    @property
    def private_bytes(self) -> int:
        return 0  # what is kept for passes is its architecture's, and counted as workspace

    @property
    def uses_host_memory(self) -> bool:
        return self.backend.device.type == "cpu" and self.dtype == torch.float32

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """Live activations by the import's measurement, and the input in both forms; on CUDA the
        peak of a pass of this size or, by pixels, of the largest that ran.
        """
        pixels = shape[0] * shape[1] * batch
        peaks = {
            size: peak for (dtype, size), peak in self.shared.peaks.items() if dtype == self.dtype
        }
        largest = max(peaks, default=0)
        if largest:
            return peaks.get(pixels) or -(-peaks[largest] * pixels // largest)
        # The manifest's figure is of float32.
        activations = pixels * self._manifest.activation_bytes_per_megapixel // 10**6
        return activations * self.dtype.itemsize // 4 + pixels * 3 * (1 + self.dtype.itemsize)

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> "_Staged":
        if not self.tensors:
            raise ValueError("this model was closed")
        classes = len(self._manifest.class_names)
        if any(len(one.class_confidence) != classes for one in options):
            raise InvalidOption(f"class_confidence must have {classes} values, one a class")
        streams = self.backend.streams
        with self._guarded(images), streams.copying():
            pixels = streams.host((len(images), *images[0].shape), torch.uint8)
            rows = pixels.numpy()
            for row, image in zip(rows, images, strict=True):
                cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=row)
            began = streams.mark()
            pixels = streams.bring(pixels, self.backend.device)
            return _Staged(self, images, pixels, options, began, streams.mark())

    def forward(self, staged: "_Staged") -> "_Raw":
        streams = self.backend.streams
        with torch.inference_mode(), self._guarded(staged.images), self._measured(staged.pixels):
            streams.after(staged.copied, staged.pixels)
            began = streams.mark()
            prediction = self._predict(staged.pixels)
            answer = self._answer(prediction, staged.options)
            ended = streams.mark()
            answer, fetched = answer.fetched(streams, ended)
        marks = (staged.began, staged.copied, began, ended)
        return _Raw(self.shared.head, streams, answer, staged.options, marks, fetched)

    def close(self) -> None:
        """Drops the weights. On a CPU they are the pack's memory, which goes with `Pack.close`."""
        if self.tensors:
            self.shared.unbind(self)
            self.shared.users -= 1
            self.backend.graphs.closed(self.tensors)
            self.tensors = []
            self.backend.empty_cache(of_weights=not self.uses_host_memory)

    def _predict(self, pixels: torch.Tensor) -> Output:
        """float32 (batch, 4 + nc + extra, n) or, of an end-to-end head, the last two the other way
        round. Of segment with prototypes (batch, nm, h, w), of classify (batch, nc), as layers
        compute.
        """
        prediction = self._replayed(pixels) if self.backend.graphs.enabled else None
        if prediction is None:
            self.shared.bind(self, self.tensors)
            prediction = self._forward(pixels)
        return prediction

    def _replayed(self, pixels: torch.Tensor) -> Output | None:
        """The prediction by a graph, if one is to run it."""
        return self.backend.graphs.run(
            self._kind(pixels),
            self.shared,
            self.tensors,
            pixels,
            self._forward,
            self.workspace_bytes((pixels.shape[1], pixels.shape[2]), len(pixels)),
        )

    def _kind(self, pixels: torch.Tensor) -> GraphKey:
        batch, height, width, _ = pixels.shape
        return GraphKey(self._manifest.architecture_key, str(self.dtype), (height, width), batch)

    def _forward(self, pixels: torch.Tensor) -> Output:
        """By whatever weights are bound; no more than a graph can capture."""
        prediction: Output = self.shared.module(self._input(pixels))
        return prediction

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 RGB NHWC to NCHW in 0..1: BasePredictor.preprocess of ultralytics. The layout of
        the bytes stays, since convolutions of such weights want it.
        """
        # 0..255 are exact in all three types.
        return pixels.permute(0, 3, 1, 2).to(self.dtype).div_(255)

    def _answer(self, output: Output, options: Sequence[NmsOptions]) -> "_Answer":
        """What is left to do on the host needs of an output, in tensors of its own, since a graph
        overwrites it; their sizes are known beforehand, so that nothing waits for the device.
        """
        prediction, prototypes = output if isinstance(output, tuple) else (output, None)
        self.shared.check_answer(prediction, prototypes)
        if not any(one.masks for one in options):
            prototypes = None
        if prototypes is not None and prototypes.is_cuda:
            prototypes = prototypes.clone()
        head = self.shared.head
        if head.task == heads.CLASSIFY:
            return _Answer(prediction.to(torch.float32, copy=True))
        if self.shared.end_to_end:
            rows = [self.shared.best(prediction[i : i + 1], one) for i, one in enumerate(options)]
            counts = tuple(len(one) for one in rows)
            return _Answer(torch.cat(rows), counts, prototypes=prototypes)
        boxes, scores, extra = prediction.tensor_split((4, 4 + head.classes), dim=1)
        if prediction.is_cuda:
            confidence, classes = (one[:, None] for one in scores.max(1))
            answer = torch.cat((boxes, confidence, classes.float(), extra), 1)
            return _Answer(answer, prototypes=prototypes)
        # Here nothing is copied, and classes of the few rows above a threshold are cheaper.
        best = scores.amax(1, keepdim=True)
        return _Answer(torch.cat((boxes, best), 1), (), scores, extra, prototypes)

    @contextmanager
    def _guarded(self, images: Sequence[U8]) -> Iterator[None]:
        """Maps what torch raises; memory that is only cached is given back first."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(images, error) from None
        except RuntimeError as error:
            # The CPU's allocator raises no type of its own.
            if "allocate memory" not in str(error):
                raise InferenceFailed(f"the forward pass failed: {error}") from error
            raise self._out_of_memory(images, error) from None

    def _out_of_memory(self, images: Sequence[U8], error: RuntimeError) -> OutOfMemory:
        # Frames hold the tensors of the pass for as long as anybody holds the error: one that is
        # told to callers outlives them, and what is cached could not be given back.
        traceback.clear_frames(error.__traceback__)
        self.backend.reclaim()
        return OutOfMemory(
            f"{len(images)} images of {images[0].shape[1]}x{images[0].shape[0]} do not fit beside "
            f"the models on {self.backend.device}: send smaller ones or release a model: {error}"
        )

    @contextmanager
    def _measured(self, pixels: torch.Tensor) -> Iterator[None]:
        """Notes the working memory of the first pass of a size, where the device tells it."""
        device, size = self.backend.device, (self.dtype, pixels.numel() // 3)
        if device.type != "cuda" or size in self.shared.peaks:
            yield
            return
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield
        if len(self.shared.peaks) < _MOST_PEAKS:
            # Beside its own input, that of the next pass may be there already.
            peak = torch.cuda.max_memory_allocated(device) - before
            self.shared.peaks[size] = peak + 2 * pixels.nbytes


@dataclass(frozen=True, slots=True)
class _Staged:
    """pixels: uint8 RGB (batch, height, width, 3) on the device."""

    model: TorchModel
    images: Sequence[U8]
    pixels: torch.Tensor
    options: Sequence[NmsOptions]
    began: Any
    copied: Any

    def forward(self) -> "_Raw":
        return self.model.forward(self)


@dataclass(frozen=True, slots=True)
class _Answer:
    """rows: float32, final ones of all images, `counts` of each (k, 6 + extra), from an end-to-end
    head; of a model that classifies, its probabilities (batch, nc); else (batch, 6 + extra, n):
    boxes, confidence, class and what is beside, or (batch, 5, n) where `scores` (batch, nc, n) and
    `extra` (batch, extra, n) are at hand. prototypes: (batch, nm, h, w), of masks that are wanted.
    """

    rows: torch.Tensor
    counts: tuple[int, ...] = ()
    scores: torch.Tensor | None = None
    extra: torch.Tensor | None = None
    prototypes: torch.Tensor | None = None

    def fetched(self, streams: Streams, ended: Any) -> "tuple[_Answer, Any]":
        """All of it on the host, and what to wait for."""
        rows, mark = streams.fetch(self.rows, ended)
        prototypes = self.prototypes
        if prototypes is not None:
            prototypes, mark = streams.fetch(prototypes, ended)
        return _Answer(rows, self.counts, self.scores, self.extra, prototypes), mark


@dataclass(frozen=True, slots=True)
class _Raw:
    head: heads.Head
    streams: Streams
    answer: _Answer
    options: Sequence[NmsOptions]
    marks: tuple[Any, Any, Any, Any]
    fetched: Any

    def finish(self) -> BatchResult:
        if self.fetched is not None:
            self.fetched.synchronize()
        done = time.perf_counter()
        candidates = self._candidates()
        began, copied, forward, ended = self.marks
        return BatchResult(
            candidates,
            self.streams.seconds(began, copied),
            self.streams.seconds(forward, ended),
            time.perf_counter() - done,
        )

    def _candidates(self) -> tuple[Candidates, ...]:
        answer, rows = self.answer, _host(self.answer.rows)
        if self.head.task == heads.CLASSIFY:
            return heads.classified(rows)
        prototypes = None if answer.prototypes is None else _host(answer.prototypes)
        if answer.counts:
            finals = np.split(rows, np.cumsum(answer.counts)[:-1])
            return self.head.end_to_end(finals, prototypes, self.options)
        scores: F32 | None = None if answer.scores is None else answer.scores.numpy()
        extra: F32 = rows[:, 6:] if answer.extra is None else answer.extra.numpy()

        def classes(image: int, chosen: I64) -> I64:
            best: I64
            if scores is None:
                best = rows[image, 5, chosen].astype(np.int64)
            else:
                best = scores[image][:, chosen].argmax(0)
            return best

        return self.head.one_to_many(
            rows[:, :4], rows[:, 4], classes, extra, prototypes, self.options
        )


def _host(tensor: torch.Tensor) -> F32:
    """As float32 in numpy, which knows no bfloat16."""
    return np.asarray(tensor.float().numpy(), np.float32)
