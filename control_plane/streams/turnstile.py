"""Gives turns to the streams of this control plane: `turns` for each version, priority and tenant,
with as many frames in flight as keep the version's devices busy. Tenants take turns at the worker.
"""

from dataclasses import dataclass, field
from typing import Protocol

from control_plane.streams.pass_times import PassTimes
from control_plane.streams.turns import Turns
from control_plane.types.rollout.alias import point_for
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, Replica
from control_plane.view.view import View
from yolopool.errors import YolopoolError
from yolopool.names import parse_ref
from yolopool.v1 import detection_pb2

# Of a replica that has not said how many images its passes may have.
UNKNOWN_BATCH = 4


class TakesTurns(Protocol):
    """A stream."""

    def begin(self, group: "Group") -> None:
        """Starts its next frame, now; then calls `Turnstile.ended` once it is answered."""
        ...


@dataclass(slots=True, eq=False)
class Group:
    """The streams of one version, priority and tenant."""

    key: tuple[VersionKey, int, str]
    turns: Turns[TakesTurns] = field(default_factory=Turns)
    passes: PassTimes = field(default_factory=PassTimes)
    is_giving: bool = False


class Turnstile:
    def __init__(self, view: View) -> None:
        self._view = view
        self._groups: dict[tuple[VersionKey, int, str], Group] = {}

    def group(
        self, model: str, priority: int, tenant: str = "", sticky_key: str = ""
    ) -> Group | None:
        """Where a stream of this model asks now; None: the model can't be used, so that its frames
        fail at once, without a turn.
        """
        ref = parse_ref(model)
        try:
            point = point_for(ref, sticky_key, float)
            key = (self._view.catalogue.ready(ref, point).key, priority, tenant)
        except YolopoolError:
            return None
        return self._groups.setdefault(key, Group(key))

    def ask(self, stream: TakesTurns, group: Group) -> None:
        """Asks for one turn; `begin` may be called before this returns."""
        group.turns.ask(stream)
        self._give(group)

    def withdraw(self, stream: TakesTurns, group: Group) -> None:
        group.turns.withdraw(stream)
        self._forget(group)

    def ended(self, stream: TakesTurns, group: Group) -> None:
        group.turns.ended(stream)
        self._give(group)
        self._forget(group)

    def answered(self, group: Group, answer: detection_pb2.DetectResponse) -> None:
        """Learns from an answer how many frames to have in flight."""
        timing = answer.timing
        if not answer.tiles:
            group.passes.record(
                answer.batch_size,
                timing.inference_ms / 1000,
                timing.queue_ms / 1000,
                group.turns.is_scarce,
            )

    def _give(self, group: Group) -> None:
        if group.is_giving:
            return  # a stream that began asks again: the loop below goes on with it
        group.is_giving = True
        try:
            limit = self._limit(group)
            while (stream := group.turns.next(limit)) is not None:
                stream.begin(group)
        finally:
            group.is_giving = False

    def _limit(self, group: Group) -> int:
        replicas = self._view.replicas(group.key[0])
        return group.passes.limit([_batch(one) for _, one in replicas if one.state in LOADED])

    def _forget(self, group: Group) -> None:
        if not group.turns:
            self._groups.pop(group.key, None)


def _batch(replica: Replica) -> int:
    asked = replica.batching.max_batch if replica.batching is not None else 0
    measured = replica.footprint.max_batch if replica.footprint is not None else 0
    known = [size for size in (asked, measured) if size]
    return min(known, default=UNKNOWN_BATCH)
