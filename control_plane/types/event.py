"""What happens to the fleet, as data: one event, its kinds, and which of them a caller asks for.

Pure and frozen.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.types.version import VersionKey
from yolopool.names import ModelRef

# How many the store keeps, about.
EVENTS_KEPT = 10_000


class EventKind(StrEnum):
    """The words of events.proto."""

    UNSPECIFIED = "UNSPECIFIED"  # of a newer release
    WORKER_JOINED = "WORKER_JOINED"
    WORKER_LEFT = "WORKER_LEFT"
    WORKER_LOST = "WORKER_LOST"  # its lease ran out
    WORKER_CORDONED = "WORKER_CORDONED"
    ASSIGNED = "ASSIGNED"  # a version is loaded on a worker
    RELEASED = "RELEASED"
    LOAD_FAILED = "LOAD_FAILED"
    VERSION_FAILED = "VERSION_FAILED"  # it can't be loaded wherever it may run
    TAKEOVER = "TAKEOVER"  # another control plane decides now
    RESTORED = "RESTORED"
    REGISTERED = "REGISTERED"
    DELETED = "DELETED"
    CHANGEOVER = "CHANGEOVER"
    SCHEDULE = "SCHEDULE"
    DIFFERENCE = "DIFFERENCE"
    WORKER_CRASHED = "WORKER_CRASHED"  # a process ended by itself
    IMAGE_QUARANTINED = "IMAGE_QUARANTINED"  # it ended two of them
    VERSION_QUARANTINED = "VERSION_QUARANTINED"  # several of its images did, and none was answered


@dataclass(frozen=True, slots=True)
class Event:
    """`id` is the store's: it grows, and is empty until the event is kept."""

    kind: EventKind
    unix_s: float
    worker: str = ""
    version: VersionKey | None = None
    reason: str = ""  # UPPER_SNAKE, where there is one
    message: str = ""  # for people
    control_plane: str = ""  # who says so
    image: str = ""  # its digest, where it is of one
    id: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a caller asks for; what is left empty asks for all."""

    kinds: Collection[EventKind] = field(default_factory=frozenset)
    model: ModelRef | None = None
    worker: str = ""

    @property
    def everything(self) -> bool:
        return not self.kinds and self.model is None and not self.worker

    def has(self, event: Event) -> bool:
        return (
            (not self.kinds or event.kind in self.kinds)
            and (not self.worker or event.worker == self.worker)
            and (self.model is None or _is_of(event.version, self.model))
        )


def _is_of(version: VersionKey | None, ref: ModelRef) -> bool:
    return (
        version is not None and version.model == ref.name and ref.version in (None, version.number)
    )
