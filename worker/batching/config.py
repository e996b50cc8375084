"""Priorities, due times, and how the images of a version share passes. Pure."""

import math
from dataclasses import dataclass, replace

# Priorities: the lower goes first. A suspect is a request whose worker was lost before; suspects
# run one at a time.
SUSPECT, INTERACTIVE, NORMAL, BULK = range(-1, 3)
# When a ticket is due, and its number: tickets that are due together go in order of arrival.
Key = tuple[float, int]


def due_at(deadline: float, arrived: float) -> float:
    """When a ticket is due: tickets of one priority and version are served in this order. Always
    before the deadline.

    The time that the caller gave is rounded to two digits, less a twentieth. gRPC carries deadlines
    rounded up to three digits, 119.9 s as 120 or 121: rounding keeps callers who give the same time
    in order of arrival.
    """
    given_s = deadline - arrived
    if not 0.0 < given_s < math.inf:
        return deadline
    step_s = 10.0 ** (math.floor(math.log10(given_s)) - 1)
    return arrived + 0.95 * step_s * round(given_s / step_s)


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How the images of a version share passes: Batching of types.proto, in seconds.

    `max_batch` is at least 1, and `preferred_sizes` ascend up to it. A `queue_capacity` of 0 means
    that the worker's alone bounds the queue. A `p99_goal_s` of 0 is no goal.
    """

    max_batch: int = 1
    preferred_sizes: tuple[int, ...] = ()
    max_delay_s: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False
    p99_goal_s: float = 0.0

    @property
    def full(self) -> int:
        """Images of a full pass: it waits for no more."""
        return self.preferred_sizes[-1] if self.preferred_sizes else self.max_batch

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images that a pass may have, ascending."""
        limit = self.max_batch
        return tuple(sorted({self.images(self.cut(n, limit), limit) for n in range(1, limit + 1)}))

    def within(self, limit: int) -> "BatchingConfig":
        """The same with at most `limit` images in a pass, and at least one."""
        max_batch = max(1, min(self.max_batch, limit))
        sizes = tuple(size for size in self.preferred_sizes if size <= max_batch)
        return replace(self, max_batch=max_batch, preferred_sizes=sizes)

    def cut(self, waiting: int, limit: int) -> int:
        """How many of `waiting` tickets (at least one) share the next pass, of at most `limit`."""
        fitting = max(1, min(waiting, self.full, limit))
        return max((size for size in self.preferred_sizes if size <= fitting), default=fitting)

    def images(self, tickets: int, limit: int) -> int:
        """Images in the pass of so many tickets, of at most `limit`: a fixed pass is filled up."""
        return max(tickets, min(self.max_batch, limit)) if self.fixed else tickets
