"""Why a version is where it is, and what a load would do: the real plan, asked about fleets and
wants that are not. Pure.

No rule is repeated here: whether a worker could take a version is what the plan says of a board
on which only that worker sits.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from control_plane.scheduling import reasons, retention
from control_plane.scheduling.context import CPU
from control_plane.scheduling.plan import replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.command import Assign, Blocked, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import footprint
from control_plane.types.policy import Placement, ResidencyMode
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from control_plane.types.worker import Replica, WorkerInfo, WorkerState
from yolopool.vocabulary import ReplicaState

_THERE = {
    ReplicaState.HOT: "it is on the device",
    ReplicaState.WARM: "it is in host memory and comes to the device in turn",
    ReplicaState.ASSIGNED: "it is being loaded",
}
_NOT_LIVE = {
    WorkerState.STARTING: ("UNAVAILABLE", "its device is not ready yet"),
    WorkerState.READY: ("WORKER_LOST", "its lease ran out"),
    WorkerState.DRAINING: ("DRAINING", "it finishes what it has and takes nothing new"),
    WorkerState.HUNG: ("DEVICE_HUNG", "its device hangs, and the process starts anew"),
    WorkerState.LOST: ("WORKER_LOST", "its lease ran out"),
}
_LEAVING = "it is leaving, and can be loaded again when it has left"
_WHO = {
    WantSource.ADMIN: "asked for by name",
    WantSource.MISS: "asked for since requests found it nowhere",
    WantSource.PREFETCH: "likely to be asked for",
}


@dataclass(frozen=True, slots=True)
class Feasibility:
    """What a worker is to a version. `replica`: it is there, in whatever state. `reason` of a
    feasible one is BUILD_UNCHECKED or empty: another build serves it there than on others.
    """

    worker: WorkerInfo
    replica: Replica | None
    feasible: bool
    reason: str  # UPPER_SNAKE of what hinders it, or its build
    why: str
    weights_bytes: int
    free_bytes: int
    load_ms: float


# --- a load that nobody asked for yet ---------------------------------------------------------


def plan_for(
    snapshot: Snapshot,
    want: Want,
    placement: Placement | None,
    waiting: Collection[VersionKey],
    now: float,
) -> list[Assign | Release | Blocked]:
    """The commands that this want would cause, as LoadModel would set it: its own, and what it
    changes for others that wait. Failures do not count: who asks by name has it tried at once.
    now: monotonic seconds.
    """
    desired = snapshot.desired
    version, old = desired.versions[want.key], desired.want(want.key)
    if placement is not None:
        version = replace(version, given=replace(version.given, placement=placement))
    then = replace(
        _wanting(snapshot, want.following(old)),
        failures=_without(snapshot.failures, want.key),
    )
    versions = {**desired.versions, want.key: version}
    then = replace(then, desired=replace(then.desired, versions=versions))
    about = {want.key, *waiting}
    anyway = set(replan(ProposedFleet.of(snapshot, now), snapshot, now, about))
    commands = replan(ProposedFleet.of(then, now), then, now, about)
    return [
        command
        for command in commands
        if isinstance(command, Assign | Release | Blocked)
        and (command.key == want.key or command not in anyway)
    ]


def _wanting(snapshot: Snapshot, want: Want) -> Snapshot:
    wants = {**snapshot.desired.wants, want.key: want}
    return replace(snapshot, desired=replace(snapshot.desired, wants=wants))


def _without(
    failures: Mapping[tuple[str, VersionKey], LoadFailure], key: VersionKey
) -> Mapping[tuple[str, VersionKey], LoadFailure]:
    return {place: failure for place, failure in failures.items() if place[1] != key}


# --- a version --------------------------------------------------------------------------------


def value_per_gib(snapshot: Snapshot, version: ModelVersion, rate: float) -> float:
    """Cold-start seconds that one replica saves a second and GiB, on the kind of device that is
    most frequent.
    """
    builds = [worker.build for worker in snapshot.workers.values()]
    build = max(sorted(set(builds)), key=builds.count, default=DeviceVariant.usual(""))
    cost_s = retention.cold_start_s(version, build, snapshot.footprints)
    size = footprint(version, build, snapshot.footprints)
    return retention.per_gib(rate, cost_s, size.weights_bytes)


def wants_in_words(version: ModelVersion, want: Want | None, unix_s: float) -> list[str]:
    """Who wants a version, how much of it and since when: a sentence each."""
    sentences, residency = [], version.given.residency
    if residency.pins:
        sentences.append("Kept as a hot standby: always loaded and pinned on the device.")
    if want is not None:
        copies = "1 replica is" if want.replicas == 1 else f"{want.replicas} replicas are"
        pinned = ", pinned on the device" if want.pinned else ""
        age = span(unix_s - want.since_unix_s)
        sentences.append(f"{copies} wanted{pinned}, {_WHO[want.source]}, for {age} now.")
    if residency.mode is ResidencyMode.ON_DEMAND:
        idle = span(residency.idle_release_s)
        sentences.append(f"Kept on demand: released when idle for {idle}.")
    if version.given.placement.says:
        sentences.append(f"Only on workers with {version.given.placement.says}.")
    return sentences


def span(seconds: float) -> str:
    """A length of time for people: 45 s, 12 min, 3.5 h, 2 days."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


