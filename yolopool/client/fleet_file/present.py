"""What a pool has, read from its messages into the records of a fleet file. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from yolopool.client.fleet_file.declared import (
    Batching,
    Check,
    Family,
    Gate,
    Place,
    Placement,
    Preparation,
    Residency,
    Schedule,
    Settings,
    StoreRule,
    Watch,
    keys,
)
from yolopool.client.model_records import enum_word, placement_of, residency_of
from yolopool.client.rollout.alias_records import Alias
from yolopool.names import base_name
from yolopool.v1 import model_pb2, schedule_pb2, types_pb2

# States of a version or build whose import has not ended.
PENDING = frozenset({"UPLOADED", "IMPORTING"})


@dataclass(frozen=True, slots=True)
class Served:
    """The build that serves a version on one kind of device."""

    variant: str
    unchecked: bool
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class PresentBuild:
    """A build of a version; `name` is name+build@version."""

    name: str
    state: str
    calibration: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PresentVersion:
    """A version as the pool has it. `settings` None: a release that did not keep them registered
    it; `resolved` are those that serve. `hot`: on how many workers it is.
    """

    name: str
    number: int
    state: str
    artifact: str  # empty: the pool fetches it from `uri`
    resolved: Settings
    settings: Settings | None = None
    class_names: tuple[str, ...] = ()
    renamed_classes: Mapping[int, str] = field(default_factory=dict)
    architecture_sha256: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    residency: Residency = field(default_factory=Residency)
    placement: Placement = field(default_factory=Placement)
    batching: Mapping[str, Batching] = field(default_factory=dict)
    wanted_replicas: int = 0
    pinned: bool = False
    builds: Mapping[str, PresentBuild] = field(default_factory=dict)
    served: Mapping[str, Served] = field(default_factory=dict)
    hot: int = 0
    why: str = ""
    uri: str = ""

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def is_pending(self) -> bool:
        return self.state in PENDING


@dataclass(frozen=True, slots=True)
class Present:
    """What the pool has of the sections that a file is about; None: it was not asked. `rolling`:
    aliases whose rollout runs, and the version that they would be rolled back to.
    """

    versions: tuple[PresentVersion, ...] = ()
    aliases: tuple[Alias, ...] | None = None
    rolling: Mapping[str, int] = field(default_factory=dict)
    families: tuple[Family, ...] | None = None
    gates: tuple[Gate, ...] | None = None
    store: tuple[StoreRule, ...] | None = None
    watches: tuple[Watch, ...] | None = None
    schedules: tuple[Schedule, ...] | None = None


def shortest(value: float) -> float:
    """The shortest decimal that stands for the same in the 32 bits of a message: 0.3."""
    return float(str(np.float32(value)))


def rounded(record: Any) -> Any:
    """A record with every number as a message keeps it, and without its places."""
    values = {name: getattr(record, name) for name in keys(type(record))}
    floats = {name: shortest(one) for name, one in values.items() if isinstance(one, float)}
    return replace(record, at={}, **floats)


def versions_of(models: Iterable[model_pb2.Model]) -> tuple[PresentVersion, ...]:
    return tuple(version_of(version) for model in models for version in model.versions)


def version_of(message: model_pb2.ModelVersion) -> PresentVersion:
    given = message.registered
    hot = types_pb2.REPLICA_STATE_HOT
    failed = f"{message.reason}: {message.message}" if message.reason else ""
    return PresentVersion(
        name=message.version.model,
        number=message.version.version,
        state=enum_word(model_pb2.VersionState, message.state, "VERSION_STATE_"),
        artifact=message.artifact,
        resolved=settings_of(message.settings),
        settings=settings_of(given.settings) if given.HasField("settings") else None,
        class_names=tuple(given.class_names),
        renamed_classes=dict(given.renamed_classes),
        architecture_sha256=given.architecture_sha256,
        labels=dict(message.labels),
        residency=_residency(message.residency),
        placement=_placement(message.placement),
        batching={kind: batching_of(one) for kind, one in sorted(message.batching.items())},
        wanted_replicas=message.wanted_replicas,
        pinned=message.pinned,
        builds={_slot(one): _build(one) for one in message.builds},
        served={kind: _served(one) for kind, one in sorted(message.served.items())},
        hot=sum(place.replica.state == hot for place in message.replicas),
        why=failed or message.waiting_reason,
        uri=message.uri,
    )


def settings_of(message: types_pb2.VersionSettings) -> Settings:
    def word(enum: type, value: int, prefix: str) -> str | None:
        said = enum_word(enum, value, prefix).lower().replace("_", "-")
        return None if said == "unspecified" else said

    return Settings(
        image_size=message.image_size,
        image_height=message.image_height,
        image_width=message.image_width,
        image_sizes=tuple(message.image_sizes),
        confidence=shortest(message.confidence) if message.HasField("confidence") else None,
        iou=shortest(message.iou) if message.HasField("iou") else None,
        max_detections=message.max_detections if message.HasField("max_detections") else None,
        shape_policy=word(types_pb2.ShapePolicy, message.shape_policy, "SHAPE_POLICY_"),
        head_mode=word(types_pb2.HeadMode, message.head_mode, "HEAD_MODE_"),
        output_layout=word(types_pb2.OutputLayout, message.output_layout, "OUTPUT_LAYOUT_"),
    )


def _residency(message: types_pb2.Residency) -> Residency:
    kept = residency_of(message)
    return Residency(
        mode=kept.mode,
        idle_release_s=shortest(kept.idle_release_s) or Residency().idle_release_s,
        cpu_fallback=kept.cpu_fallback,
    )


def _placement(message: types_pb2.Placement) -> Placement:
    where = placement_of(message)
    return Placement(
        pool=where.pool,
        labels=where.labels,
        max_replicas=where.max_replicas,
        priority=where.priority,
    )


def batching_of(message: types_pb2.Batching) -> Batching:
    return Batching(
        max_batch=message.max_batch,
        preferred_sizes=tuple(message.preferred_sizes),
        max_delay_ms=shortest(message.max_delay_ms),
        queue_capacity=message.queue_capacity,
        fixed=message.fixed,
        p99_goal_ms=shortest(message.p99_goal_ms),
    )


def _slot(build: model_pb2.ModelVersion) -> str:
    """As `declared.Build.slot`."""
    return build.version.model.removeprefix(f"{base_name(build.version.model)}+")


def _build(build: model_pb2.ModelVersion) -> PresentBuild:
    return PresentBuild(
        name=f"{build.version.model}@{build.version.version}",
        state=enum_word(model_pb2.VersionState, build.state, "VERSION_STATE_"),
        calibration=build.registered.calibration,
        reason=f"{build.reason}: {build.message}" if build.reason else "",
    )


def _served(message: model_pb2.ServedVariant) -> Served:
    variant = f"{message.variant.backend}/{message.variant.precision}"
    checks = {one.compute_class: one for one in (*message.checks, message.drift)}
    found = [check_of(one) for name, one in sorted(checks.items()) if name]
    return Served(variant, message.unchecked, tuple(found))


def check_of(message: types_pb2.Drift) -> Check:
    values: dict[str, Any] = {
        one.name: shortest(value) if isinstance(value, float) else value
        for one, value in message.ListFields()
    }
    return Check(**values)


def schedules_of(message: schedule_pb2.ListSchedulesResponse) -> tuple[Schedule, ...]:
    return tuple(_schedule(one.schedule) for one in message.schedules)


def _schedule(message: schedule_pb2.Schedule) -> Schedule:
    change = message.change
    return Schedule(
        name=message.name,
        cron=message.cron,
        time_zone=message.time_zone,
        sun=message.sun,
        place=_place(message.place) if message.HasField("place") else None,
        lead_s=shortest(message.lead_s),
        load=tuple(_preparation(one) for one in change.prepare),
        release=tuple(change.release),
    )


def _place(message: types_pb2.Place) -> Place:
    return Place(latitude=message.latitude, longitude=message.longitude)


def _preparation(message: model_pb2.LoadModelRequest) -> Preparation:
    return Preparation(
        model=message.model,
        replicas=message.replicas or 1,
        pin=message.pin,
        placement=_placement(message.placement) if message.HasField("placement") else None,
    )
