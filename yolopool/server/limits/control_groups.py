"""What the control groups of this process leave it of the host: cores and memory, of Linux's
cgroups v1 and v2. In a container the machine's figures are not the process's.

The roots of /proc and /sys/fs/cgroup are arguments, so that tests can present any host.
"""

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def core_quotas(proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[float]:
    """Cores that each group may keep busy, for those that have a quota."""
    for folder in _folders("cpu", proc, cgroups):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota = _read(folder / "cpu.cfs_quota_us")
            period = _read(folder / "cpu.cfs_period_us")
        # Without a quota, v2 has "max" and v1 has -1.
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def memory_limits(proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[int]:
    """Bytes that each group may use, for those that have a limit."""
    for folder in _folders("memory", proc, cgroups):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(folder / name)
            if limit.isdigit():
                yield int(limit)


def _folders(controller: str, proc: Path, cgroups: Path) -> Iterator[Path]:
    """This process's cgroup of a controller and all its parents: the limits of each apply."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        root = cgroups / controller if names else cgroups
        # Where the container shares the host's cgroup namespace the path is the host's. Then
        # only the mounted root exists, and it is the container's own cgroup.
        here = root / path.strip("/")
        while here.is_relative_to(root):
            yield here
            here = here.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
