"""What became of desired state since a revision: the part of it that was written. Pure.

What a store answers in place of everything, so that one change costs the same whatever there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.types.desired import ModelVersion, VersionKey, Want
from control_plane.types.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Changes:
    """Each key that was written since, with what it is at `revision`; None: gone."""

    revision: int
    mark: str
    versions: Mapping[VersionKey, ModelVersion | None] = field(default_factory=dict)
    wants: Mapping[VersionKey, Want | None] = field(default_factory=dict)
    cordons: Mapping[str, str | None] = field(default_factory=dict)
    schedules: Mapping[str, Schedule | None] = field(default_factory=dict)
    numbers: Mapping[str, int | None] = field(default_factory=dict)
