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
# While the places of one tenant become those of several, so many times the capacity may be in use.
MAX_OVER = 2

Flow = tuple[str, str]  # tenant and version


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A request that asks for a place. `shape` is None before the image is decoded. `deadline` and
    `arrived` are seconds of the queue's clock. `weight`: that of the tenant beside others.
    """

    version: str
    priority: int
    deadline: float
    arrived: float
    batching: BatchingConfig
    shape: Shape | None = None
    tenant: str = ""
    weight: float = 1.0

    @property
    def flow(self) -> Flow:
        return self.tenant, self.version


class Places:
    """Who has places in a queue. A tenant that has them alone may have all. Of several each may
    have a part by its weight: one that fills the queue is refused until it is within its part, and
    meanwhile others come in beside it.
    """

    def __init__(self) -> None:
        self.total = 0
        self.of_flow: dict[Flow, int] = {}
        self.of_tenant: dict[str, int] = {}
        self._weights: dict[str, float] = {}

    def take(self, flow: Flow, weight: float) -> None:
        tenant = flow[0]
        self.total += 1
        self.of_flow[flow] = self.of_flow.get(flow, 0) + 1
        self.of_tenant[tenant] = self.of_tenant.get(tenant, 0) + 1
        self._weights[tenant] = weight

    def release(self, flow: Flow) -> None:
        tenant = flow[0]
        self.total -= 1
        if self.of_flow[flow] > 1:
            self.of_flow[flow] -= 1
        else:
            del self.of_flow[flow]
        if self.of_tenant[tenant] > 1:
            self.of_tenant[tenant] -= 1
        else:
            del self.of_tenant[tenant], self._weights[tenant]

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def share(self, ask: AdmissionRequest) -> float:
        """The part of the queue that is the tenant's, 0..1."""
        if self.total == self.of_tenant.get(ask.tenant, 0):
            return 1.0
        others = sum(one for name, one in self._weights.items() if name != ask.tenant)
        return ask.weight / (ask.weight + others)


def check_room(ask: AdmissionRequest, capacity: int, taken: Places, done_s: float) -> None:
    """Raises QueueFull, with a delay for the retry, where there is no place. `done_s` estimates in
    how many seconds the request would be answered.
    """
    retry_s = max(done_s, MIN_RETRY_S)
    waiting, share = taken.of_tenant.get(ask.tenant, 0), taken.share(ask)
    over = waiting and taken.total >= MAX_OVER * capacity
    if over or waiting >= places(part(capacity, share), ask.priority):
        raise QueueFull(
            f"{waiting} requests wait already: try again later or add workers",
            retry_after_s=retry_s,
        )
    own = ask.batching.queue_capacity
    of_version = taken.of_flow.get(ask.flow, 0) if own else 0
    if own and of_version >= places(part(own, share), ask.priority):
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


def part(capacity: int, share: float) -> int:
    """The places of a tenant with this share of them."""
    return max(1, int(capacity * share))


def places(capacity: int, priority: int) -> int:
    """Places that may be in use, of all priorities, when a request of this priority is admitted; at
    least one. Partial buffer sharing (Kroener, Hebuterne, Boyer, Gravey, IEEE JSAC 9, 1991).
    """
    return max(1, capacity - capacity * _EIGHTHS_KEPT_FREE[priority] // 8)
