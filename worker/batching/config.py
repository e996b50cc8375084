"""Priorities, when a ticket is due, and how the images of a version share passes. Pure."""

import math
from dataclasses import dataclass, replace

# Priorities: lower goes first. A suspect is a request whose worker was lost; one at a time.
SUSPECT, INTERACTIVE, NORMAL, BULK = range(-1, 3)
# When it is due, and the number of a ticket: what is due at once goes in order of arrival.
Key = tuple[float, int]


def due_at(deadline: float, arrived: float) -> float:
    """When a ticket is due, by which those of one class are ordered; before its deadline, seconds.

    What it was given is taken to two digits, and all but a twentieth of that. A deadline comes over
    gRPC in three digits rounded up, 119.9 s as 120 or 121: of callers who allow the same, whoever
    came first goes first.
    """
    given_s = deadline - arrived
    if not 0.0 < given_s < math.inf:
        return deadline
    step_s = 10.0 ** (math.floor(math.log10(given_s)) - 1)
    return arrived + 0.95 * step_s * round(given_s / step_s)


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How the images of a version share passes; as types.proto's, in seconds.

    `max_batch` is at least 1, `preferred_sizes` ascend up to it, a `queue_capacity` of 0 leaves the
    worker's alone.
    """

    max_batch: int = 1
    preferred_sizes: tuple[int, ...] = ()
    max_delay_s: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False

    @property
    def full(self) -> int:
        """Images of a pass where enough wait: more are not waited for."""
        return self.preferred_sizes[-1] if self.preferred_sizes else self.max_batch

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images that a pass may have, ascending."""
        most = self.max_batch
        return tuple(sorted({self.images(self.cut(n, most), most) for n in range(1, most + 1)}))

    def within(self, limit: int) -> "BatchingConfig":
        """The same with at most `limit` images a pass, at least one."""
        most = max(1, min(self.max_batch, limit))
        sizes = tuple(size for size in self.preferred_sizes if size <= most)
        return replace(self, max_batch=most, preferred_sizes=sizes)

    def cut(self, waiting: int, most: int) -> int:
        """How many of `waiting` tickets (at least one) share the next pass of at most `most`."""
        limit = max(1, min(waiting, self.full, most))
        return max((size for size in self.preferred_sizes if size <= limit), default=limit)

    def images(self, tickets: int, most: int) -> int:
        """Images of the pass of so many tickets: a fixed one is filled up."""
        return max(tickets, min(self.max_batch, most)) if self.fixed else tickets
