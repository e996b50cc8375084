"""One model run by torch, in three stages: images to the device, the forward pass, NMS.

On CUDA each stage has its own stream, and only `finish` waits for the device, once. The finish
thread touches only what its pass left it.
"""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from worker.arrays import F32, I64, U8
from worker.backends.base import BatchResult
from worker.backends.pytorch.architecture import Architecture, Output
from worker.backends.pytorch.capture_policy import GraphKey
from worker.backends.pytorch.runtime import TorchRuntime
from worker.backends.pytorch.streams import Streams
from worker.packs.manifest import channels_of
from worker.packs.pack import Pack
from worker.postprocess import heads
from worker.postprocess.outputs import Candidates, NmsOptions
from yolopool.errors import InferenceFailed, InvalidOption, OutOfMemory

# Batch sizes whose peak of memory is kept.
_MAX_PEAKS = 256


class TorchModel:
    """Weights on the device, as views for the skeleton of their architecture."""

    def __init__(self, runtime: TorchRuntime, pack: Pack, dtype: torch.dtype) -> None:
        self._runtime = runtime
        self.dtype = dtype
        self.shared: Architecture = runtime.architecture(pack)
        self._manifest = pack.manifest
        self._channels = channels_of(pack.manifest)
        self.shared.check(pack.manifest)
        flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
        if runtime.device.type == "cuda":
            flat = flat.to(runtime.device, non_blocking=True)  # at once if the memory is pinned
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
        return 0  # what passes keep belongs to the architecture, and counts as workspace

    @property
    def uses_host_memory(self) -> bool:
        return self._runtime.device.type == "cpu" and self.dtype == torch.float32

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """On CUDA the measured peak of a pass of this size, else that of the largest pass, scaled
        by pixels. On a CPU, and before any was measured: the activations as the import measured
        them, and the input in both forms.
        """
        pixels = shape[0] * shape[1] * batch
        peaks = {
            size: peak for (dtype, size), peak in self.shared.peaks.items() if dtype == self.dtype
        }
        largest = max(peaks, default=0)
        if largest:
            return peaks.get(pixels) or -(-peaks[largest] * pixels // largest)
        # The manifest's figure is for float32.
        activations = pixels * self._manifest.activation_bytes_per_megapixel // 10**6
        return activations * self.dtype.itemsize // 4 + pixels * 3 * (1 + self.dtype.itemsize)

    def stage(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> "_Staged":
        if not self.tensors:
            raise ValueError("this model was closed")
        classes = len(self._manifest.class_names)
        if any(len(image_options.class_confidence) != classes for image_options in options):
            raise InvalidOption(f"class_confidence must have {classes} values, one a class")
        streams = self._runtime.streams
        with self._guarded(images), streams.copying():
            pixels = streams.host((len(images), *images[0].shape), torch.uint8)
            rows = pixels.numpy()
            for row, image in zip(rows, images, strict=True):
                if self._channels == 3:
                    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=row)
                else:
                    np.copyto(row, image)
            began = streams.mark()
            pixels = streams.to_device(pixels, self._runtime.device)
            return _Staged(self, images, pixels, options, began, streams.mark())

    def forward(self, staged: "_Staged") -> "_Raw":
        streams = self._runtime.streams
        with torch.inference_mode(), self._guarded(staged.images), self._measured(staged.pixels):
            streams.after(staged.copied, staged.pixels)
            began = streams.mark()
            prediction = self._predict(staged.pixels)
            answer = self._answer(prediction, staged.options)
            ended = streams.mark()
            answer, fetched = answer.fetched(streams, ended)
        marks = (staged.began, staged.copied, began, ended)
        return _Raw(self.shared.head, streams, answer, staged.options, marks, fetched)

    def self_test(self) -> str:
        return ""

    def close(self) -> None:
        """Drops the weights. On a CPU they are the pack's memory, which `Pack.close` frees."""
        if self.tensors:
            self.shared.unbind(self)
            self.shared.users -= 1
            self._runtime.graphs.closed(self.tensors)
            self.tensors = []
            self._runtime.empty_cache(of_weights=not self.uses_host_memory)

    def _predict(self, pixels: torch.Tensor) -> Output:
        """float32 (batch, 4 + nc + extra, n); for an end-to-end head (batch, n, 4 + nc + extra).
        For segment also the prototypes (batch, nm, h, w), for classify (batch, nc), both in the
        type that layers compute in.
        """
        prediction = self._replayed(pixels) if self._runtime.graphs.enabled else None
        if prediction is None:
            self.shared.bind(self, self.tensors)
            prediction = self._forward(pixels)
        return prediction

    def _replayed(self, pixels: torch.Tensor) -> Output | None:
        """The prediction of a graph, if the capture policy wants one."""
        return self._runtime.graphs.run(
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
        """Runs the weights that are bound; does nothing that a graph can't capture."""
        prediction: Output = self.shared.module(self._input(pixels))
        return prediction

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 NHWC to NCHW in 0..1: BasePredictor.preprocess of ultralytics. The byte layout
        stays, since convolutions with such weights want it.
        """
        # 0..255 are exact in all three types.
        return pixels.permute(0, 3, 1, 2).to(self.dtype).div_(255)

    def _answer(self, output: Output, options: Sequence[NmsOptions]) -> "_Answer":
        """The part of an output that the host needs, in tensors of its own, since a graph
        overwrites the output. Their sizes are known beforehand, so nothing waits for the device.
        """
        prediction, prototypes = output if isinstance(output, tuple) else (output, None)
        self.shared.check_answer(prediction, prototypes)
        if not any(image_options.masks for image_options in options):
            prototypes = None
        if prototypes is not None and prototypes.is_cuda:
            prototypes = prototypes.clone()
        head = self.shared.head
        if head.task == heads.CLASSIFY:
            return _Answer(prediction.to(torch.float32, copy=True))
        if self.shared.end_to_end:
            rows = [
                self.shared.best(prediction[number : number + 1], image_options)
                for number, image_options in enumerate(options)
            ]
            counts = tuple(map(len, rows))
            return _Answer(torch.cat(rows), counts, prototypes=prototypes)
        boxes, scores, extra = prediction.tensor_split((4, 4 + head.classes), dim=1)
        if prediction.is_cuda:
            confidence, classes = (values[:, None] for values in scores.max(1))
            answer = torch.cat((boxes, confidence, classes.float(), extra), 1)
            return _Answer(answer, prototypes=prototypes)
        # On a CPU nothing is copied, and only the few rows above a threshold need their classes.
        best = scores.amax(1, keepdim=True)
        return _Answer(torch.cat((boxes, best), 1), (), scores, extra, prototypes)

    @contextmanager
    def _guarded(self, images: Sequence[U8]) -> Iterator[None]:
        """Maps the errors of torch to ours; out of memory, cached memory is freed first."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(images, error) from None
        except RuntimeError as error:
            # The CPU's allocator has no error type of its own.
            if "allocate memory" not in str(error):
                raise InferenceFailed(f"the forward pass failed: {error}") from error
            raise self._out_of_memory(images, error) from None

    def _out_of_memory(self, images: Sequence[U8], error: RuntimeError) -> OutOfMemory:
        # Frames hold the tensors of the pass for as long as somebody holds the error. Callers hold
        # it longer than the pass, and the tensors' memory could not be given back.
        traceback.clear_frames(error.__traceback__)
        self._runtime.reclaim()
        return OutOfMemory(
            f"{len(images)} images of {images[0].shape[1]}x{images[0].shape[0]} do not fit beside "
            f"the models on {self._runtime.device}: send smaller ones or release a model: {error}"
        )

    @contextmanager
    def _measured(self, pixels: torch.Tensor) -> Iterator[None]:
        """Notes the working memory of the first pass of each size, on CUDA."""
        device, size = self._runtime.device, (self.dtype, pixels.numel() // self._channels)
        if device.type != "cuda" or size in self.shared.peaks:
            yield
            return
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield
        if len(self.shared.peaks) < _MAX_PEAKS:
            # The input of the next pass may be there already, beside its own.
            peak = torch.cuda.max_memory_allocated(device) - before
            self.shared.peaks[size] = peak + 2 * pixels.nbytes


@dataclass(frozen=True, slots=True)
class _Staged:
    """pixels: uint8 (batch, height, width, channels) on the device, RGB or grey."""

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
    """rows, in float32:
    - end-to-end head: the final rows (k, 6 + extra) of all images, `counts` of each;
    - classify: probabilities (batch, nc);
    - else (batch, 6 + extra, n) of boxes, confidence, class and extra values; or, with `scores`
      (batch, nc, n) and `extra` (batch, extra, n), (batch, 5, n) of boxes and confidence.
    prototypes: (batch, nm, h, w), if masks are wanted.
    """

    rows: torch.Tensor
    counts: tuple[int, ...] = ()
    scores: torch.Tensor | None = None
    extra: torch.Tensor | None = None
    prototypes: torch.Tensor | None = None

    def fetched(self, streams: Streams, ended: Any) -> "tuple[_Answer, Any]":
        """A copy on the host, and the mark to wait for."""
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
