"""Why a version is where it is, and what a load would do. Pure.

Both run the real plan on a fleet or a want that is supposed. No rule is repeated here: whether a
worker could take a version is what the plan decides for a fleet of that worker alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from control_plane.scheduling import reasons, retention
from control_plane.scheduling.context import CPU
from control_plane.scheduling.plan import replan
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import ProposedWorker
from control_plane.types.access.tenant import Owners
from control_plane.types.command import Assign, Blocked, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import footprint
from control_plane.types.policy import POOL, Placement, ResidencyMode
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from control_plane.types.worker import Replica, WorkerInfo, WorkerState
from yolopool.vocabulary import ReplicaState

_PRESENT = {
    ReplicaState.HOT: "it is on the device",
    ReplicaState.WARM: "it is in host memory and comes to the device in turn",
    ReplicaState.ASSIGNED: "it is being loaded",
}
_NOT_LIVE = {
    WorkerState.STARTING: ("UNAVAILABLE", "its device is not ready yet"),
    WorkerState.READY: ("WORKER_LOST", "its lease ran out"),
    WorkerState.DRAINING: (
        "DRAINING",
        "it drains: it ends its open requests and takes nothing new",
    ),
    WorkerState.HUNG: ("DEVICE_HUNG", "its device hangs, and its process is restarted"),
    WorkerState.LOST: ("WORKER_LOST", "its lease ran out"),
}
_RELEASING = "it is being released, and can be loaded again after that"
_ASKED_BY = {
    WantSource.ADMIN: "asked for by name",
    WantSource.MISS: "asked for since requests found it nowhere",
    WantSource.PREFETCH: "likely to be asked for",
    WantSource.ALIAS: "held for an alias that moves to it or may go back to it",
}


@dataclass(frozen=True, slots=True)
class Feasibility:
    """Whether a worker could load a version. `replica`: what it has of it, in whatever state.

    A feasible worker with the reason BUILD_UNCHECKED serves it by its default build.
    """

    worker: WorkerInfo
    replica: Replica | None
    feasible: bool
    reason: str  # code of what prevents it, or its build; empty: nothing does
    why: str
    weights_bytes: int
    free_bytes: int
    load_ms: float


# --- a load that is only supposed -------------------------------------------------------------


def plan_for(
    snapshot: Snapshot,
    want: Want,
    placement: Placement | None,
    waiting: Collection[VersionKey],
    now: float,
) -> list[Assign | Release | Blocked]:
    """The commands that this want would cause if LoadModel set it: its own, and those that differ
    for wants that are blocked. Back-off does not count, since LoadModel retries at once.
    now: monotonic seconds.
    """
    old = snapshot.desired.want(want.key)
    placements = {want.key: placement} if placement is not None else {}
    then = _supposing(snapshot, [want.following(old)], placements)
    about = {want.key, *waiting}
    without_it = set(replan(ProposedFleet.of(snapshot, now), snapshot, now, about))
    commands = replan(ProposedFleet.of(then, now), then, now, about)
    return [
        command
        for command in commands
        if isinstance(command, Assign | Release | Blocked)
        and (command.key == want.key or command not in without_it)
    ]


def never_fits(
    snapshot: Snapshot,
    wants: Collection[Want],
    placements: Mapping[VersionKey, Placement],
    now: float,
) -> Blocked | None:
    """Why these wants can't be met together, even if all that may leave their workers did; None if
    they may fit. now: monotonic seconds.
    """
    keys = {want.key for want in wants}
    then = _supposing(snapshot, wants, placements)
    fleet = ProposedFleet.of(then, now)
    for worker in fleet.workers.values():
        for key, replica in list(worker.replicas.items()):
            wanted = then.desired.want(key)
            if key not in keys and not (wanted.pinned if wanted is not None else replica.pinned):
                fleet.release(worker, key)
        worker.released_now |= frozenset(worker.leaving)
        # Memory that a worker reports as used and no replica explains may become free.
        worker.base_bytes = worker.fixed_bytes
    for command in replan(fleet, then, now, keys):
        if isinstance(command, Blocked) and (command.final or command.reason == "LEDGER_FULL"):
            return command
        if isinstance(command, Release) and command.reason == "ROOM":
            return reasons.too_many(command.key)
    return None


def _supposing(
    snapshot: Snapshot, wants: Collection[Want], placements: Mapping[VersionKey, Placement]
) -> Snapshot:
    """The snapshot as if these had been set. Back-off of their loads does not count."""
    desired, failures = snapshot.desired, snapshot.failures
    versions = {
        key: replace(
            desired.versions[key], given=replace(desired.versions[key].given, placement=at)
        )
        for key, at in placements.items()
    }
    set_wants = {want.key: want for want in wants}
    return replace(
        snapshot,
        desired=replace(
            desired,
            versions={**desired.versions, **versions},
            wants={**desired.wants, **set_wants},
        ),
        failures={target: failures[target] for target in failures if target[1] not in set_wants},
    )


def _wanting(snapshot: Snapshot, want: Want) -> Snapshot:
    wants = {**snapshot.desired.wants, want.key: want}
    return replace(snapshot, desired=replace(snapshot.desired, wants=wants))


# --- a version --------------------------------------------------------------------------------


def value_per_gib(snapshot: Snapshot, version: ModelVersion, rate: float) -> float:
    """Cold-start seconds that one replica saves a second and GiB, on the most frequent kind of
    device.
    """
    builds = [worker.build for worker in snapshot.workers.values()]
    build = max(sorted(set(builds)), key=builds.count, default=DeviceVariant.usual(""))
    cost_s = retention.cold_start_s(version, build, snapshot.footprints)
    size = footprint(version, build, snapshot.footprints)
    return retention.per_gib(rate, cost_s, size.weights_bytes)


def wants_in_words(version: ModelVersion, want: Want | None, unix_s: float) -> list[str]:
    """Who wants a version, how many copies and since when: a sentence each."""
    sentences, residency = [], version.given.residency
    if residency.pins:
        sentences.append("Kept as a hot standby: always loaded and pinned on the device.")
    if want is not None:
        copies = "1 replica is" if want.replicas == 1 else f"{want.replicas} replicas are"
        pinned = ", pinned on the device" if want.pinned else ""
        age = span(unix_s - want.since_unix_s)
        sentences.append(f"{copies} wanted{pinned}, {_ASKED_BY[want.source]}, for {age} now.")
    if residency.mode is ResidencyMode.ON_DEMAND:
        idle = span(residency.idle_release_s)
        sentences.append(f"Kept on demand: released when idle for {idle}.")
    if version.given.placement.requires:
        sentences.append(f"Only on workers with {version.given.placement.requires}.")
    return sentences


def span(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3.5 h, 2 days."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


# --- its workers ------------------------------------------------------------------------------


def verdicts(snapshot: Snapshot, version: ModelVersion, now: float) -> list[Feasibility]:
    """Whether each worker could load a version, in order of ids. now: monotonic seconds."""
    workers = sorted(snapshot.workers.values(), key=lambda worker: worker.id)
    want = snapshot.desired.want(version.key)
    if want is None or want.source is WantSource.PREFETCH:
        want = Want(version.key, 1, False, WantSource.MISS, snapshot.unix_s)
    # One snapshot for all workers: a copy of all wants each would be slow.
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
        max(0, ProposedWorker(worker, snapshot.calls).free_bytes),
        (replica.load_ms if replica is not None else 0.0) or cost_s * 1000,
    )


def _feasible(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> tuple[bool, str, str]:
    """Whether it could be loaded there now, the reason if not, and why."""
    if not worker.is_live(now):
        return (False, *_NOT_LIVE[worker.state])
    replica = worker.replicas.get(version.key)
    if replica is not None and replica.state in _PRESENT:
        return True, "", _PRESENT[replica.state]
    if replica is not None and replica.state is ReplicaState.RELEASING:
        return False, "LEDGER_FULL", _RELEASING
    # The plan's reasons for these speak of all workers; here one worker is asked.
    if snapshot.desired.is_cordoned(worker):
        return False, "DRAINING", "the worker is cordoned: nothing new is loaded there"
    placement = version.given.placement
    if not version.given.runs_on(worker.build):
        made = (f"{one.variant} on {kind}" for kind, one in version.given.served.items())
        return False, "NO_WORKER", f"it is a build for {', '.join(made)}, not run on this device"
    owners, pool = Owners(snapshot.desired.tenants), worker.labels.get(POOL, "")
    if not owners.allows(version.key.model, pool):
        owner = owners.of(version.key.model)
        if owner is not None and owner.pool:
            return False, "NO_WORKER", f"tenant {owner.name} has workers of its own: {owner.pool}"
        return False, "NO_WORKER", f"pool {pool} is for the models of a tenant alone"
    if not placement.allows(worker.labels):
        return False, "NO_WORKER", f"it may only run on workers with {placement.requires}"
    return _as_planned(snapshot, version, worker, now)


def _as_planned(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> tuple[bool, str, str]:
    """What the plan decides for one replica if this were the only worker. Beside a CPU the
    accelerators stay, since they decide whether it may take the version.
    """
    key = version.key
    accelerators = [
        other
        for other in snapshot.workers.values()
        if worker.device_kind == CPU != other.device_kind
    ]
    fleet = ProposedFleet()
    for member in (worker, *accelerators):
        fleet.put(member, snapshot, now)
    copies = len(fleet.holder_ids.get(key, ()))
    if copies:
        want = replace(snapshot.desired.wants[key], replicas=copies + 1)
        snapshot = _wanting(snapshot, want)
    commands = [c for c in replan(fleet, snapshot, now, [key]) if c.key == key]
    for command in commands:
        if isinstance(command, Assign) and command.worker == worker.id:
            leaves = ", ".join(map(str, command.after))
            return True, "", f"{command.why}: {leaves} would leave" if leaves else command.why
    if key in snapshot.releasing:
        return False, "LEDGER_FULL", _RELEASING
    waits = [command for command in commands if isinstance(command, Blocked)]
    blocked = waits[0] if waits else reasons.only_cpus(key)
    return False, blocked.reason, blocked.why
