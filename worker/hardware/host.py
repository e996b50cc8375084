"""What this process may use of the host: cores, memory, and the processor's name; and how its
threads share the cores with a model that computes on them.

Reads /proc and /sys/fs/cgroup (v1 and v2), since inside a container the machine's own numbers
are not the process's. Both roots are arguments, so that tests can show any host.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Host:
    """Where the kernel tells about this process; `share` is its part of the host's memory, less
    than 1 for one of several workers of the same host.
    """

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")
    share: float = 1.0

    def allowed(self) -> tuple[int, ...]:
        """Numbers of the cores this process may run on, ascending."""
        return tuple(sorted(os.sched_getaffinity(0)))

    def bind(self, cores: Sequence[int]) -> "Host":
        """Keeps this process, and threads it starts from now on, on these of its cores; answers
        the host as it is for it then, with memory in proportion to the cores.

        Before torch is imported: its threads inherit what they find. Raises OSError for a core
        that is not there.
        """
        share = self.share * len(cores) / len(self.allowed())
        os.sched_setaffinity(0, cores)
        return replace(self, share=share)

    def cores(self) -> int:
        """Cores this process may keep busy: its affinity, less what a cgroup's quota takes.

        A quota of 1.5 cores counts as 1: a second thread would be throttled half of the time,
        and with it the first, which waits for it.
        """
        return max(1, min([len(self.allowed()), *(int(quota) for quota in self._core_quotas())]))

    def compute_threads(self, most: int | None = None) -> int:
        """Threads of a model's pass on all cores, or on `most` of them: all of two, else one core
        left for the rest.

        With OpenMP waiting passive, two threads on two cores beat one alone and beside a busy
        neighbour (benchmarks/results/cpu_threads-*.json).
        """
        cores = min(self.cores(), most or sys.maxsize)
        return cores if cores <= 2 else cores - 1

    def memory_bytes(self) -> int:
        """Memory this process may use: the machine's, or the least limit of its cgroups, times
        its share.
        """
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(min([machine, *self._memory_limits()]) * self.share)

    def cpu_name(self) -> str:
        """As the processor calls itself, or the machine type where it does not."""
        for line in _read(self.proc / "cpuinfo").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
        return os.uname().machine

    def cpu_flags(self) -> frozenset[str]:
        """Extensions that the processor has, as the kernel names them; empty: it names none."""
        for line in _read(self.proc / "cpuinfo").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                return frozenset(value.split())
        return frozenset()

    def _core_quotas(self) -> Iterator[float]:
        for folder in self._folders("cpu"):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            if not quota:
                quota = _read(folder / "cpu.cfs_quota_us")
                period = _read(folder / "cpu.cfs_period_us")
            # v2 says "max" and v1 -1 where there is no quota.
            if quota.isdigit() and period.isdigit() and int(period) > 0:
                yield int(quota) / int(period)

    def _memory_limits(self) -> Iterator[int]:
        for folder in self._folders("memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                limit = _read(folder / name)
                if limit.isdigit():
                    yield int(limit)

    def _folders(self, controller: str) -> Iterator[Path]:
        """This process's cgroup of a controller and all above it: each of them limits."""
        for line in _read(self.proc / "self" / "cgroup").splitlines():
            _, _, rest = line.partition(":")
            names, _, path = rest.partition(":")
            if names and controller not in names.split(","):
                continue
            root = self.cgroups / controller if names else self.cgroups
            # The path is the host's where the container shares its cgroup namespace; then only
            # the mounted root exists, and it is the container's own.
            here = root / path.strip("/")
            while here.is_relative_to(root):
                yield here
                here = here.parent


def take_turns() -> None:
    """Of this thread and those it starts from now on, none that wakes takes its core from another
    before that one's turn, a few milliseconds, is over (SCHED_BATCH): a pass that is interrupted
    finds its caches cold.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it
        log.info("threads do not take turns", why=str(error))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
