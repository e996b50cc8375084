"""The nouns of the control plane: models, wants, workers, replicas, snapshots and plans.

Pure and frozen: what is decided here is data, and every decision carries its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from control_plane.types.schedule import Schedule
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import WorkerInfo


class WantSource(StrEnum):
    ADMIN = "ADMIN"  # someone asked for it by LoadModel
    MISS = "MISS"  # a Detect found it nowhere
    PREFETCH = "PREFETCH"  # nobody yet, but likely soon: beside a device, where there is room


@dataclass(frozen=True, slots=True)
class Want:
    """Desired state of one version: on so many workers, since when, and for whom."""

    key: VersionKey
    replicas: int
    pinned: bool
    source: WantSource
    since_unix_s: float

    def following(self, old: "Want | None") -> "Want":
        """What is wanted once this is asked for, where `old` was before. A miss never lowers or
        unpins, and a prefetch changes nothing that anybody asked for.
        """
        if old is None:
            return self
        if self.source is WantSource.PREFETCH:
            return old
        if old.source is WantSource.PREFETCH:
            return self
        if self.source is WantSource.MISS:
            replicas = max(old.replicas, self.replicas)
            return replace(old, replicas=replicas, pinned=old.pinned or self.pinned)
        return replace(self, since_unix_s=old.since_unix_s)


@dataclass(frozen=True, slots=True)
class Desired:
    """All desired state at one revision of the store."""

    revision: int
    cluster: str
    versions: Mapping[VersionKey, ModelVersion]
    wants: Mapping[VersionKey, Want]
    # Workers that are to drain once their models are elsewhere: id -> incarnation.
    cordons: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    # The highest number that each name ever had: a deleted one is not given again.
    numbers: Mapping[str, int] = field(default_factory=dict)
    # Drawn with the revision: a store that lost its last writes counts the same numbers again.
    mark: str = ""

    def is_cordoned(self, worker: "WorkerInfo") -> bool:
        """A new process of the same id is not."""
        return self.cordons.get(worker.id) == worker.incarnation

    def want(self, key: VersionKey) -> Want | None:
        """What is wanted of a version: asked for, or since it is kept as a hot standby."""
        want, version = self.wants.get(key), self.versions.get(key)
        if version is None or not version.given.residency.pins:
            return want
        if want is None:
            since = version.created_unix_s
            return Want(key, 1, pinned=True, source=WantSource.ADMIN, since_unix_s=since)
        return replace(want, pinned=True)

    def all_wants(self) -> dict[VersionKey, Want]:
        """`want` of every version of which something is wanted."""
        standby = [key for key, one in self.versions.items() if one.given.residency.pins]
        found = {key: self.want(key) for key in standby}
        return {**self.wants, **{key: want for key, want in found.items() if want is not None}}


@dataclass(frozen=True, slots=True)
class DesiredDelta:
    """Each key that was written since, with what it is at `revision`; None: gone."""

    revision: int
    mark: str
    versions: Mapping[VersionKey, ModelVersion | None] = field(default_factory=dict)
    wants: Mapping[VersionKey, Want | None] = field(default_factory=dict)
    cordons: Mapping[str, str | None] = field(default_factory=dict)
    schedules: Mapping[str, Schedule | None] = field(default_factory=dict)
    numbers: Mapping[str, int | None] = field(default_factory=dict)
