"""What changed between two observations of the fleet: workers that joined, left or were lost, and
versions that can't be loaded. Pure.

Level-triggered: a new leader reports what happened while there was none.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from control_plane.types.command import Blocked
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from control_plane.types.worker import LOADED, WorkerInfo, WorkerState


@dataclass(frozen=True, slots=True)
class Notice:
    """An event without its time and its control plane."""

    kind: EventKind
    worker: str = ""
    version: VersionKey | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The fleet as the leader sees it now; times are monotonic seconds."""

    token: FencingToken
    workers: Mapping[str, WorkerInfo]
    blocked: Mapping[VersionKey, Blocked]
    wanted: Collection[VersionKey]  # of the versions that are reported as failed
    now: float


@dataclass(frozen=True, slots=True)
class Reported:
    """What was reported so far under `token`: the worker processes that are present (id ->
    incarnation), which of them have called this control plane, and what can't be loaded.
    """

    token: FencingToken
    since: float
    present: Mapping[str, str]
    called: frozenset[str] = frozenset()
    failed: Mapping[VersionKey, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        token: FencingToken,
        now: float,
        recorded: Iterable[WorkerInfo],
        before: "Reported | None",
    ) -> "Reported":
        """At a takeover: the workers on record, and what this control plane reported when it led
        `before`.
        """
        present = {worker.id: worker.incarnation for worker in recorded}
        if before is None:
            return cls(token, now, present)
        return replace(before, token=token, since=now, present={**before.present, **present})


def diff(known: Reported, seen: Observation, gather_s: float) -> tuple[Reported, list[Notice]]:
    """The changes since `known`, and what is known after them.

    gather_s: how long a worker on record may take to call here before it counts as lost.
    """
    arrived = [_joined(w, known) for w in seen.workers.values() if _is_new(w, known)]
    gone = [_gone(id_, known, seen, gather_s) for id_ in known.present]
    final = {key: blocked for key, blocked in seen.blocked.items() if blocked.final}
    # The reason of a want that was dropped stays for a while.
    failed = {
        key: reason
        for key, reason in known.failed.items()
        if (key in seen.wanted or key in final) and not _is_loaded(key, seen.workers)
    }
    news = [blocked for key, blocked in final.items() if failed.get(key) != blocked.reason]
    notices = [
        *arrived,
        *(notice for notice in gone if notice is not None),
        *(Notice(EventKind.VERSION_FAILED, "", b.key, b.reason, b.why) for b in news),
    ]
    present = dict(known.present)
    for notice in notices:
        if notice.kind is EventKind.WORKER_JOINED:
            present[notice.worker] = seen.workers[notice.worker].incarnation
        elif notice.worker:
            del present[notice.worker]
    return replace(
        known,
        present=present,
        called=(known.called | seen.workers.keys()) & present.keys(),
        failed={**failed, **{blocked.key: blocked.reason for blocked in news}},
    ), notices


def _is_new(worker: WorkerInfo, known: Reported) -> bool:
    is_here = worker.state is not WorkerState.LOST
    return is_here and known.present.get(worker.id) != worker.incarnation


def _joined(worker: WorkerInfo, known: Reported) -> Notice:
    message = f"{worker.device_name or worker.device} at {worker.address}"
    if worker.replaces_because:
        message += f", replaces another: {worker.replaces_because}"
    elif worker.id in known.present:
        message += ", replaces another process"
    return Notice(EventKind.WORKER_JOINED, worker.id, message=message)


def _gone(id_: str, known: Reported, seen: Observation, gather_s: float) -> Notice | None:
    worker = seen.workers.get(id_)
    if worker is not None:
        is_lost = worker.state is WorkerState.LOST and worker.incarnation == known.present[id_]
        why = "it ended, or sent no heartbeat until its lease ran out"
        return Notice(EventKind.WORKER_LOST, id_, message=why) if is_lost else None
    if id_ in known.called:
        return Notice(EventKind.WORKER_LEFT, id_, message="it drained and said goodbye")
    if seen.now - known.since < gather_s:
        return None
    why = f"it has not called the new leader within {gather_s:g} s"
    return Notice(EventKind.WORKER_LOST, id_, message=why)


def _is_loaded(key: VersionKey, workers: Mapping[str, WorkerInfo]) -> bool:
    return any(
        key in worker.replicas and worker.replicas[key].state in LOADED
        for worker in workers.values()
        if worker.state is not WorkerState.LOST
    )
