"""The model library's modules run by torch, on a CPU or on the one CUDA device of this process.

Gives what the library's `predict` gives: same input tensor, same layout of the weights, same
suppression. A module is built and run on the device thread only.
"""

import atexit
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable

import psutil
import torch

from worker.backends.base import DeviceMemory
from worker.backends.pytorch.architecture import Architecture
from worker.backends.pytorch.cuda_graphs import CudaGraphs
from worker.backends.pytorch.model import TorchModel
from worker.backends.pytorch.streams import Streams
from worker.hardware import allocator, compute_class
from worker.packs.pack import Pack
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory
from yolopool.v1.pack_pb2 import PackManifest

_KEPT_ARCHITECTURES = 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """`device` is cpu or cuda:0; `compute_threads` is for the CPU, 0 leaves torch's choice;
    `graph_bytes` is what captured graphs may take of a CUDA device, 0: there are none.
    """

    name = "torch"

    def __init__(self, device: str, compute_threads: int = 0, graph_bytes: int = 0) -> None:
        self.device = torch.device(device)
        self._threads = compute_threads
        self.graphs = CudaGraphs(graph_bytes if self.device.type == "cuda" else 0)
        self._context_bytes = 0
        self._process = psutil.Process()
        self._architectures: dict[str, Architecture] = {}
        self.streams = Streams(torch.device("cpu"))  # until the device is taken

    @property
    def device_kind(self) -> str:
        return self.device.type

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _cpu_name()

    @property
    def compute_class(self) -> str:
        if self.device.type == "cuda":
            return compute_class.of_cuda(*torch.cuda.get_device_capability(self.device))
        return compute_class.of_host()

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
            self.streams = Streams(self.device)
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
            allocator.keep_freed()
            # Likewise the threads and buffers of the first pass.
            with torch.inference_mode():
                torch.nn.functional.conv2d(torch.zeros(1, 8, 64, 64), torch.zeros(8, 8, 3, 3))
        return self.memory().used_bytes

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        return self.name, precision

    def load(self, pack: Pack, precision: str) -> "TorchModel":
        """Binds a pack: in fp32 on a CPU to the pack's own memory, else to a copy of it.

        Raises InvalidOption for a precision that this device does not compute in.
        """
        dtype = self._dtype(precision)
        message = ""
        try:
            return TorchModel(self, pack, dtype)
        except torch.OutOfMemoryError as error:
            message = str(error)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise LoadFailed(f"the pack can't be put on {self.device}: {error}") from error
        self.reclaim()
        raise OutOfMemory(
            f"{pack.manifest.weights_bytes} bytes do not fit {self.device}: {message}"
        )

    def _dtype(self, precision: str) -> torch.dtype:
        can = ["fp32", *(["bf16"] if self._has_bf16() else [])]
        if self.device.type == "cuda":
            can.append("fp16")
        if precision not in can:
            raise InvalidOption(
                f"precision {precision!r} is not computed on this {self.device.type} device: use "
                + " or ".join(can)
            )
        return DTYPES[precision]

    def _has_bf16(self) -> bool:
        if self.device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def architecture(self, pack: Pack) -> "Architecture":
        """The skeleton of a pack, built once; those that no model uses go, oldest first."""
        key = pack.manifest.architecture_key
        known = self._architectures.get(key)
        if known is None:
            idle = [k for k, one in self._architectures.items() if not one.users]
            for old in idle[: max(0, len(self._architectures) - _KEPT_ARCHITECTURES + 1)]:
                del self._architectures[old]
            known = self._architectures[key] = Architecture(pack.skeleton)
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
        return DeviceMemory(self._process.memory_info().rss, host.total, host.available)

    def in_use_bytes(self) -> int:
        """Of a CUDA device: what all its users have of it."""
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free

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
        """Gives back what can be made again: graphs, and memory that is only cached."""
        self.graphs.drop()
        self.empty_cache(of_weights=True)

    def empty_cache(self, of_weights: bool = False) -> None:
        """Gives cached memory back, so that others and `memory` see it: on a CPU only what a model
        had `of_weights` of its own, since the next pass takes the rest.
        """
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif of_weights:
            allocator.give_back()

    def close(self) -> None:
        self._architectures.clear()
        self.reclaim()


def _nothing() -> None:
    """There is nothing to undo."""


def _import_library() -> None:
    """Imports the layers with no network, no installs and its files in a folder that goes."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="yolopool-library-")
        remove: Callable[[str, bool], None] = shutil.rmtree
        atexit.register(remove, folder, True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    # Else it greets on stdout, which is for whoever started us.
    os.environ.setdefault("YOLO_VERBOSE", "false")
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
