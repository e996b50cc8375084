"""Desired state: wants, all desired state at one revision, and the delta between two revisions.

Pure and frozen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from control_plane.types.access.api_key import ApiKey
from control_plane.types.access.tenant import Tenant
from control_plane.types.alerts.alert_setting import AlertSetting
from control_plane.types.policy import Gate, ModelRule
from control_plane.types.rollout.alias import Alias, AliasKey
from control_plane.types.schedule import Schedule
from control_plane.types.sources.watch import Watch
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import WorkerInfo


class WantSource(StrEnum):
    ADMIN = "ADMIN"  # by LoadModel
    MISS = "MISS"  # by a Detect for a version that no worker had
    PREFETCH = "PREFETCH"  # by the plan: a request is likely soon
    ALIAS = "ALIAS"  # by an alias that moves to it, or left it and may come back


@dataclass(frozen=True, slots=True)
class Want:
    """Desired state of one version: how many replicas, since when, and who asked for them."""

    key: VersionKey
    replicas: int
    pinned: bool
    source: WantSource
    since_unix_s: float

    def following(self, old: "Want | None") -> "Want":
        """The want after this one is asked for while `old` is in force. A miss never lowers or
        unpins, and a prefetch never changes another want.
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
class WantChanges:
    """Wants to set as given and to remove, and hot standbys to make normal, in one write."""

    put: tuple[Want, ...] = ()
    drop: tuple[VersionKey, ...] = ()
    end_standby: tuple[VersionKey, ...] = ()


NO_CHANGES = WantChanges()


@dataclass(frozen=True, slots=True)
class Desired:
    """All desired state at one revision of the store."""

    revision: int
    cluster: str
    versions: Mapping[VersionKey, ModelVersion]
    wants: Mapping[VersionKey, Want]
    # Workers that drain once their models are loaded elsewhere: id -> incarnation.
    cordons: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    # The highest version that each name ever had: the number of a deleted version is not reused.
    numbers: Mapping[str, int] = field(default_factory=dict)
    api_keys: Mapping[str, ApiKey] = field(default_factory=dict)
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    aliases: Mapping[AliasKey, Alias] = field(default_factory=dict)
    # What is set for models, by the pattern of their names.
    rules: Mapping[str, ModelRule] = field(default_factory=dict)
    watches: Mapping[str, Watch] = field(default_factory=dict)
    # Receivers, silences and thresholds of alerts, by key.
    alerts: Mapping[str, AlertSetting] = field(default_factory=dict)
    # Random, drawn with each revision: a store that lost its last writes repeats revisions, not
    # marks.
    mark: str = ""

    def is_cordoned(self, worker: "WorkerInfo") -> bool:
        """Whether this worker process is cordoned; a new process of the same id is not."""
        return self.cordons.get(worker.id) == worker.incarnation

    def gate(self, model: str) -> Gate | None:
        """The gate of new versions of a model; None: there is none."""
        rule = self.rules.get(model)
        return rule.gate if rule is not None else None

    def check_gate(self, key: VersionKey) -> None:
        """Raises ValidationFailed or ValidationPending for a version that its model's gate does not
        let through.
        """
        gate, version = self.gate(key.model), self.versions.get(key)
        if gate is not None and version is not None:
            gate.check(str(key), version.validation)

    def want(self, key: VersionKey) -> Want | None:
        """The want of a version: as asked for, or because it is kept as a hot standby."""
        want, version = self.wants.get(key), self.versions.get(key)
        if version is None or not version.given.residency.pins:
            return want
        if want is None:
            since = version.created_unix_s
            return Want(key, 1, pinned=True, source=WantSource.ADMIN, since_unix_s=since)
        return replace(want, pinned=True)

    def kept(self) -> frozenset[VersionKey]:
        """Versions whose replicas stay, however idle: what an alias means, moves to, or may go back
        to, while it moves and until nothing is kept for it any more; and both of a rollout.
        """
        return frozenset(
            VersionKey(alias.model, number)
            for alias in self.aliases.values()
            if alias.switch is not None or alias.kept or alias.is_rolled_out
            for number in alias.versions
        )

    def all_wants(self) -> dict[VersionKey, Want]:
        """`want` of every version that has one."""
        standby = [key for key, version in self.versions.items() if version.given.residency.pins]
        found = {key: self.want(key) for key in standby}
        return {**self.wants, **{key: want for key, want in found.items() if want is not None}}


@dataclass(frozen=True, slots=True)
class DesiredDelta:
    """Every key written since an earlier revision, with its value at `revision`; None: deleted."""

    revision: int
    mark: str
    versions: Mapping[VersionKey, ModelVersion | None] = field(default_factory=dict)
    wants: Mapping[VersionKey, Want | None] = field(default_factory=dict)
    cordons: Mapping[str, str | None] = field(default_factory=dict)
    schedules: Mapping[str, Schedule | None] = field(default_factory=dict)
    numbers: Mapping[str, int | None] = field(default_factory=dict)
    api_keys: Mapping[str, ApiKey | None] = field(default_factory=dict)
    tenants: Mapping[str, Tenant | None] = field(default_factory=dict)
    aliases: Mapping[AliasKey, Alias | None] = field(default_factory=dict)
    rules: Mapping[str, ModelRule | None] = field(default_factory=dict)
    watches: Mapping[str, Watch | None] = field(default_factory=dict)
    alerts: Mapping[str, AlertSetting | None] = field(default_factory=dict)
