"""Runs the model library's modules with torch, on a CPU or on the one CUDA device of this process.

The answers equal those of the library's `predict`: same input tensor, same weight layout, same
NMS. Modules are built and run on the device thread only.
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
from worker.backends.pytorch.model import TorchModel
from worker.backends.pytorch.runtime import TorchRuntime
from worker.hardware import allocator, compute_class
from worker.hardware.host import resident_bytes
from worker.packs.pack import Pack
from yolopool.errors import InvalidOption, LoadFailed, OutOfMemory
from yolopool.v1.pack_pb2 import PackManifest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend:
    """`device` is cpu or cuda:0. `compute_threads` is for the CPU; 0: torch chooses. `graph_bytes`
    bounds the captured graphs of a CUDA device; 0: no graphs.
    """

    name = "torch"

    def __init__(self, device: str, compute_threads: int = 0, graph_bytes: int = 0) -> None:
        self.device = torch.device(device)
        self._threads = compute_threads
        self._runtime = TorchRuntime(self.device, graph_bytes)
        self._context_bytes = 0

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
        """Takes the device and imports the library's layers. Returns the context's bytes: on a CPU
        the resident memory of this process, on CUDA what the context took of the device.
        """
        if self._threads:
            torch.set_num_threads(self._threads)
        _import_library()
        if self.device.type == "cuda":
            others_bytes = _nvml_used_bytes(self.device)
            torch.cuda.set_device(self.device)
            self._runtime.open_streams()
            # Libraries that every model needs count as context, not as the first model's memory.
            square = torch.zeros(1, 8, 32, 32, device=self.device)
            torch.nn.functional.conv2d(square, torch.zeros(8, 8, 3, 3, device=self.device))
            torch.cuda.synchronize(self.device)
            del square
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info(self.device)
            reserved = torch.cuda.memory_reserved(self.device)
            self._context_bytes = max(0, total - free - others_bytes - reserved)
        else:
            allocator.keep_freed()
            # So do the threads and buffers of the first pass.
            with torch.inference_mode():
                torch.nn.functional.conv2d(torch.zeros(1, 8, 64, 64), torch.zeros(8, 8, 3, 3))
        return self.memory().used_bytes

    def variant(self, manifest: PackManifest, precision: str) -> tuple[str, str]:
        return self.name, precision

    def load(self, pack: Pack, precision: str) -> TorchModel:
        """Binds a pack: in fp32 on a CPU to the pack's own memory, else to a copy of it.

        Raises InvalidOption for a precision that this device does not support.
        """
        dtype = self._dtype(precision)
        message = ""
        try:
            return TorchModel(self._runtime, pack, dtype)
        except torch.OutOfMemoryError as error:
            message = str(error)
        except (RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise LoadFailed(f"the pack can't be put on {self.device}: {error}") from error
        self.reclaim()
        raise OutOfMemory(
            f"{pack.manifest.weights_bytes} bytes do not fit {self.device}: {message}"
        )

    def loads_beside(self, manifest: PackManifest) -> None:
        """Torch's modules are built where they run."""

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

    def memory(self) -> DeviceMemory:
        """On a CPU: the resident memory of this process without the files that it maps, and what
        the host has available. On CUDA: the context and what torch's allocator holds; what else is
        in use belongs to others.
        """
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            used = self._context_bytes + torch.cuda.memory_reserved(self.device)
            return DeviceMemory(used, total, free)
        host = psutil.virtual_memory()
        return DeviceMemory(resident_bytes(), host.total, host.available)

    def in_use_bytes(self) -> int:
        """Bytes of a CUDA device that are in use, by whomever."""
        return self._runtime.in_use_bytes()

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Page-locks host memory, so that a copy to the device is one transfer; returns a call that
        undoes it. Memory that can't be locked stays usable, but slower.
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
        """Frees what can be made again: graphs, and cached memory."""
        self._runtime.reclaim()

    def close(self) -> None:
        self._runtime.close()


def _nothing() -> None:
    """There is nothing to undo."""


def _import_library() -> None:
    """Imports the layers: without network or installs, and with its files in a temporary folder."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", ULTRALYTICS_SAFE_LOAD="1")
    if "YOLO_CONFIG_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="yolopool-library-")
        remove: Callable[[str, bool], None] = shutil.rmtree
        atexit.register(remove, folder, True)
        os.environ["YOLO_CONFIG_DIR"] = folder
    # Otherwise it prints to stdout, which our parent process reads.
    os.environ.setdefault("YOLO_VERBOSE", "false")
    import ultralytics.nn.tasks  # noqa: F401 - here: it reads the variables above at import


def _nvml_used_bytes(device: torch.device) -> int:
    try:
        return torch.cuda.device_memory_used(device)
    except Exception:  # NVML is missing or gives no figure (MIG): all memory in use counts as ours
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
