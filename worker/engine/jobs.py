"""Jobs for the device thread, beside the batches: urgent ones go first, fair ones take turns with
batches, idle ones go behind them.

Guarded by the engine's lock; knows nothing of batches but how many of them overtook a job. Times
are arguments, in seconds of one clock.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from worker.concurrency.reply import Reply
from worker.engine.device_health import sticky_words

# Batches that may overtake an idle job: under full load it still runs in the end.
PATIENCE = 8


class Turn(Enum):
    """When a job runs."""

    URGENT = auto()  # before the next batch
    FAIR = auto()  # after as much time of batches as the last such job took, and one at least
    IDLE = auto()  # when no batch can run, or PATIENCE of them overtook it


@dataclass(frozen=True, slots=True)
class Job:
    """A call for the device thread, and where its result goes."""

    call: Callable[[], Any]
    reply: Reply[Any]

    def run(self) -> str:
        """On the device thread. Returns why the device is of no use, if an error says so."""
        try:
            self.reply(self.call(), None)
        except Exception as error:
            self.reply(None, error)
            return sticky_words(error)
        finally:
            del self  # an error's frames would hold the call
        return ""


class JobQueue:
    """First in, first out, by turn."""

    def __init__(self) -> None:
        self._jobs: dict[Turn, deque[Job]] = {turn: deque() for turn in Turn}
        # Batches since the last job of a turn, while one waits.
        self._overtaken = dict.fromkeys(Turn, 0)
        # When the fair job that runs began, and when the next is due.
        self._fair_began: float | None = None
        self._fair_due = 0.0

    @property
    def has_urgent(self) -> bool:
        return bool(self._jobs[Turn.URGENT])

    def is_patience_over(self, now: float) -> bool:
        """Whether a job that batches overtook goes before the next one."""
        return self._overdue(now) is not None

    def add(self, job: Job, turn: Turn = Turn.URGENT) -> None:
        self._jobs[turn].append(job)

    def pop_urgent(self) -> Job | None:
        return self._pop(Turn.URGENT)

    def pop_overdue(self, now: float) -> Job | None:
        """A job that goes before the next batch, since batches overtook it."""
        turn = self._overdue(now)
        return None if turn is None else self._pop(turn, now)

    def pop_idle(self, now: float) -> Job | None:
        """A job to run while no batch can."""
        return self._pop(Turn.FAIR, now) or self._pop(Turn.IDLE)

    def note_end(self, now: float) -> None:
        """Notes that no job runs any more."""
        if self._fair_began is not None:
            self._fair_due = now + (now - self._fair_began)
            self._fair_began = None

    def batch_went_first(self) -> None:
        """Counts a batch that overtook the jobs that wait, if any do."""
        for turn, jobs in self._jobs.items():
            self._overtaken[turn] += bool(jobs)

    def drain(self) -> tuple[Job, ...]:
        """Removes all jobs but the urgent ones."""
        waiting = (self._jobs[Turn.FAIR], self._jobs[Turn.IDLE])
        jobs = tuple(job for jobs in waiting for job in jobs)
        for one in waiting:
            one.clear()
        return jobs

    def _overdue(self, now: float) -> Turn | None:
        fair = self._jobs[Turn.FAIR] and self._overtaken[Turn.FAIR]
        if fair and now >= self._fair_due:
            return Turn.FAIR
        idle = self._jobs[Turn.IDLE] and self._overtaken[Turn.IDLE] >= PATIENCE
        return Turn.IDLE if idle else None

    def _pop(self, turn: Turn, now: float | None = None) -> Job | None:
        if not self._jobs[turn]:
            return None
        self._overtaken[turn] = 0
        if turn is Turn.FAIR:
            self._fair_began = now
        return self._jobs[turn].popleft()