# --- its workers ------------------------------------------------------------------------------


def verdicts(snapshot: Snapshot, version: ModelVersion, now: float) -> list[Feasibility]:
    """What each worker is to a version, by id. now: monotonic seconds."""
    workers = sorted(snapshot.workers.values(), key=lambda worker: worker.id)
    want = snapshot.desired.want(version.key)
    if want is None or want.source is WantSource.PREFETCH:
        want = Want(version.key, 1, False, WantSource.MISS, snapshot.unix_s)
    # Wanted once, made for all: the wants of a fleet are many.
    asked = _wanting(snapshot, replace(want, replicas=1))
    return [_verdict(asked, version, worker, now) for worker in workers]


def _verdict(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> Feasibility:
    size = footprint(version, worker.build, snapshot.footprints)
    replica = worker.replicas.get(version.key)
    cost_s = retention.cold_start_s(version, worker.build, snapshot.footprints)
    feasible, reason, why = _feasible(snapshot, version, worker, now)
    served = version.unchecked_on(worker.build) if feasible else None
    if served is not None:
        reason = reasons.BUILD_UNCHECKED
        why = f"{why}; {reasons.unchecked(version.key, served, worker.build)}"
    return Feasibility(
        worker,
        replica,
        feasible,
        reason,
        why,
        (replica.weights_bytes if replica is not None else 0) or size.weights_bytes,
        max(0, ProposedWorker(worker, snapshot.tickets).free_bytes),
        (replica.load_ms if replica is not None else 0.0) or cost_s * 1000,
    )


def _feasible(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> tuple[bool, str, str]:
    """Whether it could be loaded there now, the reason if not, and why."""
    if not worker.is_live(now):
        return (False, *_NOT_LIVE[worker.state])
    replica = worker.replicas.get(version.key)
    if replica is not None and replica.state in _THERE:
        return True, "", _THERE[replica.state]
    if replica is not None and replica.state is ReplicaState.RELEASING:
        return False, "LEDGER_FULL", _LEAVING
    # The plan speaks of all workers where it refuses these; here one is asked.
    if snapshot.desired.is_cordoned(worker):
        return False, "DRAINING", "the worker is to drain: nothing new is loaded there"
    placement = version.given.placement
    if not version.given.runs_on(worker.device_kind):
        return False, "NO_WORKER", f"it was built for {', '.join(version.given.served)}"
    if not placement.allows(worker.labels):
        return False, "NO_WORKER", f"it may only run on workers with {placement.says}"
    return _as_planned(snapshot, version, worker, now)


def _as_planned(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> tuple[bool, str, str]:
    """What the plan does for the replica that is wanted, if all other workers are gone; beside a
    CPU the accelerators stay, which decide whether it may take the version.
    """
    key = version.key
    company = [
        one for one in snapshot.workers.values() if worker.device_kind == CPU != one.device_kind
    ]
    fleet = ProposedFleet()
    for one in (worker, *company):
        fleet.put(one, snapshot, now)
    copies = len(fleet.places.get(key, ()))
    if copies:
        want = replace(snapshot.desired.wants[key], replicas=copies + 1)
        snapshot = _wanting(snapshot, want)
    commands = [c for c in replan(fleet, snapshot, now, [key]) if c.key == key]
    for command in commands:
        if isinstance(command, Assign) and command.worker == worker.id:
            leaves = ", ".join(map(str, command.after))
            return True, "", f"{command.why}: {leaves} would leave" if leaves else command.why
    if key in snapshot.closing:
        return False, "LEDGER_FULL", _LEAVING
    waits = [command for command in commands if isinstance(command, Blocked)]
    wait = waits[0] if waits else reasons.only_cpus(key)
    return False, wait.reason, wait.why
