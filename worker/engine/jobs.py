"""Jobs for the device thread, beside the batches: urgent ones go first, idle ones behind batches.

Guarded by the engine's lock; knows nothing of batches but how many of them overtook an idle job.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.concurrency.reply import Reply

# Batches that may overtake an idle job: under full load it still runs in the end.
PATIENCE = 8


@dataclass(frozen=True, slots=True)
class Job:
    """A call for the device thread, and where its result goes."""

    call: Callable[[], Any]
    reply: Reply[Any]

    def run(self) -> None:
        """On the device thread."""
        try:
            self.reply(self.call(), None)
        except Exception as error:
            self.reply(None, error)
        finally:
            del self  # an error's frames would hold the call


class JobQueue:
    """First in, first out, urgent and idle jobs apart."""

    def __init__(self) -> None:
        self._urgent: deque[Job] = deque()
        self._idle: deque[Job] = deque()
        self._overtaken = 0

    @property
    def has_urgent(self) -> bool:
        return bool(self._urgent)

    @property
    def is_patience_over(self) -> bool:
        """Whether so many batches overtook an idle job that it goes before the next one."""
        return bool(self._idle) and self._overtaken >= PATIENCE

    def add(self, job: Job, idle: bool) -> None:
        (self._idle if idle else self._urgent).append(job)

    def pop_urgent(self) -> Job | None:
        return self._urgent.popleft() if self._urgent else None

    def pop_overdue(self) -> Job | None:
        """An idle job that goes before the next batch."""
        return self.pop_idle() if self.is_patience_over else None

    def pop_idle(self) -> Job | None:
        if not self._idle:
            return None
        self._overtaken = 0
        return self._idle.popleft()

    def batch_went_first(self) -> None:
        """Counts a batch that overtook the idle jobs that wait, if any do."""
        self._overtaken += bool(self._idle)

    def drain_idle(self) -> tuple[Job, ...]:
        """Removes all idle jobs."""
        jobs = tuple(self._idle)
        self._idle.clear()
        return jobs
