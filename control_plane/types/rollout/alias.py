"""Aliases: movable names of versions of one model, such as shapes:stable. Pure and frozen.

Weights are in per mille: those of an alias's targets sum to WHOLE. A switch in progress is part of
the record, so that whoever leads carries it on.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

from control_plane.types.rollout.family import Family
from control_plane.types.rollout.progress import Rollout
from control_plane.types.rollout.target import WHOLE as WHOLE
from control_plane.types.rollout.target import Target as Target
from control_plane.types.rollout.target import Targets as Targets
from control_plane.types.version import VersionKey
from yolopool.names import ModelRef, base_name

HISTORY_KEPT = 50


class AliasKey(NamedTuple):
    """Printed as callers write it: model:name."""

    model: str
    name: str

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"


class ChangeKind(StrEnum):
    SET = "SET"  # named outright, without a switch
    PROMOTE = "PROMOTE"  # to other versions
    STEP = "STEP"  # other weights on the way of one promotion: no place to roll back to
    ROLLBACK = "ROLLBACK"  # to where it was before
    FAMILY = "FAMILY"  # the members of a family were set
    ABANDON = "ABANDON"  # a switch that was given up: nothing moved


@dataclass(frozen=True, slots=True)
class Shadow:
    """A candidate that runs beside for `share` of a thousand requests; its answers reach nobody."""

    version: int
    share: int


@dataclass(frozen=True, slots=True)
class AliasChange:
    """`kind`: a ChangeKind, or the word of a newer release. `request_id`: of the order."""

    at_unix_s: float
    kind: str
    by: str
    why: str
    before: Targets
    after: Targets
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A move that waits for its targets to be loaded; it is given up at `until_unix_s`."""

    targets: Targets
    kind: str
    by: str
    why: str
    since_unix_s: float
    until_unix_s: float
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that the alias left, and that stays loaded until then. `replicas`, `source`: of the
    want that it had (0: none), which its successors have then.
    """

    version: int
    until_unix_s: float
    replicas: int = 0
    source: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """`revision` grows by one with each change of the record: who writes says which one they read.
    `keep_s`: how long the versions that a promotion leaves stay loaded, for a rollback at once.
    `changed_unix_s`: when the targets moved last. `history`: the newest last, HISTORY_KEPT at most.
    `family`: what it means in place of targets, of which it has none then.
    """

    model: str
    name: str
    targets: Targets
    keep_s: float
    changed_unix_s: float
    revision: int = 0
    switch: Switch | None = None
    kept: tuple[Kept, ...] = ()
    shadow: Shadow | None = None
    rollout: Rollout | None = None
    history: tuple[AliasChange, ...] = ()
    family: Family | None = None

    @property
    def key(self) -> AliasKey:
        return AliasKey(self.model, self.name)

    @property
    def main(self) -> int:
        """The version with the largest weight; of equals the first. 0: it is a family."""
        targets = self.targets or (Target(0, 0),)
        return max(targets, key=lambda target: target.weight).version

    @property
    def previous(self) -> Targets:
        """Where a rollback goes: what the newest promotion that was not rolled back left. Empty:
        nowhere.
        """
        left: list[Targets] = []
        for change in self.history:
            if change.kind == ChangeKind.ROLLBACK:
                left = left[:-1]
            elif change.kind != ChangeKind.STEP and change.before and change.before != change.after:
                left.append(change.before)
        return left[-1] if left else ()

    @property
    def is_rolled_out(self) -> bool:
        """Whether a rollout of it is to be carried on, or to be settled."""
        return self.rollout is not None and not self.rollout.settled

    @property
    def versions(self) -> frozenset[int]:
        """All versions that it needs: targets, those it moves to, those it keeps, the shadow, and
        both of a rollout.
        """
        targets = (*self.targets, *(self.switch.targets if self.switch is not None else ()))
        rollout = self.rollout if self.is_rolled_out else None
        return frozenset(
            (
                *(target.version for target in targets),
                *(kept.version for kept in self.kept),
                *((self.shadow.version,) if self.shadow is not None else ()),
                *((rollout.stable, rollout.candidate) if rollout is not None else ()),
            )
        )

    def drawn(self, point: int) -> int:
        """The version of one request: `point` is 0 to WHOLE - 1. A target behind the first that
        gains weight keeps the points that it has.
        """
        for target in self.targets:
            point -= target.weight
            if point < 0:
                return target.version
        return self.main

    def has_order(self, request_id: str) -> bool:
        """Whether the order of this id was taken already."""
        switch = [self.switch.request_id] if self.switch is not None else []
        return bool(request_id) and request_id in (
            *switch,
            *(change.request_id for change in self.history),
        )

    def ordered(self, targets: Targets) -> Targets:
        """Targets in the order that the alias has them, those that are new to it last: whose keys
        stick to a version keep it.
        """
        at = {target.version: place for place, target in enumerate(self.targets)}
        return tuple(sorted(targets, key=lambda one: (at.get(one.version, len(at)), one.version)))

    def noted(self, change: AliasChange) -> "Alias":
        return replace(self, history=(*self.history, change)[-HISTORY_KEPT:])


def point_of(alias: AliasKey, sticky_key: str) -> int:
    """Where a caller's key lies, 0 to WHOLE - 1: the same in each process and release."""
    digest = blake2b(f"{alias[0]}:{alias[1]}\n{sticky_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % WHOLE


def point_for(ref: ModelRef, sticky_key: str, draw: Callable[[], float]) -> int | None:
    """Where a request for a reference lies, 0 to WHOLE - 1: by its sticky key, else by what `draw`
    says, from 0 up to 1. None: it names no alias.
    """
    if ref.alias is None:
        return None
    if not sticky_key:
        return int(draw() * WHOLE)
    return point_of(AliasKey(base_name(ref.name), ref.alias), sticky_key)


def naming(aliases: Mapping[AliasKey, Alias], version: VersionKey) -> tuple[AliasKey, ...]:
    """The aliases that need a version: it must not be deleted. A family needs those of its members
    that it names by their number.
    """
    own = [alias.key for alias in _of(aliases, version) if version.number in alias.versions]
    families = [
        alias.key
        for alias in aliases.values()
        if alias.family is not None and str(version) in alias.family.models
    ]
    return tuple(sorted(own + families))


def _of(aliases: Mapping[AliasKey, Alias], version: VersionKey) -> Iterable[Alias]:
    return (alias for alias in aliases.values() if alias.model == version.model)
