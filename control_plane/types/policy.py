"""Policies that operators set: residency, placement and batching of a version; and of models by
name the gate of new versions, how many are kept, and what their files may take. Pure and frozen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from yolopool.errors import ValidationFailed, ValidationPending
from yolopool.names import base_name
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
    def requires(self) -> str:
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
    p99_goal_ms: float = 0.0


def batching_of(raw: Mapping[str, Any]) -> BatchingConfig:
    """From a stored record; fields that a newer release added are ignored."""
    known = {name: raw[name] for name in BatchingConfig.__dataclass_fields__ if name in raw}
    return BatchingConfig(**{**known, "preferred_sizes": tuple(raw.get("preferred_sizes", ()))})


class GateState(StrEnum):
    """How a version stands to the gate of its model."""

    NONE = "NONE"  # there is no gate
    PENDING = "PENDING"  # not evaluated yet on its images
    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Validation:
    """How a version did on labelled images; `data` is the SHA-256 of the zip of them. `reason` and
    `message`: why it can't be evaluated on them; empty: it was.
    """

    data: str
    unix_s: float
    images: int = 0
    objects: int = 0
    map50: float = 0.0
    map50_95: float = 0.0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new version of a model must reach on labelled images before it takes over. `data`:
    SHA-256 of the zip of them in the artifact store. `since_unix_s`: when it was set first.
    """

    data: str
    min_map50_95: float = 0.0
    min_map50: float = 0.0
    since_unix_s: float = 0.0

    def is_met(self, found: Validation) -> bool:
        return (
            not found.reason
            and found.map50_95 >= self.min_map50_95
            and found.map50 >= self.min_map50
        )

    def state(self, found: Validation | None) -> GateState:
        """How a version stands that was evaluated so. An evaluation on other images counts for
        nothing here: it is to be evaluated again.
        """
        if found is None or found.data != self.data:
            return GateState.PENDING
        return GateState.PASSED if self.is_met(found) else GateState.FAILED

    def check(self, version: str, found: Validation | None) -> None:
        """Raises ValidationFailed or ValidationPending unless a version (its name) has passed."""
        state = self.state(found)
        if state is GateState.PENDING or found is None:
            raise ValidationPending(
                f"{version} was not evaluated yet on the images of its model's gate: try again "
                "later (yolopool models show says how far it is), or promote it ungated",
                retry_after_s=10.0,
            )
        if state is GateState.FAILED:
            raise ValidationFailed(
                f"{version} {self.shortfall(found)}: train on, or promote it ungated"
            )

    def shortfall(self, found: Validation) -> str:
        """Why a version fails, in words."""
        if found.reason:
            return f"can't be evaluated on the images of its gate ({found.reason}: {found.message})"
        pairs = (
            ("mAP50-95", found.map50_95, self.min_map50_95),
            ("mAP50", found.map50, self.min_map50),
        )
        short = [
            f"{what} {got:.4f}, at least {least:g}" for what, got, least in pairs if got < least
        ]
        return f"fails its gate: {'; '.join(short)}"

    def holds_back(self, found: Validation | None, created_unix_s: float) -> bool:
        """Whether the bare name passes a version over. One from before the gate is not while nobody
        knows; and what was found on earlier images counts until it is evaluated on these.
        """
        if found is None:
            return created_unix_s >= self.since_unix_s
        return not self.is_met(found)


@dataclass(frozen=True, slots=True)
class ModelRule:
    """What is set for the models whose names match a pattern; 0 and None: nothing. A gate is of one
    model, so its pattern is a name. `keep_versions`: how many of the newest of each model are kept.
    `store_bytes`: what the files of all of them together may take.
    """

    pattern: str
    gate: Gate | None = None
    keep_versions: int = 0
    store_bytes: int = 0

    @property
    def says_nothing(self) -> bool:
        return self == ModelRule(self.pattern)

    def matches(self, model: str) -> bool:
        return fnmatchcase(base_name(model), self.pattern)


def kept_versions(rules: Iterable[ModelRule], model: str) -> int:
    """How many of the newest versions of a model are kept, by the longest pattern that says; 0: all
    are.
    """
    saying = [rule for rule in rules if rule.keep_versions and rule.matches(model)]
    longest = max(saying, key=lambda rule: (len(rule.pattern), rule.pattern), default=None)
    return longest.keep_versions if longest is not None else 0
