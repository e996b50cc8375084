"""What changed in the fleet between two looks at it: workers that came, left or were lost, a new
decider, versions that can't be loaded. Pure.

Level-triggered, so that whoever takes over reports what happened while nobody decided.
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
    """An event without its time and author."""

    kind: EventKind
    worker: str = ""
    version: VersionKey | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The fleet as the control plane that decides sees it now; times are monotonic seconds."""

    token: FencingToken
    workers: Mapping[str, WorkerInfo]
    waits: Mapping[VersionKey, Blocked]
    wanted: Collection[VersionKey]  # of those that are known to have failed
    now: float


@dataclass(frozen=True, slots=True)
class Reported:
    """What was reported so far under `token`: the worker processes that are here (id ->
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
        """At a takeover: the workers that are on record, beside what this control plane reported
        when it decided `before`.
        """
        present = {worker.id: worker.incarnation for worker in recorded}
        if before is None:
            return cls(token, now, present)
        return replace(before, token=token, since=now, present={**before.present, **present})


def diff(known: Reported, look: Observation, gather_s: float) -> tuple[Reported, list[Notice]]:
    """What is new since `known`, and what is known then.

    gather_s: how long a worker on record may take to call here before it counts as lost.
    """
    arrived = [_joined(w, known) for w in look.workers.values() if _is_new(w, known)]
    gone = [_gone(id_, known, look, gather_s) for id_ in known.present]
    final = {key: wait for key, wait in look.waits.items() if wait.final}
    # A want that was given up leaves its reason for a while.
    failed = {
        key: reason
        for key, reason in known.failed.items()
        if (key in look.wanted or key in final) and not _is_loaded(key, look.workers)
    }
    news = [wait for key, wait in final.items() if failed.get(key) != wait.reason]
    notices = [
        *arrived,
        *(notice for notice in gone if notice is not None),
        *(Notice(EventKind.VERSION_FAILED, "", w.key, w.reason, w.why) for w in news),
    ]
    present = dict(known.present)
    for notice in notices:
        if notice.kind is EventKind.WORKER_JOINED:
            present[notice.worker] = look.workers[notice.worker].incarnation
        elif notice.worker:
            del present[notice.worker]
    return replace(
        known,
        present=present,
        called=(known.called | look.workers.keys()) & present.keys(),
        failed={**failed, **{wait.key: wait.reason for wait in news}},
    ), notices


def _is_new(worker: WorkerInfo, known: Reported) -> bool:
    is_here = worker.state is not WorkerState.LOST
    return is_here and known.present.get(worker.id) != worker.incarnation


def _joined(worker: WorkerInfo, known: Reported) -> Notice:
    says = f"{worker.device_name or worker.device} at {worker.address}"
    if worker.replaces_because:
        says += f", in the place of another: {worker.replaces_because}"
    elif worker.id in known.present:
        says += ", a new process in the place of another"
    return Notice(EventKind.WORKER_JOINED, worker.id, message=says)


def _gone(id_: str, known: Reported, look: Observation, gather_s: float) -> Notice | None:
    worker = look.workers.get(id_)
    if worker is not None:
        is_lost = worker.state is WorkerState.LOST and worker.incarnation == known.present[id_]
        why = "it ended, or sent no heartbeat until its lease ran out"
        return Notice(EventKind.WORKER_LOST, id_, message=why) if is_lost else None
    if id_ in known.called:
        return Notice(EventKind.WORKER_LEFT, id_, message="it said so, its requests are answered")
    if look.now - known.since < gather_s:
        return None
    why = f"it has not called the control plane that decides now within {gather_s:g} s"
    return Notice(EventKind.WORKER_LOST, id_, message=why)


def _is_loaded(key: VersionKey, workers: Mapping[str, WorkerInfo]) -> bool:
    return any(
        key in worker.replicas and worker.replicas[key].state in LOADED
        for worker in workers.values()
        if worker.state is not WorkerState.LOST
    )
