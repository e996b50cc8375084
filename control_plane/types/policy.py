"""Policies that operators set per version: residency, placement and batching. Pure and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from yolopool.vocabulary import (
    Priority,
)

# The default for on-demand versions.
IDLE_RELEASE_S = 60.0
# The label that names a worker's pool.
POOL = "pool"


class ResidencyMode(StrEnum):
    NORMAL = "normal"  # evicted when its memory is worth more to others
    HOT_STANDBY = "hot-standby"  # always loaded and pinned
    ON_DEMAND = "on-demand"  # released when idle


@dataclass(frozen=True, slots=True)
class Residency:
    """How long a version stays loaded. `cpu_fallback`: it may run on a CPU once every accelerator
    has failed to load it.
    """

    mode: ResidencyMode = ResidencyMode.NORMAL
    idle_release_s: float = IDLE_RELEASE_S
    cpu_fallback: bool = False

    @property
    def pins(self) -> bool:
        """Whether this policy alone makes the version wanted and pinned."""
        return self.mode is ResidencyMode.HOT_STANDBY


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version may run (workers of `pool` with all `labels`), on how many workers at most
    (0: no bound), and its priority.
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
        """The labels that a worker must have, for people; empty: none."""
        asked = {**({POOL: self.pool} if self.pool else {}), **self.labels}
        return ", ".join(f"{name}={value}" for name, value in sorted(asked.items()))


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """Batching as types.proto has it; 0: the worker's default."""

    max_batch: int = 0
    preferred_sizes: tuple[int, ...] = ()
    max_delay_ms: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False


def batching_of(raw: Mapping[str, Any]) -> BatchingConfig:
    """From a stored record; fields that a newer release added are ignored."""
    known = {name: raw[name] for name in BatchingConfig.__dataclass_fields__ if name in raw}
    return BatchingConfig(**{**known, "preferred_sizes": tuple(raw.get("preferred_sizes", ()))})
