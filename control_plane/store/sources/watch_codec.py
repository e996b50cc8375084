"""Watches as JSON, as `codec` has the other records. Pure."""

import json
from dataclasses import asdict, fields

from control_plane.types.sources.watch import Watch

_KNOWN = frozenset(field.name for field in fields(Watch))


def encode_watch(watch: Watch) -> str:
    return json.dumps(asdict(watch), separators=(",", ":"))


def decode_watch(text: str) -> Watch:
    raw = {name: value for name, value in json.loads(text).items() if name in _KNOWN}
    return Watch(**{**raw, "patterns": tuple(raw["patterns"])})
