"""What an application of a fleet file does, as data: a step is one call, or a few. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from yolopool.client.fleet_file.declared import (
    Batching,
    Build,
    Check,
    Placement,
    Residency,
    is_usual,
    keys,
)


@dataclass(frozen=True, slots=True)
class SetLabels:
    put: Mapping[str, str]
    drop: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        put = [f"+{name}={value}" for name, value in sorted(self.put.items())]
        return f"labels: {' '.join([*put, *(f'-{name}' for name in self.drop)])}"


@dataclass(frozen=True, slots=True)
class SetResidency:
    before: Residency
    after: Residency

    @property
    def words(self) -> str:
        return f"residency: {differences(self.before, self.after)}"


@dataclass(frozen=True, slots=True)
class SetPlacement:
    before: Placement
    after: Placement

    @property
    def words(self) -> str:
        return f"placement: {differences(self.before, self.after)}"


@dataclass(frozen=True, slots=True)
class SetBatching:
    """`after` None: as the workers were started."""

    device: str
    before: Batching | None
    after: Batching | None

    @property
    def words(self) -> str:
        if self.after is None:
            return f"batching.{self.device}: back to the workers' own"
        return f"batching.{self.device}: {differences(self.before or Batching(), self.after)}"


@dataclass(frozen=True, slots=True)
class MakeBuild:
    """`calibration`: digest of its images, of int8."""

    build: Build
    calibration: str
    why: str

    @property
    def words(self) -> str:
        return f"build {self.build.slot}: {self.why}"


@dataclass(frozen=True, slots=True)
class ServeBuild:
    """`variant` empty: as the workers make it. `checks`: comparisons to put on record."""

    device: str
    before: str
    variant: str
    unchecked: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def words(self) -> str:
        own = "the workers' own"
        more = " on every compute class" if self.unchecked else ""
        if self.checks:
            more += f", {len(self.checks)} comparisons"
        return f"served on {self.device}: {self.before or own} -> {self.variant or own}{more}"


@dataclass(frozen=True, slots=True)
class LoadVersion:
    replicas: int
    pin: bool

    @property
    def words(self) -> str:
        many = "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"
        return f"load: {many}{', pinned' if self.pin else ''}"


VersionStep = (
    SetLabels | SetResidency | SetPlacement | SetBatching | MakeBuild | ServeBuild | LoadVersion
)
# What a version can have only once it is imported.
AFTER_IMPORT = (MakeBuild, ServeBuild, LoadVersion)


def differences(before: Any, after: Any) -> str:
    """What differs between two records of a kind: `pool "" -> "day", max_replicas 0 -> 2`."""
    changed = [
        f"{name} {said(getattr(before, name))} -> {said(getattr(after, name))}"
        for name in keys(type(after))
        if getattr(before, name) != getattr(after, name)
    ]
    return ", ".join(changed)


def said(value: Any) -> str:
    """A value of a record for people."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}={one}" for name, one in sorted(value.items())) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(said(one) for one in value) + "]"
    if isinstance(value, str):
        return f'"{value}"'
    if is_dataclass(value):
        words = given(value)
        return words[0].partition(" ")[2] if len(words) == 1 else "{" + ", ".join(words) + "}"
    return "-" if value is None else str(value)


def given(record: Any, *without: str) -> list[str]:
    """The keys of a record that have not their defaults, with their values: `replicas 2`."""
    return [
        f"{name} {said(getattr(record, name))}"
        for name in keys(type(record))
        if name not in without and not is_usual(record, name)
    ]
