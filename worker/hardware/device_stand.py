"""How busy, warm and full the device is, for the request log: on a GPU as NVML says it.

A figure that the device does not give, such as those of a MIG slice, is None.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml

from worker.hardware.xid_events import XidEvents, Xids

# NVML's bits of reasons for lower clocks, in nvml.h; those of an idle GPU or set by its owner are
# no throttling.
_THROTTLED = {
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "thermal",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "thermal",
    pynvml.nvmlClocksEventReasonSwPowerCap: "power",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power",
    pynvml.nvmlClocksEventReasonHwSlowdown: "slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync",
}


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """utilisation: 0..1. clock_ratio: of the multiprocessors' highest clock. `throttled`: why
    clocks are lower than they could be.
    """

    utilisation: float | None = None
    temperature_c: float | None = None
    clock_ratio: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    memory_total_bytes: int | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceStand:
    """The device at one look; see DeviceStand of worker.proto."""

    used_bytes: int = 0
    free_bytes: int = 0
    utilisation: float = 0.0
    gpu: GpuFigures = GpuFigures()
    host_load: float | None = None
    # None: this device has none, or its driver does not tell.
    xids: Xids | None = None


class DeviceObserver:
    """`device` is the id of the worker's device; `busy_s`: seconds of all passes so far."""

    def __init__(
        self, device: str, busy_s: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        kind, _, self._uuid = device.partition(":")
        self._is_gpu = kind == "cuda"
        self._busy_s, self._clock = busy_s, clock
        self._busy_before_s, self._looked_s = 0.0, clock()
        self._xids = XidEvents(self._uuid)

    def look(self, used_bytes: int, free_bytes: int) -> DeviceStand:
        """How the device is now; its use since the last look. NVML may take its time."""
        busy_s, now = self._busy_s(), self._clock()
        used = (busy_s - self._busy_before_s) / max(now - self._looked_s, 1e-6)
        self._busy_before_s, self._looked_s = busy_s, now
        gpu = gpu_figures(self._uuid) if self._is_gpu else GpuFigures()
        utilisation = min(1.0, used) if gpu.utilisation is None else gpu.utilisation
        xids = self._xids.look() if self._is_gpu else None
        return DeviceStand(used_bytes, free_bytes, utilisation, gpu, host_load(), xids)


def gpu_figures(uuid: str) -> GpuFigures:
    """What NVML says of a GPU or a slice. Nothing where there is no NVML."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return GpuFigures()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        clock = _said(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
        highest = _said(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM)
        rates = _said(pynvml.nvmlDeviceGetUtilizationRates, handle)
        power_mw = _said(pynvml.nvmlDeviceGetPowerUsage, handle)
        limit_mw = _said(pynvml.nvmlDeviceGetPowerManagementLimit, handle)
        memory = _said(pynvml.nvmlDeviceGetMemoryInfo, handle)
        energy_mj = _said(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        reasons = _said(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
        return GpuFigures(
            None if rates is None else rates.gpu / 100,
            _said(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
            clock / highest if clock and highest else None,
            None if power_mw is None else power_mw / 1000,
            None if limit_mw is None else limit_mw / 1000,
            None if energy_mj is None else energy_mj / 1000,
            None if memory is None else memory.total,
            tuple(sorted({word for bit, word in _THROTTLED.items() if reasons & bit})),
        )
    except pynvml.NVMLError:
        return GpuFigures()
    finally:
        pynvml.nvmlShutdown()


def _said(call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None


def host_load(proc: Path = Path("/proc")) -> float | None:
    """Threads that run or want to, for each core of the host; None: the kernel does not say."""
    try:
        running, _, _ = (proc / "loadavg").read_text().split()[3].partition("/")
        return int(running) / (os.cpu_count() or 1)
    except (OSError, IndexError, ValueError):
        return None
