"""What processes cost, read from outside: CPU seconds and memory from Linux's /proc.

Nothing is asked of the measured processes. Counters are cumulative, so two readings give the
exact cost of what lies between; there is no sampling thread to disturb the run.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. RSS counts shared pages in full in every process, PSS a fair share of them: sum PSS
    over processes, never RSS. `private` would be given back if the process ended."""

    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    # RSS without the pages of files, which the kernel can drop: what a worker's budget bounds.
    own_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the process table shows it."""

    pid: int
    parent: int
    command: tuple[str, ...]


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far, in s (resolution: a tick, mostly 10 ms).

    Children count only once they are reaped, so they are left out: list them as processes.
    Raises ProcessLookupError when it is gone.
    """
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def cpu_seconds_of_ended(pid: int) -> float:
    """The same of those children that it has waited for, and of theirs."""
    fields = _stat_fields(pid)
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_S


def memory(pid: int) -> Memory:
    """Memory of a process from smaps_rollup. Raises ProcessLookupError when it is gone."""
    kib: dict[str, int] = {}
    for line in _read(pid, "smaps_rollup").splitlines()[1:]:
        name, value = line.split(":")
        kib[name] = int(value.split()[0])
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    status = (line.split(":") for line in _read(pid, "status").splitlines() if ":" in line)
    own = sum(int(text.split()[0]) for name, text in status if name in ("RssAnon", "RssShmem"))
    return Memory(kib["Rss"] * 1024, kib["Pss"] * 1024, private * 1024, own * 1024)


def descendants(root: int) -> tuple[Process, ...]:
    """`root` and all processes below it, parents before children."""
    table: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                table.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(int(entry.name))
            except ProcessLookupError:
                continue  # ended while we looked
    found: list[Process] = []
    waiting = [(root, 0)]
    while waiting:
        pid, parent = waiting.pop(0)
        try:
            command = tuple(_read(pid, "cmdline").rstrip("\0").split("\0"))
        except ProcessLookupError:
            continue
        found.append(Process(pid, parent, command))
        waiting += [(child, pid) for child in sorted(table.get(pid, []))]
    return tuple(found)


def in_sessions(leaders: Collection[int]) -> tuple[int, ...]:
    """Living processes of the sessions that these pids began: children too whose parent is gone."""
    found: list[int] = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session = _stat_fields(int(entry.name))[:4]
            except ProcessLookupError:
                continue  # ended while we looked
            if int(session) in leaders and state not in ("Z", "X"):
                found.append(int(entry.name))
    return tuple(sorted(found))


class CpuMeter:
    """Reads the CPU time of processes at each `read`, and answers what was used between reads."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._readings: list[dict[int, float]] = []

    def read(self) -> None:
        """Reads every process once; one that has ended keeps what it had."""
        last: Mapping[int, float] = self._readings[-1] if self._readings else {}
        reading: dict[int, float] = {}
        for pid in self._pids:
            try:
                reading[pid] = cpu_seconds(pid)
            except ProcessLookupError:
                reading[pid] = last.get(pid, 0.0)
        self._readings.append(reading)

    def used_s(self) -> dict[int, float]:
        """CPU seconds by pid between the first and the last reading."""
        if len(self._readings) < 2:
            raise ValueError("a meter needs two readings: read it before and after the load")
        first, last = self._readings[0], self._readings[-1]
        return {pid: last[pid] - first[pid] for pid in self._pids}


def by_role(
    figures: Mapping[int, float], roles: Mapping[str, Sequence[int]], requests: int
) -> dict[str, float]:
    """Sums figures by role and divides by requests, e.g. CPU s by pid into CPU s per request."""
    if requests <= 0:
        raise ValueError("no cost per request: no request finished in the window")
    return {role: sum(figures[pid] for pid in pids) / requests for role, pids in roles.items()}


def _stat_fields(pid: int) -> list[str]:
    # From field 3 (state): the name before it is in parentheses and may hold anything.
    return _read(pid, "stat").rpartition(")")[2].split()


def _read(pid: int, name: str) -> str:
    try:
        text = (PROC / str(pid) / name).read_text(errors="replace")
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {pid} has ended") from error
    if not text and name != "cmdline":
        raise ProcessLookupError(f"process {pid} has ended")  # a zombie's file is empty
    return text
