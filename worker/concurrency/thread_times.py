"""Processor time of threads: it tells a thread that hangs from one that a busy host starves.

The kernel says how long each thread ran, and how long it waited for a processor (schedstat). Where
it does not say so, all time counts.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """Seconds that a thread has run and has waited for a processor since it began; `runnable`: it
    does one of both now.
    """

    ran_s: float
    waited_s: float
    runnable: bool = False


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that a thread ran and that one waited for a processor, between two looks. A wait that
    began before the first counts as a whole when it ends.
    """

    ran_s: float
    waited_s: float


Times = Mapping[int, ThreadTime]


def spent(before: Times, now: Times, working: Collection[int], elapsed_s: float) -> Spent:
    """What the threads `working`, by their ids, did since the last look.

    If they only slept, no processor would have helped. Else the longest wait of any thread of the
    process counts: one that waits, starved, may hold what a working one sleeps for.
    """
    if not _moved(before, now, working):
        return Spent(0.0, 0.0)
    ran_s = max((_ran_s(before, now, thread) for thread in working), default=0.0)
    waited_s = max((_waited_s(before, now, thread, elapsed_s) for thread in now), default=0.0)
    return Spent(ran_s, waited_s)


def _moved(before: Times, now: Times, working: Iterable[int]) -> bool:
    return any(
        thread in now and (now[thread].runnable or now[thread] != before.get(thread))
        for thread in working
    )


def _ran_s(before: Times, now: Times, thread: int) -> float:
    if thread not in before or thread not in now:
        return 0.0
    return now[thread].ran_s - before[thread].ran_s


def _waited_s(before: Times, now: Times, thread: int, elapsed_s: float) -> float:
    """The kernel adds a wait when it is over: a thread that has not run waits still."""
    if thread not in before:
        return 0.0
    if now[thread].runnable and now[thread].ran_s == before[thread].ran_s:
        return elapsed_s
    return now[thread].waited_s - before[thread].waited_s


class ThreadClock:
    """Measures what the threads of a process did between two looks at them."""

    def __init__(self, process: int | None = None, proc: Path = Path("/proc")) -> None:
        """`process`: its id; None: this one."""
        self._tasks = proc / str(process or "self") / "task"
        self._before: Times = {}

    def reset(self) -> None:
        """Forgets the last look."""
        self._before = {}

    def look(self) -> Callable[[Callable[[int], bool], float], Spent]:
        """Reads the times now. Returns what says how the threads that are asked for by their ids
        spent so many seconds since the last look; nothing if there was none.
        """
        before, now = self._before, self._read()
        self._before = now

        def of(is_working: Callable[[int], bool], elapsed_s: float) -> Spent:
            if not before or not now:
                return Spent(0.0, 0.0)
            return spent(before, now, tuple(filter(is_working, now)), elapsed_s)

        return of

    def _read(self) -> Times:
        times = {}
        with suppress(OSError):
            for folder in tuple(self._tasks.iterdir()):
                with suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                    ran, waited, _ = (folder / "schedstat").read_text().split()
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    runnable = state == "R"
                    times[int(folder.name)] = ThreadTime(
                        int(ran) / 1e9, int(waited) / 1e9, runnable
                    )
        return times
