"""Finds the devices for workers: GPUs and MIG slices by NVML, the CPU, simulated ones.

With `device_stand` the only user of NVML. Never imports torch: each device has the environment that
its process needs before torch is imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pynvml
import structlog

from worker.hardware import allocator, cpu_sets
from worker.hardware.host import Host
from yolopool.errors import InvalidOption

log = structlog.get_logger()

FORMS = (
    "auto, cpu, cpu:<workers>x<cores>, cpu:<first>-<last>, cuda, cuda:GPU-<uuid>, cuda:MIG-<uuid>, "
    "sim:<count>, or several with commas"
)
MAX_SIMULATED = 256
# Kernels that oneDNN keeps on a CPU, up to 90 KB each. A pass has some 50, and each architecture,
# shape and batch size has its own. When 1024, the default, are too few, each pass makes them again.
KERNELS = 2048
# Values of CUDA_VISIBLE_DEVICES that hide all GPUs on purpose; Slurm sets the last one.
HIDDEN = frozenset({"", "-1", "none", "void", "NoDevFiles"})


class BrokenGpu(InvalidOption):
    """A GPU should be usable here and is not; `reason` and code are those of InvalidOption."""


class DeviceNotTaken(OSError):
    """A worker process can't use its device."""

    def __init__(self, device: str, why: object) -> None:
        super().__init__(f"device {device} can't be taken: {why}")


@dataclass(frozen=True, slots=True)
class Device:
    """What one worker process serves.

    `id` is cpu, cpu:<cores>, cuda:GPU-<uuid>, cuda:MIG-<uuid> or sim:N. `memory_bytes` is all its
    memory; 0 for a simulated device, whose budget sets it. `environment` has the variables that its
    process needs before torch is imported.
    """

    kind: str
    id: str
    name: str
    memory_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)


def discover(
    spec: str, environ: Mapping[str, str], *, compute_threads: int = 0, host: Host | None = None
) -> tuple[Device, ...]:
    """The devices that `--devices` names, in order and each once.

    `auto` is every visible GPU or MIG slice, or the CPU where there is no NVIDIA driver or
    CUDA_VISIBLE_DEVICES of `environ`, which restricts them, hides all. `compute_threads` is for the
    CPU; 0: see `Host`. Raises InvalidOption for another form, and for a device that is not there,
    with the reason; BrokenGpu where a GPU should be and none can be used.
    """
    host = host or Host()
    found: dict[str, Device] = {}
    for term in (part.strip() for part in spec.split(",")):
        for device in _devices_of(term, environ, compute_threads, host):
            found.setdefault(device.id, device)
    return tuple(found.values())


def find(
    device_id: str,
    environ: Mapping[str, str],
    *,
    compute_threads: int = 0,
    host: Host | None = None,
) -> Device:
    """The one device that `--device` names: sim:N is number N, cuda is the only GPU.

    Raises InvalidOption.
    """
    if device_id.startswith("sim:"):
        return _simulated(_number(device_id))
    devices = discover(device_id, environ, compute_threads=compute_threads, host=host)
    if len(devices) != 1:
        names = ", ".join(device.id for device in devices)
        raise InvalidOption(f"--device {device_id} means {len(devices)} devices: name one, {names}")
    return devices[0]


def host_of(device_id: str) -> Host:
    """Binds this process to the cores that the id names, if any; returns the host as it may use it.
    Raises InvalidOption, and OSError for cores that are not there.
    """
    kind, _, cores = device_id.partition(":")
    return Host().bind(cpu_sets.parse(cores)) if kind == "cpu" and cores else Host()


