"""Encodes what the registry keeps as JSON, readable with redis-cli, and decodes it. Pure.

Missing fields take their defaults, and unknown ones are ignored and kept (`keeping`), so that two
releases can share a store. A word that a newer release made is read as `WORDS` says, and kept too.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any, TypeVar

from control_plane.store.rollouts.rollout_codec import made, rollout_of
from control_plane.store.rules.rule_codec import validation_of
from control_plane.store.transaction import ImportJob
from control_plane.types.access.api_key import ApiKey, Joining, Role, SecretHash
from control_plane.types.access.tenant import Tenant, TenantLimits
from control_plane.types.desired import Want, WantSource
from control_plane.types.event import Event, EventKind
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.moments.sun import sun_of
from control_plane.types.policy import Placement, Residency, ResidencyMode, batching_of
from control_plane.types.rollout.alias import (
    Alias,
    AliasChange,
    AliasKey,
    Kept,
    Shadow,
    Switch,
    Target,
)
from control_plane.types.rollout.family import family_of
from control_plane.types.schedule import NEVER, Changeover, Preparation, Schedule
from control_plane.types.sources.source import Source
from control_plane.types.version import (
    Drift,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.types.worker import Ledger, LoadReport, Replica, WorkerInfo, WorkerState
from yolopool.server.arrival_rates import ArrivalRates
from yolopool.vocabulary import HeadMode, OutputLayout, Priority, ReplicaState, ShapePolicy

Record = TypeVar("Record")
Key = TypeVar("Key")

# Records within records, which are changed in place. A pack or a gate is replaced as a whole.
PARTS: Mapping[type[Any], Mapping[str, type[Any]]] = {
    ModelVersion: {"settings": VersionSettings, "asked": VersionSettings, "given": ServingSpec},
    ServingSpec: {"residency": Residency, "placement": Placement},
    Schedule: {"change": Changeover},
    Tenant: {"limits": TenantLimits},
}


# What a word is read as that this release does not know: what serves and takes away least.
WORDS: Mapping[type[Any], Mapping[str, StrEnum]] = {
    ModelVersion: {"state": VersionState.FAILED},  # is not loaded
    Want: {"source": WantSource.ADMIN},
    Residency: {"mode": ResidencyMode.NORMAL},
    Placement: {"priority": Priority.NORMAL},
    Tenant: {"priority_ceiling": Priority.BULK},
    WorkerInfo: {"state": WorkerState.STARTING},
    Replica: {"state": ReplicaState.ASSIGNED},
}


def keeping(kind: type[Any], text: str, before: str) -> str:
    """A record that is written, with what another release had written into it and this one does
    not know of.
    """
    new, old = json.loads(text), json.loads(before)
    merged = _with_unknown(kind, new, old)
    return text if merged == new else _dump(merged)


def _with_unknown(
    kind: type[Any], new: Mapping[str, Any], old: Mapping[str, Any]
) -> Mapping[str, Any]:
    known, parts = {field.name for field in fields(kind)}, PARTS.get(kind, {})
    inner = {
        name: _with_unknown(part, new[name], old[name])
        for name, part in parts.items()
        if isinstance(new.get(name), dict) and isinstance(old.get(name), dict)
    }
    unknown = {name: value for name, value in old.items() if name not in known}
    words = {
        name: old[name]
        for name, instead in WORDS.get(kind, {}).items()
        if name in old and new.get(name) == instead and not _is_word(old[name], instead)
    }
    return {**new, **inner, **unknown, **words}


def _word(kind: type[Any], raw: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """A word of a record; `default`: where it has none. Raises KeyError without a default."""
    instead = WORDS[kind][name]
    text = raw[name] if default is None else raw.get(name, default)
    try:
        return type(instead)(text)
    except ValueError:
        return instead


def _is_word(text: Any, like: StrEnum) -> bool:
    return any(text == known for known in type(like))


def decode_key(text: str) -> VersionKey:
    """Reads name@number."""
    name, _, number = text.rpartition("@")
    return VersionKey(name, int(number))


def encode_version(version: ModelVersion) -> str:
    return _dump({**asdict(version), "key": str(version.key)})


def decode_version(text: str) -> ModelVersion:
    raw = json.loads(text)
    asked = raw.get("asked")
    return made(
        ModelVersion,
        {
            **raw,
            "key": decode_key(raw["key"]),
            "state": _word(ModelVersion, raw, "state"),
            "settings": _settings(raw["settings"]),
            "pack": _pack(raw["pack"]),
            "asked": _settings(asked) if asked is not None else None,
            "given": _serving_spec(raw.get("given", {})),
            "validation": validation_of(raw.get("validation")),
        },
    )


def _pack(raw: Mapping[str, Any] | None) -> Pack | None:
    if raw is None:
        return None
    lists = ("class_names", "warnings", "tried")
    parts: dict[str, Any] = {name: tuple(raw.get(name, ())) for name in lists}
    if "backend" not in raw and raw["architecture"].startswith("onnx-"):
        parts |= {"backend": "onnx", "precision": "fp32"}  # an earlier release did not write them
    return made(Pack, {**raw, **parts})


def _settings(raw: Mapping[str, Any]) -> VersionSettings:
    policy, head, layout = (
        raw.get(name) for name in ("shape_policy", "head_mode", "output_layout")
    )
    words = {
        "image_sizes": tuple(raw.get("image_sizes", ())),
        "shape_policy": ShapePolicy(policy) if policy else None,
        "head_mode": HeadMode(head) if head else None,
        "output_layout": OutputLayout(layout) if layout else None,
    }
    return made(VersionSettings, {**raw, **words})


def _serving_spec(raw: Mapping[str, Any]) -> ServingSpec:
    residency = raw.get("residency", {})
    mode = _word(Residency, residency, "mode", ResidencyMode.NORMAL)
    parts = {
        "residency": made(Residency, {**residency, "mode": mode}),
        "placement": _placement(raw.get("placement", {})),
        "class_names": tuple(raw.get("class_names", ())),
        "batching": {kind: batching_of(part) for kind, part in raw.get("batching", {}).items()},
        "served": {kind: _served_build(part) for kind, part in raw.get("served", {}).items()},
        "build_of": VersionKey(*raw["build_of"]) if raw.get("build_of") else None,
        "source": made(Source, raw["source"]) if raw.get("source") else None,
        "renamed": {int(number): name for number, name in raw.get("renamed", {}).items()},
    }
    return made(ServingSpec, {**raw, **parts})


def _served_build(raw: Mapping[str, Any]) -> ServedBuild:
    drift = raw.get("drift")
    checks = {name: made(Drift, one) for name, one in raw.get("checks", {}).items()}
    parts = {
        "pack": _pack(raw.get("pack")),
        "drift": made(Drift, drift) if drift is not None else None,
    }
    return made(ServedBuild, {**raw, **parts, "checks": checks})


def _placement(raw: Mapping[str, Any]) -> Placement:
    priority = _word(Placement, raw, "priority", Priority.NORMAL)
    return made(Placement, {**raw, "priority": priority})


def encode_footprint(footprint: Footprint) -> str:
    return _dump(asdict(footprint))


def decode_footprint(text: str) -> Footprint:
    return made(Footprint, json.loads(text))


def encode_footprint_key(key: FootprintKey) -> str:
    """Three words, since an older release reads no other number. The compute class, if it is known,
    is part of the last one (cpu/amx), which such a release takes for another kind of device.
    """
    kind = "/".join(filter(None, (key.device_kind, key.compute_class)))
    return f"{key.pack} {key.variant} {kind}"


def decode_footprint_key(text: str) -> FootprintKey:
    """Raises ValueError for a key that this release does not know how to read."""
    pack, variant, kind = text.split(" ")
    device_kind, _, compute_class = kind.partition("/")
    return FootprintKey(pack, variant, device_kind, compute_class)


def encode_want(want: Want) -> str:
    return _dump({**asdict(want), "key": str(want.key)})


def decode_want(text: str) -> Want:
    raw = json.loads(text)
    source = _word(Want, raw, "source")
    return made(Want, {**raw, "key": decode_key(raw["key"]), "source": source})


def encode_job(job: ImportJob) -> str:
    return json.dumps(asdict(job))


def decode_job(text: str) -> ImportJob:
    return made(ImportJob, json.loads(text))


def encode_schedule(schedule: Schedule) -> str:
    return _dump(asdict(schedule))


def decode_schedule(text: str) -> Schedule:
    raw = json.loads(text)
    change = raw["change"]
    parts = {
        "prepare": tuple(_preparation(part) for part in change["prepare"]),
        "release": tuple(change["release"]),
    }
    # An earlier release that replaces one by the sun keeps the field, which it does not know.
    by_sun = {"sun": sun_of(raw.get("sun")) if raw["cron"] == NEVER else None}
    return made(Schedule, {**raw, **by_sun, "change": made(Changeover, {**change, **parts})})


def encode_api_key(key: ApiKey) -> str:
    """A join token is written as a worker's key without a secret, and its own beside: an earlier
    release knows no such role, and would read no key at all.
    """
    raw = asdict(key)
    if key.joins is not None and key.role is Role.JOIN:
        raw["joins"]["secrets"] = raw["secrets"]
        raw |= {"role": Role.WORKER, "secrets": ()}
    return _dump(raw)


def decode_api_key(text: str) -> ApiKey:
    raw = json.loads(text)
    role, secrets, joins = Role.of(raw["role"]), raw["secrets"], raw.get("joins")
    parts: dict[str, Any] = {"grants": tuple(raw["grants"])}
    if joins is not None:
        of = {"role": Role.of(joins["role"]), "hosts": tuple(joins["hosts"])}
        parts["joins"] = made(Joining, {**joins, **of})
        if "secrets" in joins:
            role, secrets = Role.JOIN, joins["secrets"]
    parts["secrets"] = tuple(made(SecretHash, secret) for secret in secrets)
    return made(ApiKey, {**raw, **parts, "role": role})


def encode_tenant(tenant: Tenant) -> str:
    return _dump(asdict(tenant))


def decode_tenant(text: str) -> Tenant:
    raw = json.loads(text)
    parts = {
        "models": tuple(raw["models"]),
        "limits": made(TenantLimits, raw["limits"]),
        "priority_ceiling": _word(Tenant, raw, "priority_ceiling"),
    }
    return made(Tenant, {**raw, **parts})


def encode_alias(alias: Alias) -> str:
    return _dump(asdict(alias))


def decode_alias(text: str) -> Alias:
    raw = json.loads(text)
    switch, shadow, rollout = raw.get("switch"), raw.get("shadow"), raw.get("rollout")
    parts = {
        "targets": _targets(raw["targets"]),
        "switch": made(Switch, _with_targets(switch, "targets")) if switch else None,
        "kept": tuple(made(Kept, one) for one in raw.get("kept", ())),
        "shadow": made(Shadow, shadow) if shadow else None,
        "rollout": rollout_of(rollout) if rollout else None,
        "family": family_of(raw.get("family")),
        "history": tuple(
            made(AliasChange, _with_targets(one, "before", "after"))
            for one in raw.get("history", ())
        ),
    }
    return made(Alias, {**raw, **parts})


def decode_alias_key(text: str) -> AliasKey:
    """Reads model:name."""
    return AliasKey(*text.split(":"))


def _with_targets(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return {**raw, **{name: _targets(raw[name]) for name in names}}


def _targets(raw: Iterable[Mapping[str, Any]]) -> tuple[Target, ...]:
    return tuple(made(Target, one) for one in raw)


def _preparation(raw: Mapping[str, Any]) -> Preparation:
    placement = raw.get("placement")
    place = _placement(placement) if placement is not None else None
    return made(Preparation, {**raw, "placement": place})


def decode_fields(
    fields: Mapping[str, str | None],
    decode_name: Callable[[str], Key],
    decode_value: Callable[[str], Record],
) -> dict[Key, Record | None]:
    """Decodes the written fields of a hash; None: removed."""
    return {
        decode_name(name): decode_value(text) if text is not None else None
        for name, text in fields.items()
    }


def encode_worker(worker: WorkerInfo) -> str:
    replicas = [
        {**asdict(replica), "key": str(replica.key)} for replica in worker.replicas.values()
    ]
    # Field by field: asdict would copy the map of replicas, whose keys JSON does not allow.
    plain = {field.name: getattr(worker, field.name) for field in fields(worker)}
    nested = {"ledger": asdict(worker.ledger), "load": asdict(worker.load), "replicas": replicas}
    return _dump({**plain, **nested, "labels": dict(worker.labels), "lease_until_s": 0.0})


def decode_worker(text: str) -> WorkerInfo:
    raw = json.loads(text)
    replicas = [_replica(part) for part in raw["replicas"]]
    return made(
        WorkerInfo,
        {
            **raw,
            "state": _word(WorkerInfo, raw, "state"),
            "ledger": made(Ledger, raw["ledger"]),
            "load": made(LoadReport, raw["load"]),
            "replicas": {replica.key: replica for replica in replicas},
            "io_addresses": tuple(raw.get("io_addresses", ())),
        },
    )


def _replica(raw: Mapping[str, Any]) -> Replica:
    footprint, batching = raw.get("footprint"), raw.get("batching")
    parts = {
        "key": decode_key(raw["key"]),
        "state": _word(Replica, raw, "state"),
        "footprint": made(Footprint, footprint) if footprint is not None else None,
        "rates": made(ArrivalRates, raw.get("rates", {})),
        "batching": batching_of(batching) if batching is not None else None,
        "adaption": None,  # its worker tells it again
    }
    return made(Replica, {**raw, **parts})


def encode_event(event: Event) -> str:
    """Leaves out the id, which the store assigns."""
    version = str(event.version) if event.version is not None else None
    return _dump({**asdict(event), "version": version, "id": ""})


def decode_event(id_: str, text: str) -> Event:
    raw = json.loads(text)
    # A newer release may know more kinds.
    kind = EventKind.__members__.get(raw["kind"], EventKind.UNSPECIFIED)
    version = decode_key(raw["version"]) if raw["version"] is not None else None
    return made(Event, {**raw, "kind": kind, "version": version, "id": id_})


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
