"""Why a version is where it is, and what a load would do: the real plan, asked about snapshots
that are not. Pure.

No rule is repeated here: whether a worker could take a version is what `plan` says of a fleet in
which only that worker can.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from control_plane import refusals
from control_plane.bench import Bench
from control_plane.commands import Assign, Command, Wait
from control_plane.fleet import (
    LoadFailure,
    ModelVersion,
    Placement,
    Replica,
    ReplicaState,
    ResidencyMode,
    Snapshot,
    VersionKey,
    Want,
    WantSource,
    WorkerInfo,
    WorkerState,
)
from control_plane.footprints import footprint
from control_plane.placement import CPU, plan
from control_plane.worth import load_s, value
from yolopool.arrivals import NEVER, Rates

Value = TypeVar("Value")

_THERE = {
    ReplicaState.HOT: "it is on the device",
    ReplicaState.WARM: "it is in host memory and comes to the device in turn",
    ReplicaState.ASSIGNED: "it is being loaded",
}
_NOT_LIVE = {
    WorkerState.STARTING: ("UNAVAILABLE", "its device is not ready yet"),
    WorkerState.READY: ("WORKER_LOST", "its lease ran out"),
    WorkerState.DRAINING: ("DRAINING", "it finishes what it has and takes nothing new"),
    WorkerState.LOST: ("WORKER_LOST", "its lease ran out"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker is to a version. `replica`: it is there, in whatever state."""

    worker: WorkerInfo
    replica: Replica | None
    feasible: bool
    reason: str  # UPPER_SNAKE of what hinders it
    why: str
    weights_bytes: int
    free_bytes: int
    load_ms: float


def planned(
    snapshot: Snapshot, want: Want, placement: Placement | None, now: float
) -> list[Command]:
    """The commands that this want would cause, its own and those of others that it changes, as
    LoadModel would set it: tried at once, whatever failed before. now: monotonic seconds.
    """
    desired = snapshot.desired
    version, old = desired.versions[want.key], desired.want(want.key)
    if placement is not None:
        version = replace(version, given=replace(version.given, placement=placement))
    then = replace(
        snapshot,
        desired=replace(
            desired,
            versions={**desired.versions, want.key: version},
            wants={**desired.wants, want.key: want.over(old) if old is not None else want},
        ),
        failures=_without(snapshot.failures, want.key),
    )
    anyway = set(plan(snapshot, now))
    return [c for c in plan(then, now) if c.key == want.key or c not in anyway]


def _without(
    failures: Mapping[tuple[str, VersionKey], LoadFailure], key: VersionKey
) -> Mapping[tuple[str, VersionKey], LoadFailure]:
    return {place: failure for place, failure in failures.items() if place[1] != key}


def demand(snapshot: Snapshot, key: VersionKey) -> Rates:
    """Arrivals of a version over all its replicas."""
    rates = NEVER
    for worker in snapshot.workers.values():
        if worker.state is not WorkerState.LOST and key in worker.replicas:
            rates += worker.replicas[key].rates
    return rates


def value_per_gib(snapshot: Snapshot, version: ModelVersion, rate: float) -> float:
    """`worth.value` of one replica, on the kind of device that is most frequent."""
    kinds = [worker.device_kind for worker in snapshot.workers.values()]
    kind = max(sorted(set(kinds)), key=kinds.count, default="")
    size = footprint(version, kind, snapshot.footprints)
    return value(rate, load_s(size), size.kept_bytes)


def wants_in_words(version: ModelVersion, want: Want | None, unix_s: float) -> list[str]:
    """Who wants a version, how much of it and since when: a sentence each."""
    sentences, residency = [], version.given.residency
    if residency.pins:
        sentences.append("Kept as a hot standby: always loaded and pinned on the device.")
    if want is not None:
        copies = "1 replica is" if want.replicas == 1 else f"{want.replicas} replicas are"
        who = "by name" if want.source is WantSource.ADMIN else "since requests found it nowhere"
        pinned = ", pinned on the device" if want.pinned else ""
        age = span(unix_s - want.since_unix_s)
        sentences.append(f"{copies} wanted{pinned}, asked for {who}, for {age} now.")
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


def verdicts(snapshot: Snapshot, version: ModelVersion, now: float) -> list[Verdict]:
    """What each worker is to a version, by id. now: monotonic seconds."""
    workers = sorted(snapshot.workers.values(), key=lambda worker: worker.id)
    return [_verdict(snapshot, version, worker, now) for worker in workers]


def _verdict(snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float) -> Verdict:
    size = footprint(version, worker.device_kind, snapshot.footprints)
    replica = worker.replicas.get(version.key)
    feasible, reason, why = _feasible(snapshot, version, worker, now)
    return Verdict(
        worker,
        replica,
        feasible,
        reason,
        why,
        (replica.weights_bytes if replica is not None else 0) or size.weights_bytes,
        max(0, Bench.of(worker).free_bytes),
        (replica.load_ms if replica is not None else 0.0) or load_s(size) * 1000,
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
        return False, "LEDGER_FULL", "it is leaving, and can be loaded again when it has left"
    if snapshot.desired.is_cordoned(worker):
        return False, "DRAINING", "the worker is to drain: nothing new is loaded there"
    placement = version.given.placement
    if not placement.allows(worker.labels):
        return False, "NO_WORKER", f"it may only run on workers with {placement.says}"
    return _as_planned(snapshot, version, worker, now)


def _as_planned(
    snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float
) -> tuple[bool, str, str]:
    commands = plan(_alone(snapshot, version, worker, now), now)
    mine = [command for command in commands if command.key == version.key]
    assigns = [c for c in mine if isinstance(c, Assign) and c.worker == worker.id]
    waits = [c for c in mine if isinstance(c, Wait)]
    if assigns:
        leaves = ", ".join(map(str, assigns[0].after))
        return True, "", f"{assigns[0].why}: {leaves} would leave" if leaves else assigns[0].why
    wait = waits[0] if waits else refusals.only_cpus(version.key)
    return False, wait.reason, wait.why


def _alone(snapshot: Snapshot, version: ModelVersion, worker: WorkerInfo, now: float) -> Snapshot:
    """The snapshot with all other workers gone; those that decide whether this one is allowed to
    take the version stay: accelerators beside a CPU, one of each other kind for its name alone.
    """
    others = [one for one in snapshot.workers.values() if one.id != worker.id]
    company = [one for one in others if worker.device_kind == CPU != one.device_kind]
    company = [one for one in company if one.is_live(now)]
    kinds = {one.device_kind: replace(one, lease_until_s=0.0, replicas={}) for one in others}
    there = [worker, *company]
    workers = {one.id: one for one in [*kinds.values(), *there]}
    copies = sum(version.key in one.replicas for one in company)
    desired = snapshot.desired
    want = desired.want(version.key) or Want(
        version.key, 1, pinned=False, source=WantSource.MISS, since_unix_s=snapshot.unix_s
    )
    keys = {version.key, *(key for one in there for key in one.replicas)}
    wants = {**_of(desired.wants, keys), version.key: replace(want, replicas=copies + 1)}
    alone = replace(desired, versions=_of(desired.versions, keys), wants=wants)
    return replace(snapshot, desired=alone, workers=workers)


def _of(mapping: Mapping[VersionKey, Value], keys: Iterable[VersionKey]) -> dict[VersionKey, Value]:
    return {key: mapping[key] for key in keys if key in mapping}
