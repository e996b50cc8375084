"""Events of the fleet: one event, the kinds, and a caller's filter.

Pure and frozen.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.types.version import VersionKey
from yolopool.names import ModelRef

# The store keeps about this many.
EVENTS_KEPT = 10_000


class EventKind(StrEnum):
    """The kinds of events.proto."""

    UNSPECIFIED = "UNSPECIFIED"  # a kind of a newer release
    WORKER_JOINED = "WORKER_JOINED"
    WORKER_LEFT = "WORKER_LEFT"
    WORKER_LOST = "WORKER_LOST"  # its lease ran out
    WORKER_CORDONED = "WORKER_CORDONED"
    ASSIGNED = "ASSIGNED"  # a version is loaded on a worker
    RELEASED = "RELEASED"
    LOAD_FAILED = "LOAD_FAILED"
    VERSION_FAILED = "VERSION_FAILED"  # no worker that may run it can load it
    TAKEOVER = "TAKEOVER"  # another control plane leads now
    RESTORED = "RESTORED"  # what the store had lost was put back
    STORE_REFUSES_WRITES = "STORE_REFUSES_WRITES"  # it answers, and takes no writes
    REGISTERED = "REGISTERED"
    DELETED = "DELETED"
    CHANGEOVER = "CHANGEOVER"
    SCHEDULE = "SCHEDULE"
    ALIAS = "ALIAS"  # an alias moved, or a switch of it was given up
    ROLLOUT = "ROLLOUT"  # a rollout began, went a step on, or ended
    DIFFERENCE = "DIFFERENCE"
    WORKER_CRASHED = "WORKER_CRASHED"  # a process ended unexpectedly
    IMAGE_QUARANTINED = "IMAGE_QUARANTINED"  # an image ended two processes
    VALIDATED = "VALIDATED"  # a version was evaluated for its model's gate
    FETCH_FAILED = "FETCH_FAILED"  # the file of a version can't be fetched
    WATCH_FAILED = "WATCH_FAILED"  # a watched folder can't be read
    ALERT_FIRING = "ALERT_FIRING"
    ALERT_RESOLVED = "ALERT_RESOLVED"
    WEBHOOK_FAILED = "WEBHOOK_FAILED"  # a receiver of alerts could not be told for a while
    PROBE_FAILED = "PROBE_FAILED"  # a version answered its picture otherwise, and was loaded again
    BATCHING_ADAPTED = "BATCHING_ADAPTED"  # a worker adapted it to a version's p99 goal
    GOAL_OUT_OF_REACH = "GOAL_OUT_OF_REACH"  # by nothing that the policy allows
    GOAL_REACHED = "GOAL_REACHED"
    VERSION_QUARANTINED = "VERSION_QUARANTINED"  # several of its images did, and none was answered


@dataclass(frozen=True, slots=True)
class Event:
    """`id` is given by the store and increases; empty until the event is stored."""

    kind: EventKind
    unix_s: float
    worker: str = ""
    version: VersionKey | None = None
    reason: str = ""  # UPPER_SNAKE, where there is one
    message: str = ""  # for people
    control_plane: str = ""  # the control plane that recorded it
    image: str = ""  # digest, where the event is about an image
    id: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a caller asks for; an empty field matches all."""

    kinds: Collection[EventKind] = field(default_factory=frozenset)
    model: ModelRef | None = None
    worker: str = ""

    @property
    def everything(self) -> bool:
        return not self.kinds and self.model is None and not self.worker

    def has(self, event: Event, of_alias: Collection[int] = ()) -> bool:
        """Whether it is asked for; `of_alias`: the versions that the alias in `model` needs now."""
        return (
            (not self.kinds or event.kind in self.kinds)
            and (not self.worker or event.worker == self.worker)
            and (self.model is None or _is_of(event.version, self.model, of_alias))
        )


def _is_of(version: VersionKey | None, ref: ModelRef, of_alias: Collection[int]) -> bool:
    if version is None or version.model != ref.name:
        return False
    if ref.alias is not None:
        return version.number in of_alias
    return ref.version in (None, version.number)
