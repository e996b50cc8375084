"""Watches as JSON, as `codec` has the other records. Pure."""

import json
from dataclasses import asdict

from control_plane.store.rollouts.rollout_codec import made
from control_plane.types.sources.watch import Watch


def encode_watch(watch: Watch) -> str:
    return json.dumps(asdict(watch), separators=(",", ":"))


def decode_watch(text: str) -> Watch:
    raw = json.loads(text)
    return made(Watch, {**raw, "patterns": tuple(raw["patterns"])})
