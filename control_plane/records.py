"""Nouns of the fleet as JSON and back, readable with redis-cli. Unknown fields are ignored and
missing ones take their defaults, so that two releases can share a store.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from control_plane.fleet import (
    Ledger,
    LoadReport,
    ModelVersion,
    Pack,
    Replica,
    ReplicaState,
    ShapePolicy,
    VersionKey,
    VersionSettings,
    VersionState,
    Want,
    WantSource,
    WorkerInfo,
    WorkerState,
)

Record = TypeVar("Record")


def key_of(text: str) -> VersionKey:
    """Reads name@number."""
    name, _, number = text.rpartition("@")
    return VersionKey(name, int(number))


def version_to(version: ModelVersion) -> str:
    return _dump({**asdict(version), "key": str(version.key)})


def version_of(text: str) -> ModelVersion:
    raw = json.loads(text)
    pack, settings = raw["pack"], raw["settings"]
    policy = settings["shape_policy"]
    settings = {**settings, "shape_policy": ShapePolicy(policy) if policy else None}
    if pack is not None:
        tuples = {name: tuple(pack[name]) for name in ("class_names", "warnings")}
        pack = _make(Pack, {**pack, **tuples})
    return _make(
        ModelVersion,
        {
            **raw,
            "key": key_of(raw["key"]),
            "state": VersionState(raw["state"]),
            "settings": _make(VersionSettings, settings),
            "pack": pack,
        },
    )


def want_to(want: Want) -> str:
    return _dump({**asdict(want), "key": str(want.key)})


def want_of(text: str) -> Want:
    raw = json.loads(text)
    return _make(Want, {**raw, "key": key_of(raw["key"]), "source": WantSource(raw["source"])})


def worker_to(worker: WorkerInfo) -> str:
    replicas = [{**asdict(one), "key": str(one.key)} for one in worker.replicas.values()]
    # Field by field: asdict would copy the mapping of replicas, whose keys are no JSON keys.
    plain = {field.name: getattr(worker, field.name) for field in fields(worker)}
    nested = {"ledger": asdict(worker.ledger), "load": asdict(worker.load), "replicas": replicas}
    return _dump({**plain, **nested, "labels": dict(worker.labels), "lease_until_s": 0.0})


def worker_of(text: str) -> WorkerInfo:
    raw = json.loads(text)
    replicas = [
        _make(Replica, {**one, "key": key_of(one["key"]), "state": ReplicaState(one["state"])})
        for one in raw["replicas"]
    ]
    return _make(
        WorkerInfo,
        {
            **raw,
            "state": WorkerState(raw["state"]),
            "ledger": _make(Ledger, raw["ledger"]),
            "load": _make(LoadReport, raw["load"]),
            "replicas": {replica.key: replica for replica in replicas},
        },
    )


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _make(cls: type[Record], raw: Mapping[str, Any]) -> Record:
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type] # dataclasses all
    return cls(**{name: value for name, value in raw.items() if name in known})
