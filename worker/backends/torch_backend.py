"""The model library's modules run by torch, on a CPU or on the one CUDA device of this process.

Gives what the library's `predict` gives: same input tensor, same layout of the weights, same
suppression. A module is built and run on the device thread only: its head caches anchors.
"""

import atexit
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import torch

from worker.backends import nms, skeleton
from worker.backends.base import U8, BatchResult, Candidates, DeviceMemory, NmsOptions
from worker.packs import Pack
from yolopool.errors import InferenceFailed, InvalidOption, LoadFailed, OutOfMemory, PackInvalid
from yolopool.v1.pack_pb2 import PackManifest
from yolopool.v1.types_pb2 import HEAD_MODE_END_TO_END

_PIXEL_BYTES = 3 * (1 + 4)  # the uint8 input and its float32 copy
_KEPT_ARCHITECTURES = 64
_MOST_PEAKS = 256


class TorchBackend:
    """`device` is cpu or cuda:0; `compute_threads` is for the CPU, 0 leaves torch's choice."""

    name = "torch"

    def __init__(self, device: str, compute_threads: int = 0) -> None:
        self.device = torch.device(device)
        self._threads = compute_threads
        self._context_bytes = 0
        self._architectures: dict[str, _Architecture] = {}

    @property
    def device_kind(self) -> str:
        return self.device.type

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _cpu_name()

    def open(self) -> int:
        """Takes the device and imports the library's layers; returns the context's bytes: what
        this process has resident on a CPU, what the CUDA context took of the device.
        """
        if self._threads:
            torch.set_num_threads(self._threads)
        _import_library()
        if self.device.type == "cuda":
            of_others_bytes = _nvml_used_bytes(self.device)
            torch.cuda.set_device(self.device)
            # The libraries that every model needs belong to the context, not to the first model.
            square = torch.zeros(1, 8, 32, 32, device=self.device)
            torch.nn.functional.conv2d(square, torch.zeros(8, 8, 3, 3, device=self.device))
            torch.cuda.synchronize(self.device)
            del square
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self.device)
            reserved = torch.cuda.memory_reserved(self.device)
            self._context_bytes = max(0, total - free - of_others_bytes - reserved)
        else:
            # Likewise the threads and buffers of the first pass.
            with torch.inference_mode():
                torch.nn.functional.conv2d(torch.zeros(1, 8, 64, 64), torch.zeros(8, 8, 3, 3))
        return self.memory().used_bytes

    def load(self, pack: Pack, precision: str) -> "TorchModel":
        """Binds a pack: on a CPU to the pack's own memory, on CUDA to one copy of it."""
        if precision != "fp32":
            raise InvalidOption(f"precision {precision!r} is not built here: use fp32")
        message = ""
        try:
            return TorchModel(self, pack)
        except torch.OutOfMemoryError as error:
            message = str(error)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise LoadFailed(f"the pack can't be put on {self.device}: {error}") from error
        self.reclaim()
        raise OutOfMemory(
            f"{pack.manifest.weights_bytes} bytes do not fit {self.device}: {message}"
        )

    def architecture(self, pack: Pack) -> "_Architecture":
        """The skeleton of a pack, built once; those that no model uses go, oldest first."""
        key = pack.manifest.architecture_key
        known = self._architectures.get(key)
        if known is None:
            idle = [k for k, one in self._architectures.items() if not one.users]
            for old in idle[: max(0, len(self._architectures) - _KEPT_ARCHITECTURES + 1)]:
                del self._architectures[old]
            known = self._architectures[key] = _Architecture(pack.skeleton)
        return known

    def memory(self) -> DeviceMemory:
        """On a CPU the resident bytes of this process and what the host has available; on CUDA
        the context and what torch's allocator holds, so that the rest in use is others'.
        """
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            used = self._context_bytes + torch.cuda.memory_reserved(self.device)
            return DeviceMemory(used, total, free)
        host = psutil.virtual_memory()
        return DeviceMemory(psutil.Process().memory_info().rss, host.total, host.available)

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Page-locks host memory, so that a copy to the device is one transfer; answers what
        undoes it. Memory that can't be locked stays usable, only slower.
        """
        if self.device.type != "cuda":
            return _nothing
        address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
        runtime = torch.cuda.cudart()
        if int(runtime.cudaHostRegister(address, len(memory), 0)) != 0:
            return _nothing
        return lambda: runtime.cudaHostUnregister(address)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reclaim(self) -> None:
        """Gives cached device memory back to the driver, so that others and `memory` see it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        self._architectures.clear()
        self.reclaim()


class _Architecture:
    """A skeleton with its head made ready, shared by all models of the architecture: whoever
    runs binds its weights first.
    """

    def __init__(self, text: bytes) -> None:
        self.skeleton = skeleton.Skeleton(text)
        self.module: Any = self.skeleton.module
        self.head = _head(self.module)
        self.head.export = True  # only the answer; the feature maps may go
        self.end_to_end = bool(self.head.end2end)
        if self.end_to_end:
            # Limits differ from image to image: taken out here, applied to each in `_final`.
            self.head.postprocess = _unchanged
        self.users = 0
        # Measured working memory by pixels of a pass; CUDA alone tells it.
        self.peaks: dict[int, int] = {}
        self._bound: object = None

    def bind(self, owner: object, tensors: Sequence[torch.Tensor]) -> None:
        if self._bound is not owner:
            self.skeleton.bind(tensors)
            self._bound = owner

    def unbind(self, owner: object) -> None:
        if self._bound is owner:
            self.skeleton.unbind()
            self._bound = None


