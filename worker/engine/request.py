"""What callers give the engine, and what it tells of its queue."""

from collections import Counter
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


class PassCounts:
    """Passes that were answered since the process began, the images in them, and their seconds. Of
    those that an estimate was made of: seconds that they were expected to take, that they took, and
    by which the one and the other differ, pass by pass.
    """

    def __init__(self) -> None:
        self.passes = self.images = 0
        self.busy_s = self.estimated_s = self.estimated_took_s = self.estimated_off_s = 0.0
        self._of: Counter[str] = Counter()

    def add(self, version: str, images: int, seconds: float, expected_s: float | None) -> None:
        self._of[version] += 1
        self.passes += 1
        self.images += images
        self.busy_s += seconds
        if expected_s is not None:
            self.estimated_s += expected_s
            self.estimated_took_s += seconds
            self.estimated_off_s += abs(seconds - expected_s)

    def of(self, version: str) -> int:
        """Passes of one version."""
        return self._of[version]

    def forget(self, version: str) -> None:
        self._of.pop(version, None)


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
