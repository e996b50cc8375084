"""Rules of models, and validations of versions, as JSON; see `codec`. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from control_plane.store.rollouts.rollout_codec import made
from control_plane.types.policy import Gate, ModelRule, Validation


def encode_rule(rule: ModelRule) -> str:
    return json.dumps(asdict(rule), separators=(",", ":"))


def decode_rule(text: str) -> ModelRule:
    raw = json.loads(text)
    gate = raw.get("gate")
    return made(ModelRule, {**raw, "gate": made(Gate, gate) if gate is not None else None})


def validation_of(raw: Mapping[str, Any] | None) -> Validation | None:
    return made(Validation, raw) if raw is not None else None
