"""What this process may use of the host: cores, memory, and the processor's name; and how its
threads share the cores with a model that computes on them.

Reads /proc and /sys/fs/cgroup (v1 and v2), since in a container the machine's figures are not the
process's. Both roots are arguments, so that tests can present any host.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from yolopool.server.limits import control_groups

log = structlog.get_logger()
# How much nicer than a pass is what computes beside it on a host without a free core: it gets a
# quarter of a core they share.
BESIDE_NICE = 5
# A thread looks at the host this often before it believes that others keep it busy, or do not.
LOOKS, LOOK_S = 9, 0.002


@dataclass(frozen=True, slots=True)
class Host:
    """Where the kernel describes this process. `share` is its part of the host's memory: less than
    1 if several workers share the host.
    """

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")
    share: float = 1.0
    pci: Path = Path("/sys/bus/pci/devices")
    dev: Path = Path("/dev")

    def allowed(self) -> tuple[int, ...]:
        """Numbers of the cores this process may run on, ascending."""
        return tuple(sorted(os.sched_getaffinity(0)))

    def bind(self, cores: Sequence[int]) -> "Host":
        """Binds this process, and the threads it starts from now on, to some of its cores. Returns
        the host with its memory in proportion to these cores.

        Called before torch is imported, whose threads inherit the binding. Raises OSError for a
        core that is not there.
        """
        share = self.share * len(cores) / len(self.allowed())
        os.sched_setaffinity(0, cores)
        return replace(self, share=share)

    def cores(self) -> int:
        """Cores that this process may keep busy: those of its affinity, within its cgroup quotas.

        A quota of 1.5 cores counts as 1: a second thread would be throttled half of the time, and
        the first would wait for it.
        """
        quotas = control_groups.core_quotas(self.proc, self.cgroups)
        return max(1, min([len(self.allowed()), *map(int, quotas)]))

    def compute_threads(self, max_cores: int | None = None) -> int:
        """Threads of a model's pass on all cores, or on `max_cores` of them. Up to two cores it
        uses all; of more, it leaves one for the other threads.

        With passive OpenMP waiting, two threads on two cores beat one, both alone and beside a busy
        neighbour (benchmarks/results/cpu_threads-*.json).
        """
        cores = min(self.cores(), max_cores or sys.maxsize)
        return cores if cores <= 2 else cores - 1

    def memory_bytes(self) -> int:
        """Memory that this process may use: the machine's, or the lowest limit of its cgroups,
        times its share.
        """
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limits = control_groups.memory_limits(self.proc, self.cgroups)
        return int(min([machine, *limits]) * self.share)

    def cpu_name(self) -> str:
        """The processor's name, or the machine type if it has none."""
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

    def has_nvidia_hardware(self) -> bool:
        """Whether an NVIDIA GPU is on the bus, whether or not a driver serves it."""
        # A display or 3D controller (class 03) of NVIDIA.
        return any(
            _read(device / "vendor") == "0x10de" and _read(device / "class").startswith("0x03")
            for device in (self.pci.iterdir() if self.pci.is_dir() else ())
        )

    def has_nvidia_nodes(self) -> bool:
        """Whether this process is given NVIDIA's driver, by its device node."""
        return (self.dev / "nvidiactl").exists()


def resident_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Resident memory of this process without the files that it maps: those pages are shared, and
    the kernel can drop them. With them in a sandbox that does not tell them apart.
    """
    lines = (line.split() for line in _read(status).splitlines())
    kib = {line[0]: int(line[1]) for line in lines if line and line[0] in ("VmRSS:", "RssFile:")}
    return (kib.get("VmRSS:", 0) - kib.get("RssFile:", 0)) * 1024


def take_turns() -> None:
    """Puts this thread, and those it starts from now on, under SCHED_BATCH: a thread that wakes
    does not preempt another before its time slice of a few milliseconds is over. A preempted pass
    would find its caches cold.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it
        log.info("SCHED_BATCH is not allowed", why=str(error))


def yield_to_passes() -> None:
    """Lowers the priority of this thread for the rest of its life, and of those that it starts: it
    computes beside passes. Under SCHED_IDLE, so in what time they leave of a core, and they preempt
    it at once. Only a privileged process may undo it.

    Niceness does less: a thread under SCHED_BATCH (`take_turns`) waits for the time slice of any
    but an idle one, at each of the many points of a pass where its threads wait for each other. But
    on a host that is kept busy by others, an idle thread would hardly run at all.
    """
    try:
        if others_leave_time():
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    except OSError as error:  # a sandbox may forbid it
        log.info("SCHED_IDLE is not allowed", why=str(error))
    # On Linux niceness belongs to the thread.
    thread = threading.get_native_id()
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, nice + BESIDE_NICE)  # the kernel's limit is 19


def others_leave_time(proc: Path = Path("/proc")) -> bool:
    """Whether other processes leave a core of the host free, in most of a few looks within about
    10 ms: threads of a pass sleep and wake between two files, so that one look counts some of them
    as another's. True if the kernel does not say.
    """
    said = {True: 0, False: 0}
    while True:
        said[_leave_time_now(proc)] += 1
        if 2 * max(said.values()) > LOOKS:
            return said[True] > said[False]
        time.sleep(LOOK_S)


def _leave_time_now(proc: Path) -> bool:
    states = (_read(thread / "stat").rpartition(")")[2] for thread in _threads(proc))
    own = sum(state.split()[:1] == ["R"] for state in states)
    running, _, _ = " ".join(_read(proc / "loadavg").split()[3:4]).partition("/")
    return not running.isdigit() or int(running) - own < (os.cpu_count() or 1)


def _threads(proc: Path) -> Iterator[Path]:
    try:
        yield from (proc / "self" / "task").iterdir()
    except OSError:
        return


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
