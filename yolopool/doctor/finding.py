"""What the doctor found: a cause, whom it is about, what it rests on, and what to do. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """Why requests take long."""

    OVER_CAPACITY = "OVER_CAPACITY"
    BATCHES_TOO_SMALL = "BATCHES_TOO_SMALL"
    BATCHES_TOO_LARGE = "BATCHES_TOO_LARGE"
    DECODE_BOUND = "DECODE_BOUND"
    MEMORY_PRESSURE = "MEMORY_PRESSURE"
    RELOAD_THRASH = "RELOAD_THRASH"
    COLD_FIRST_REQUESTS = "COLD_FIRST_REQUESTS"
    SLOW_DEVICE = "SLOW_DEVICE"
    TRANSFER_BOUND = "TRANSFER_BOUND"
    THROTTLED = "THROTTLED"
    NOISY_HOST = "NOISY_HOST"
    OVERSIZED_IMAGES = "OVERSIZED_IMAGES"
    CLIENT_RETRIES = "CLIENT_RETRIES"
    CONTROL_PLANE_BUSY = "CONTROL_PLANE_BUSY"


# Of queues that grow since something else is slow: they are told behind what is.
SYMPTOMS = frozenset({Cause.OVER_CAPACITY, Cause.BATCHES_TOO_SMALL})


class Severity(StrEnum):
    CRITICAL = "critical"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`about`: model, device or caller. `evidence`: a sentence with the figures it rests on.
    `places`: some of the lines, of `rows` in all. `change`: commands, or what to do where there is
    none. `cost_ms`: what it costs each of these requests on average, which is the gain to expect at
    most; `share`: of their time.
    """

    cause: Cause
    about: str
    title: str
    evidence: str
    change: tuple[str, ...]
    cost_ms: float
    share: float
    rows: int
    places: tuple[int, ...]

    @property
    def severity(self) -> Severity:
        if self.share >= 0.4:
            return Severity.CRITICAL
        return Severity.WARNING if self.share >= 0.15 else Severity.NOTE

    @property
    def total_ms(self) -> float:
        """What it cost all requests together."""
        return self.cost_ms * self.rows

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "cause": str(self.cause),
            "severity": str(self.severity),
            "about": self.about,
            "title": self.title,
            "evidence": self.evidence,
            "change": list(self.change),
            "cost_ms": round(self.cost_ms, 3),
            "share": round(self.share, 4),
            "rows": self.rows,
            "lines": list(self.places),
        }
