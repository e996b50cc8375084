"""Admission: decided at once, from counts and an estimate, before any work is spent on an image.

Pure.
"""

from dataclasses import dataclass

from worker.batching.config import BULK, INTERACTIVE, NORMAL, SUSPECT, BatchingConfig
from worker.batching.estimates import MARGIN, Shape
from yolopool.errors import DeadlineUnmeetable, QueueFull

# Eighths of the queue that a priority may not fill: a flood of bulk leaves places for others.
_EIGHTHS_KEPT_FREE = {SUSPECT: 0, INTERACTIVE: 0, NORMAL: 1, BULK: 2}
# The shortest delay after which a refused caller is told to retry.
MIN_RETRY_S = 0.01


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A request that asks for a place. `shape` is None before the image is decoded. `deadline` and
    `arrived` are seconds of the queue's clock.
    """

    version: str
    priority: int
    deadline: float
    arrived: float
    batching: BatchingConfig
    shape: Shape | None = None


def check_room(
    ask: AdmissionRequest, capacity: int, waiting: int, of_version: int, done_s: float
) -> None:
    """Raises QueueFull, with a delay for the retry, where there is no place.

    `waiting` tickets have places, `of_version` of them for this version. `done_s` estimates in how
    many seconds the request would be answered.
    """
    retry_s = max(done_s, MIN_RETRY_S)
    if waiting >= places(capacity, ask.priority):
        raise QueueFull(
            f"{waiting} requests wait already: try again later or add workers",
            retry_after_s=retry_s,
        )
    own = ask.batching.queue_capacity
    if own and of_version >= places(own, ask.priority):
        raise QueueFull(
            f"{of_version} requests of {ask.version} wait already: try again later, add workers, "
            "or raise its queue capacity",
            retry_after_s=retry_s,
        )


def check_time(
    ask: AdmissionRequest, waiting: int, done_s: float, now: float, margin: float = MARGIN
) -> None:
    """Raises DeadlineUnmeetable, with the estimate, where there is no time. A request that nobody
    waits before is always admitted: its pass corrects an estimate that is wrong.
    """
    left_s = ask.deadline - now
    if waiting and margin * done_s >= left_s:
        raise DeadlineUnmeetable(
            f"would be done in {done_s:.3f} s and the deadline is in {left_s:.3f} s: allow more "
            "time, with a tenth to spare, send fewer at a time, or add workers",
            retry_after_s=max(done_s, MIN_RETRY_S),
            details={
                "estimated_wait_s": f"{done_s:.3f}",
                "deadline_in_s": f"{left_s:.3f}",
            },
        )


def places(capacity: int, priority: int) -> int:
    """Places that may be in use, by whomever, when a request of this priority is admitted; at least
    one. Partial buffer sharing (Kroener, Hebuterne, Boyer, Gravey, IEEE JSAC 9, 1991).
    """
    return max(1, capacity - capacity * _EIGHTHS_KEPT_FREE[priority] // 8)