def _devices_of(
    term: str, environ: Mapping[str, str], compute_threads: int, host: Host
) -> Sequence[Device]:
    if term == "cpu" or term.startswith("cpu:"):
        return _cpus(term, environ, compute_threads, host)
    if term.startswith("sim:"):
        return [_simulated(number) for number in range(_number(term))]
    if term not in ("auto", "cuda") and not term.removeprefix("cuda:").startswith(("GPU-", "MIG-")):
        raise InvalidOption(f"{term!r} is no device: give {FORMS}")
    gpus, none = _cuda(environ, host)
    if term == "auto":
        if none.is_broken:
            raise BrokenGpu(
                f"the GPU of this machine can't be used: {none.why}; mend that, or ask for "
                "--devices cpu to serve without it"
            )
        if not gpus:
            log.info("no CUDA device, serving the CPU", reason=none.why)
        return gpus or [_cpu(environ, compute_threads, host)]
    return gpus if term == "cuda" and gpus else [_named(term, gpus, none)]


def _named(term: str, gpus: Sequence[Device], none: "_NoGpu") -> Device:
    """The GPU or the slice that a term names. Raises as `discover`."""
    error = BrokenGpu if none.is_broken else InvalidOption
    if term == "cuda":
        raise error(f"no CUDA device: {none.why}; or ask for --devices cpu")
    # In `cuda:GPU-a,GPU-b` the second term has no prefix.
    uuid = term.removeprefix("cuda:")
    for device in gpus:
        if device.id == f"cuda:{uuid}":
            return device
    there = ", ".join(device.id for device in gpus) or f"none, since {none.why}"
    raise error(f"no CUDA device {uuid} here; there are: {there}")


def _number(term: str) -> int:
    text = term.removeprefix("sim:")
    if not text.isdecimal() or int(text) > MAX_SIMULATED:
        raise InvalidOption(f"{term!r} is no simulated device: give sim:N, N up to {MAX_SIMULATED}")
    return int(text)


def _simulated(number: int) -> Device:
    return Device("sim", f"sim:{number}", "simulated", 0, _without_gpu(1))


def _cpus(
    term: str, environ: Mapping[str, str], compute_threads: int, host: Host
) -> Sequence[Device]:
    if term == "cpu":
        return [_cpu(environ, compute_threads, host)]
    found = cpu_sets.sets(term.removeprefix("cpu:"), host.allowed())
    return [_cpu(environ, compute_threads, host, cores) for cores in found]


def _cpu(
    environ: Mapping[str, str], compute_threads: int, host: Host, cores: Sequence[int] = ()
) -> Device:
    """The CPU, or a part of it with its part of the memory."""
    threads = compute_threads or host.compute_threads(len(cores) or None)
    id_ = f"cpu:{cpu_sets.text_of(cores)}" if cores else "cpu"
    share = len(cores) / len(host.allowed()) if cores else 1.0
    memory_bytes = int(host.memory_bytes() * share)
    environment = {
        **_without_gpu(threads),
        **allocator.environment(environ),
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(KERNELS),
    }
    return Device("cpu", id_, host.cpu_name(), memory_bytes, environment)


def _without_gpu(threads: int) -> dict[str, str]:
    # By default OpenMP's threads spin while they wait. Beside a busy neighbour that made a frame
    # six times slower.
    return {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    }


# --- NVML ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Gpu:
    """One GPU, with the handles that can compute: itself, or with MIG its slices."""

    uuid: str
    computing: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _NoGpu:
    """Why there is no CUDA device; `is_broken`: there should be one."""

    why: str = ""
    is_broken: bool = False


