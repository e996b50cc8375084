"""How a version is kept: residency, placement and batching. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from yolopool.vocabulary import (
    Priority,
)

# Of a version that is kept on demand only, where nothing else is said.
IDLE_RELEASE_S = 60.0
# The label that names a worker's pool.
POOL = "pool"


class ResidencyMode(StrEnum):
    NORMAL = "normal"  # released when its room is worth more to others
    HOT_STANDBY = "hot-standby"  # always loaded and pinned
    ON_DEMAND = "on-demand"  # released when idle


@dataclass(frozen=True, slots=True)
class Residency:
    """How a version is kept; `cpu_fallback`: on a CPU where every accelerator failed to load it."""

    mode: ResidencyMode = ResidencyMode.NORMAL
    idle_release_s: float = IDLE_RELEASE_S
    cpu_fallback: bool = False

    @property
    def pins(self) -> bool:
        """Whether the version is wanted and pinned by this alone."""
        return self.mode is ResidencyMode.HOT_STANDBY


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version may run (workers of `pool` with all `labels`), on at most how many workers
    (0: as many as there are), and how much it matters beside others.
    """

    pool: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas: int = 0
    priority: Priority = Priority.NORMAL

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a worker with these labels may hold the version."""
        if self.pool and labels.get(POOL) != self.pool:
            return False
        return all(labels.get(name) == value for name, value in self.labels.items())

    @property
    def says(self) -> str:
        """What it asks of a worker, for people; empty: nothing."""
        asked = {**({POOL: self.pool} if self.pool else {}), **self.labels}
        return ", ".join(f"{name}={value}" for name, value in sorted(asked.items()))


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """As types.proto has it; 0 leaves it to the worker."""

    max_batch: int = 0
    preferred_sizes: tuple[int, ...] = ()
    max_delay_ms: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False


def batching_of(raw: Mapping[str, Any]) -> BatchingConfig:
    """Reads a record; fields that a newer release added are left out."""
    known = {name: raw[name] for name in BatchingConfig.__dataclass_fields__ if name in raw}
    return BatchingConfig(**{**known, "preferred_sizes": tuple(raw.get("preferred_sizes", ()))})
