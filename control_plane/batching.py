"""How the images of a version share passes on one kind of device, as the registry keeps it.

Pure. Workers carry it out; what a message may hold is checked by `checks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Batching:
    """As types.proto has it; 0 leaves it to the worker."""

    max_batch: int = 0
    preferred_sizes: tuple[int, ...] = ()
    max_delay_ms: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False


def batching_of(raw: Mapping[str, Any]) -> Batching:
    """Reads a record; fields that a newer release added are left out."""
    known = {name: raw[name] for name in Batching.__dataclass_fields__ if name in raw}
    return Batching(**{**known, "preferred_sizes": tuple(raw.get("preferred_sizes", ()))})
