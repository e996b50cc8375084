"""What callers give the engine, and what it tells of its queue."""

from dataclasses import dataclass

from worker.batching.config import BatchingConfig
from worker.postprocess.outputs import NmsOptions


@dataclass(frozen=True, slots=True)
class Request:
    """How a caller wants an image run. `deadline` is of the engine's clock; a lower priority goes
    first. `place` is what `reserve` returned; 0: it has no place yet. `weight`: of the tenant
    beside others.
    """

    version: str
    options: NmsOptions
    priority: int
    deadline: float
    batching: BatchingConfig
    place: int = 0
    tenant: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The queue as it is now."""

    outstanding: int
    capacity: int
    wait_s: float
    sequence: int
    # Since the process began: passes that were answered, and images in them.
    passes_total: int = 0
    images_total: int = 0
