"""Settings of alerts, and alerts, as JSON, as `codec` has the other records. Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from control_plane.store.rollouts.rollout_codec import made
from control_plane.types.alerts.alert_setting import (
    AlertSetting,
    Foreign,
    Silence,
    Threshold,
    Webhook,
)
from control_plane.types.alerts.alert_state import AlertState, Stage, Told

_KINDS: Mapping[str, type[Webhook] | type[Silence] | type[Threshold]] = {
    "webhook": Webhook, "silence": Silence, "threshold": Threshold,
}  # fmt: skip


def encode_setting(setting: AlertSetting) -> str:
    """With its key: the text alone says what it is of."""
    if isinstance(setting, Foreign):
        return setting.text
    return json.dumps({"key": setting.key, **asdict(setting)}, separators=(",", ":"))


def decode_setting(text: str) -> AlertSetting:
    raw = json.loads(text)
    kind = _KINDS.get(raw["key"].partition("/")[0])
    return made(kind, raw) if kind is not None else Foreign(raw["key"], text)


def encode_state(state: AlertState) -> str:
    return json.dumps(asdict(state), separators=(",", ":"))


def decode_state(text: str) -> AlertState:
    raw: dict[str, Any] = json.loads(text)
    told = {name: Told(word) for name, word in raw.get("told", {}).items()}
    return made(AlertState, {**raw, "stage": Stage(raw["stage"]), "told": told})