class TorchModel:
    """Weights on the device, as views for the skeleton of their architecture."""

    def __init__(self, backend: TorchBackend, pack: Pack) -> None:
        self._backend = backend
        self._manifest: PackManifest = pack.manifest
        self._shared = backend.architecture(pack)
        if self._shared.end_to_end != (pack.manifest.head_mode == HEAD_MODE_END_TO_END):
            raise PackInvalid("the pack's head is not of its head_mode: import the model again")
        flat = torch.frombuffer(pack.weights_buffer, dtype=torch.uint8)
        if backend.device.type == "cuda":
            flat = flat.to(backend.device, non_blocking=True)  # at once if the memory is pinned
        self._tensors = self._shared.skeleton.views(pack.places, flat)
        self._shared.users += 1

    @property
    def weights_bytes(self) -> int:
        return self._manifest.weights_bytes

    @property
    def private_bytes(self) -> int:
        return 0  # what is kept for passes is its architecture's, and counted as workspace

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        """Live activations by the import's measurement, and the input in both forms; on CUDA the
        peak of a pass of this size or, by pixels, of the largest that ran.
        """
        pixels = shape[0] * shape[1] * batch
        largest = max(self._shared.peaks, default=0)
        if largest:
            known = self._shared.peaks.get(pixels)
            return known or -(-self._shared.peaks[largest] * pixels // largest)
        return pixels * self._manifest.activation_bytes_per_megapixel // 10**6 + (
            pixels * _PIXEL_BYTES
        )

    def run(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> BatchResult:
        if not self._tensors:
            raise ValueError("this model was closed")
        classes = len(self._manifest.class_names)
        if any(len(one.class_confidence) != classes for one in options):
            raise InvalidOption(f"class_confidence must have {classes} values, one a class")
        try:
            with torch.inference_mode(), self._measured(images):
                return self._run(images, options)
        except torch.OutOfMemoryError as error:
            message = str(error)
        except RuntimeError as error:
            # The CPU's allocator raises no type of its own.
            if "allocate memory" not in str(error):
                raise InferenceFailed(f"the forward pass failed: {error}") from error
            message = str(error)
        # Out of the handlers, whose traceback held the tensors of the pass.
        self._backend.reclaim()
        raise OutOfMemory(
            f"{len(images)} images of {images[0].shape[1]}x{images[0].shape[0]} do not fit beside "
            f"the models on {self._backend.device}: send smaller ones or release a model: {message}"
        )

    def close(self) -> None:
        """Drops the weights. On a CPU they are the pack's memory, which goes with `Pack.close`."""
        if self._tensors:
            self._shared.unbind(self)
            self._shared.users -= 1
            self._tensors = []
            self._backend.reclaim()

    @contextmanager
    def _measured(self, images: Sequence[U8]) -> Iterator[None]:
        """Notes the working memory of the first pass of a size, where the device tells it."""
        device = self._backend.device
        pixels = images[0].shape[0] * images[0].shape[1] * len(images)
        if device.type != "cuda" or pixels in self._shared.peaks:
            yield
            return
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield
        if len(self._shared.peaks) < _MOST_PEAKS:
            self._shared.peaks[pixels] = torch.cuda.max_memory_allocated(device) - before

    def _run(self, images: Sequence[U8], options: Sequence[NmsOptions]) -> BatchResult:
        started = time.perf_counter()
        self._shared.bind(self, self._tensors)
        batch = self._input(images)
        self._backend.synchronize()
        ready = time.perf_counter()
        prediction = self._shared.module(batch)
        self._backend.synchronize()
        done = time.perf_counter()
        candidates = self._candidates(prediction, options)
        return BatchResult(candidates, ready - started, done - ready, time.perf_counter() - done)

    def _input(self, images: Sequence[U8]) -> torch.Tensor:
        """uint8 BGR HWC to float32 RGB NCHW in 0..1: BasePredictor.preprocess of ultralytics."""
        pixels = torch.from_numpy(np.stack(images)).to(self._backend.device)
        return pixels.permute(0, 3, 1, 2).contiguous().flip(1).float().div_(255)

    def _candidates(
        self, prediction: torch.Tensor, options: Sequence[NmsOptions]
    ) -> tuple[Candidates, ...]:
        if not self._shared.end_to_end:
            return nms.one_to_many(prediction, options)
        return tuple(self._final(prediction[i : i + 1], one) for i, one in enumerate(options))

    def _final(self, prediction: torch.Tensor, options: NmsOptions) -> Candidates:
        head = self._shared.head
        # As BasePredictor does it: never fewer than the head gives by itself.
        head.max_det, head.agnostic_nms = max(options.max_detections, 300), options.agnostic
        rows = type(head).postprocess(head, prediction)[0]
        return nms.end_to_end(rows, options)


def _nothing() -> None:
    """There is nothing to undo."""


def _unchanged(prediction: torch.Tensor) -> torch.Tensor:
    return prediction


def _head(module: Any) -> Any:
    try:
        head = module.model[-1]
    except (AttributeError, TypeError, IndexError) as error:
        raise PackInvalid("the pack's model has no layers: import the model again") from error
    if not hasattr(type(head), "postprocess") or not hasattr(type(head), "end2end"):
        raise PackInvalid(f"the pack's last layer {type(head).__name__} is no detection head")
    return head


def _import_library() -> None:
    """Imports the layers with no network, no installs and its files in a folder that goes."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="yolopool-library-")
        remove: Callable[[str, bool], None] = shutil.rmtree
        atexit.register(remove, folder, True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    import ultralytics.nn.tasks  # noqa: F401 - here, since the variables above are read at import


def _nvml_used_bytes(device: torch.device) -> int:
    try:
        return torch.cuda.device_memory_used(device)
    except Exception:  # NVML is missing or knows no figure (MIG): all that is used counts as ours
        return 0


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a Path's use
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return "CPU"