def _cuda(environ: Mapping[str, str], host: Host) -> tuple[list[Device], _NoGpu]:
    """All visible CUDA devices, or none and the reason."""
    lost: list[str] = []
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible in HIDDEN:  # whatever the driver would say
        return [], _NoGpu(f"CUDA_VISIBLE_DEVICES={visible!r} hides all GPUs")
    try:
        with _nvml():
            gpus = list(_gpus(lost))
            devices = [
                _device(handle, host)
                for gpu, only in _visible(gpus, visible)
                for handle in gpu.computing
                if only in (None, pynvml.nvmlDeviceGetUUID(handle))
            ]
    except pynvml.NVMLError as error:
        return [], _explain(error, host)
    if devices:
        return devices, _NoGpu()
    if lost:
        return [], _NoGpu(f"no GPU answers: {'; '.join(lost)}", is_broken=True)
    if not gpus:
        why = "the NVIDIA driver is there but shows no GPU to this process"
        # NVIDIA's container runtime gives the driver without a GPU where it is asked for none.
        return [], _NoGpu(why, is_broken=environ.get("NVIDIA_VISIBLE_DEVICES") != "none")
    if visible is not None:
        why = f"CUDA_VISIBLE_DEVICES={visible!r} leaves none of {len(gpus)} GPUs"
        return [], _NoGpu(why, is_broken=True)
    why = "every GPU has MIG enabled and none has a slice: create some with nvidia-smi mig"
    return [], _NoGpu(why, is_broken=True)


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _gpus(lost: list[str]) -> Iterator[_Gpu]:
    """The GPUs that answer; notes why others do not."""
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            computing = tuple(_slices(handle)) if _has_mig(handle) else (handle,)
        except pynvml.NVMLError as error:
            # A GPU that fell off the bus must not take the others out of service.
            log.error("GPU left out", index=index, reason=str(error))
            lost.append(f"GPU {index}: {error}")
            continue
        yield _Gpu(uuid, computing)


def _has_mig(handle: Any) -> bool:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _slices(handle: Any) -> Iterator[Any]:
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except pynvml.NVMLError_NotFound:
            continue  # indices have gaps


def _visible(gpus: Sequence[_Gpu], restriction: str | None) -> Iterator[tuple[_Gpu, str | None]]:
    """The GPUs in CUDA_VISIBLE_DEVICES, in its order, each with the one slice it names or None.

    It is read as CUDA does: indices or UUIDs (a prefix is enough), up to the first that is wrong.
    Indices count in PCI order. An entry for a GPU with MIG means all its slices.
    """
    if restriction is None:
        yield from ((gpu, None) for gpu in gpus)
        return
    for entry in (part.strip() for part in restriction.split(",")):
        match = _match(gpus, entry)
        if match is None:
            return
        yield match


def _match(gpus: Sequence[_Gpu], entry: str) -> tuple[_Gpu, str | None] | None:
    if entry.isdecimal():
        return (gpus[int(entry)], None) if int(entry) < len(gpus) else None
    for gpu in gpus:
        if entry.startswith("GPU-") and gpu.uuid.startswith(entry):
            return gpu, None
        for handle in gpu.computing:
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            if entry.startswith("MIG-") and uuid.startswith(entry):
                return gpu, uuid
    return None


def _device(handle: Any, host: Host) -> Device:
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    memory_bytes = 0
    with suppress(pynvml.NVMLError_NotSupported):
        memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    # Chips that share the host's memory say that they do not support it, or that they have none.
    memory_bytes = memory_bytes or host.memory_bytes()
    return Device(
        "cuda",
        f"cuda:{uuid}",
        pynvml.nvmlDeviceGetName(handle),
        memory_bytes,
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": uuid},
    )


def _explain(error: pynvml.NVMLError, host: Host) -> _NoGpu:
    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        why = "the NVIDIA driver is not installed here (libnvidia-ml.so.1 is missing)"
        if host.has_nvidia_nodes():
            return _NoGpu(f"{why}, though /dev/nvidiactl is here", is_broken=True)
        return _NoGpu(why)
    if isinstance(error, pynvml.NVMLError_DriverNotLoaded):
        why = "the NVIDIA driver is installed but its kernel module is not loaded"
        # Images for GPUs also run on machines that have none.
        return _NoGpu(why, is_broken=host.has_nvidia_hardware())
    if isinstance(error, pynvml.NVMLError_LibRmVersionMismatch):
        why = "the NVIDIA library and kernel module differ in version: reboot or reload the module"
    elif isinstance(error, pynvml.NVMLError_NoPermission):
        why = "the NVIDIA driver refuses this process: give it access to /dev/nvidia*"
    else:
        why = f"the NVIDIA driver says: {error}"
    return _NoGpu(why, is_broken=True)
