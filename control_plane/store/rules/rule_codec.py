"""Rules of models, and validations of versions, as JSON; see `codec`. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from control_plane.types.policy import Gate, ModelRule, Validation

Record = TypeVar("Record")


def encode_rule(rule: ModelRule) -> str:
    return json.dumps(asdict(rule), separators=(",", ":"))


def decode_rule(text: str) -> ModelRule:
    raw = json.loads(text)
    gate = raw.get("gate")
    return _make(ModelRule, {**raw, "gate": _make(Gate, gate) if gate is not None else None})


def validation_of(raw: Mapping[str, Any] | None) -> Validation | None:
    return _make(Validation, raw) if raw is not None else None


def _make(cls: type[Record], raw: Mapping[str, Any]) -> Record:
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type] # dataclasses all
    return cls(**{name: value for name, value in raw.items() if name in known})
