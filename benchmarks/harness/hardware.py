"""What a result was measured on: machine, versions, commit. A figure without it says nothing."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("grpcio", "protobuf", "numpy", "opencv-python", "redis", "torch", "ultralytics")
# Those that decide how fast convolutions run.
FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "amx_int8", "asimd", "sve",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device as its driver names it."""

    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """Machine and software of one result."""

    cpu: str
    cores: int  # this process may use; a container may be given less time than that
    cpu_limit: float | None  # cores of CPU time by the control group, None: no limit
    flags: tuple[str, ...]
    memory_bytes: int
    kernel: str
    python: str
    packages: dict[str, str]
    gpus: tuple[Gpu, ...]
    commit: str
    dirty: bool  # tracked files differ from the commit
    load_average: float  # of the minute before: other work on the machine


def describe() -> Hardware:
    """Looks at this machine, interpreter and checkout."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    known = set(_field(cpuinfo, "flags", "Features").split())
    commit, dirty = _commit()
    return Hardware(
        cpu=_field(cpuinfo, "model name", "CPU part") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        cpu_limit=_cpu_limit(),
        flags=tuple(flag for flag in FLAGS if flag in known),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        python=platform.python_version(),
        packages=_versions(),
        gpus=_gpus(),
        commit=commit,
        dirty=dirty,
        load_average=round(os.getloadavg()[0], 2),
    )


def _field(cpuinfo: str, *names: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def _cpu_limit() -> float | None:
    """CPU quota of the control group (v2, then v1) in cores."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (FileNotFoundError, ValueError):
        folder = Path("/sys/fs/cgroup/cpu")
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except FileNotFoundError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _gpus() -> tuple[Gpu, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()  # no driver: a machine without GPUs
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return tuple(
            Gpu(str(pynvml.nvmlDeviceGetName(h)), pynvml.nvmlDeviceGetMemoryInfo(h).total, driver)
            for h in handles
        )
    finally:
        pynvml.nvmlShutdown()


def _commit() -> tuple[str, bool]:
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown: not a git checkout", True


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
