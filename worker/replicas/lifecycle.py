"""The life of a replica on its worker, as a table; anything else is a bug and says its story.

Pure. FAILED holds no bytes: it only keeps the reason until the next attempt or release.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class ReplicaState(StrEnum):
    ASSIGNED = "ASSIGNED"  # accepted; bytes are on their way
    WARM = "WARM"  # weights in host memory
    HOT = "HOT"  # on the device and warmed up
    RELEASING = "RELEASING"  # no new tickets, waits for its last
    FAILED = "FAILED"  # the load failed


class ReplicaEvent(StrEnum):
    FETCHED = "FETCHED"  # the pack is in host memory
    PROMOTED = "PROMOTED"  # weights are on the device and warmed up
    DEMOTED = "DEMOTED"  # dropped from the device, kept in host memory
    FAIL = "FAIL"
    RETRY = "RETRY"  # assigned again after a failure
    RELEASE = "RELEASE"


S, E = ReplicaState, ReplicaEvent
TABLE: dict[tuple[ReplicaState, ReplicaEvent], ReplicaState] = {
    (S.ASSIGNED, E.FETCHED): S.WARM,
    (S.ASSIGNED, E.FAIL): S.FAILED,
    (S.WARM, E.PROMOTED): S.HOT,
    (S.WARM, E.FAIL): S.FAILED,
    (S.WARM, E.RELEASE): S.RELEASING,
    (S.HOT, E.DEMOTED): S.WARM,
    (S.HOT, E.RELEASE): S.RELEASING,
    (S.FAILED, E.RETRY): S.ASSIGNED,
    (S.FAILED, E.RELEASE): S.RELEASING,
}
# States in which a replica takes new tickets: a WARM one is promoted first.
SERVING = frozenset({S.WARM, S.HOT})


class InvalidTransition(AssertionError):
    """A transition that the table does not have."""


@dataclass(frozen=True, slots=True)
class Life:
    """State of one replica and the events that led there."""

    key: str
    state: ReplicaState = ReplicaState.ASSIGNED
    story: tuple[ReplicaEvent, ...] = ()

    def apply(self, event: ReplicaEvent) -> "Life":
        """The next state, or InvalidTransition with the story so far."""
        after = TABLE.get((self.state, event))
        if after is None:
            story = ", ".join(self.story) or "nothing"
            raise InvalidTransition(f"{self.key} is {self.state} after {story}: no {event} here")
        # The last twenty are enough to tell what went wrong, and bound a long life.
        return replace(self, state=after, story=(*self.story, event)[-20:])
