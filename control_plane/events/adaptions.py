"""What workers adapted since the last look: the batching of versions to their p99 goals. Pure.

A replica that is seen for the first time says nothing: what it was adapted to before, another
leader has recorded.
"""

from collections.abc import Mapping

from control_plane.events.transitions import Notice
from control_plane.types.event import EventKind
from control_plane.types.version import VersionKey
from control_plane.types.worker import Adaption, WorkerInfo

# By worker, its incarnation and the version.
Adaptions = Mapping[tuple[str, str, VersionKey], Adaption]


def diff(known: Adaptions, workers: Mapping[str, WorkerInfo]) -> tuple[Adaptions, list[Notice]]:
    """What is adapted now, and an event for each change since `known`."""
    seen: dict[tuple[str, str, VersionKey], Adaption] = {}
    notices: list[Notice] = []
    for worker in workers.values():
        for key, replica in worker.replicas.items():
            if (now := replica.adaption) is None:
                continue
            place = (worker.id, worker.incarnation, key)
            seen[place] = now
            before = known.get(place, now)
            if before is not now:
                notices += [
                    Notice(kind, worker.id, key, message=message)
                    for kind, message in _changes(before, now, _goal_ms(worker, key))
                ]
    return seen, notices


def _goal_ms(worker: WorkerInfo, key: VersionKey) -> float:
    batching = worker.replicas[key].batching
    return batching.p99_goal_ms if batching is not None else 0.0


def _changes(before: Adaption, now: Adaption, goal_ms: float) -> list[tuple[EventKind, str]]:
    measured = f"p99 {now.p99_ms:.3g} ms, its goal is {goal_ms:g} ms"
    changes: list[tuple[EventKind, str]] = []
    if (before.max_batch, before.max_delay_ms) != (now.max_batch, now.max_delay_ms):
        to = f"{_says(before)} -> {_says(now)}: {measured}"
        changes.append((EventKind.BATCHING_ADAPTED, to))
    if now.is_out_of_reach and not before.is_out_of_reach:
        why = "no batch and delay that are allowed reach it at this rate: see yolopool tune"
        changes.append((EventKind.GOAL_OUT_OF_REACH, f"{measured}: {why}"))
    if before.is_out_of_reach and not now.is_out_of_reach:
        changes.append((EventKind.GOAL_REACHED, measured))
    return changes


def _says(one: Adaption) -> str:
    return f"batch {one.max_batch}, delay {one.max_delay_ms:.3g} ms"
