"""The life of a replica on its worker, as a table; any other event raises, with its history.

Pure. A FAILED replica holds no bytes: it keeps the reason until the next attempt or release.
"""

from collections.abc import Mapping
from enum import StrEnum

from yolopool.server.state_machine import Life
from yolopool.vocabulary import ReplicaState


class ReplicaEvent(StrEnum):
    FETCHED = "FETCHED"  # the pack is on this machine and its manifest was read
    PROMOTED = "PROMOTED"  # weights are on the device and warmed up
    DEMOTED = "DEMOTED"  # evicted from the device
    FAIL = "FAIL"
    RETRY = "RETRY"  # assigned again after a failure
    RELEASE = "RELEASE"


S, E = ReplicaState, ReplicaEvent
TABLE: Mapping[tuple[ReplicaState, ReplicaEvent], ReplicaState] = {
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

# For annotations: a frozen class with slots can only be made by its own name.
ReplicaLife = Life[ReplicaState, ReplicaEvent]
