"""Small fleets for the tests of pure decisions. Sizes are in units of one byte."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from control_plane.types.command import Assign, Command, DropWant, KeepPrefetched, Release
from control_plane.types.desired import Desired, Want, WantSource
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.policy import Placement, Residency
from control_plane.types.snapshot import LoadFailure, Snapshot
from control_plane.types.version import (
    ModelVersion,
    Pack,
    ServingSpec,
    VersionKey,
    VersionSettings,
    VersionState,
)
from control_plane.types.worker import Ledger, Replica, WorkerInfo, WorkerState
from yolopool.server.arrival_rates import ArrivalRates
from yolopool.vocabulary import VARIANTS, ReplicaState

NOW = 1000.0  # monotonic; wants and uses are on the Unix clock and are small numbers here


def key(name: str, number: int = 1) -> VersionKey:
    return VersionKey(name, number)


def version(
    name: str,
    weights: int = 10,
    state: VersionState = VersionState.READY,
    residency: Residency | None = None,
    placement: Placement | None = None,
) -> ModelVersion:
    pack = Pack(f"pack of {name}", "yolo", "detect", ("a",), weights, 0, 1)
    return ModelVersion(
        key(name),
        state,
        "a" * 64,
        VersionSettings(image_size=1),
        0.0,
        pack=pack,
        given=ServingSpec(residency or Residency(), placement=placement or Placement()),
    )


def measured(name: str, kind: str = "sim") -> FootprintKey:
    """Where a footprint of `version(name)` is kept."""
    return FootprintKey(f"pack of {name}", VARIANTS[kind], kind)


def want(name: str, since: float = 1.0, *, pinned: bool = False, replicas: int = 1) -> Want:
    source = WantSource.ADMIN if pinned else WantSource.MISS
    return Want(key(name), replicas, pinned, source, since)


def replica(
    name: str,
    weights: int = 10,
    workspace: int = 0,
    *,
    state: ReplicaState = ReplicaState.HOT,
    used: float = 5.0,
    pinned: bool = False,
    outstanding: int = 0,
    rate: float = 0.0,
    since: float = 0.0,
    queue_ms: float = 0.0,
    busy: float = 0.0,
) -> Replica:
    """`rate`: steady requests a second; `since`: when it came to the device."""
    return Replica(
        key(name),
        state,
        weights,
        workspace,
        pinned,
        outstanding,
        used,
        rates=ArrivalRates(rate, rate, rate),
        hot_since_unix_s=since,
        queue_ms=queue_ms,
        busy=busy,
    )


def worker(
    name: str,
    budget: int = 100,
    replicas: Iterable[Replica] = (),
    *,
    context: int = 0,
    state: WorkerState = WorkerState.READY,
    lease: float = NOW + 1,
    tier: int = 0,
    max_hot: int = 0,
    kind: str = "sim",
    labels: Mapping[str, str] | None = None,
) -> WorkerInfo:
    """`tier`: weights it takes in all, of which its budget is the device's; 0: no tier."""
    held = {one.key: one for one in replicas}
    counted = [r for r in held.values() if r.state is not ReplicaState.FAILED]
    ledger = Ledger(
        budget,
        context_bytes=context,
        weights_bytes=sum(r.weights_bytes for r in counted),
        workspace_bytes=max((r.workspace_bytes for r in counted), default=0),
        assignable_bytes=tier,
        max_hot=max_hot,
    )
    return WorkerInfo(name, f"{name}-1", "h:1", f"{kind}:0", kind, state, lease, ledger,
                      replicas=held, labels=labels or {})  # fmt: skip


def snapshot(
    workers: Iterable[WorkerInfo],
    wants: Iterable[Want] = (),
    versions: Iterable[ModelVersion] = (),
    failures: Mapping[tuple[str, VersionKey], LoadFailure] | None = None,
    footprints: Mapping[FootprintKey, Footprint] | None = None,
    unix_s: float = 0.0,
) -> Snapshot:
    """Versions that are wanted and not given are ready and of 10 bytes with no workspace."""
    known = {v.key: v for v in versions}
    wanted = {w.key: w for w in wants}
    for one in wanted:
        known.setdefault(one, version(one.model))
    sizes = {
        measured(v.key.model, kind): Footprint(v.pack.weights_bytes, 0)
        for v in known.values()
        for kind in ("sim", "cpu")
        if v.pack
    }
    return Snapshot(
        Desired(1, "c", known, wanted),
        {w.id: w for w in workers},
        failures or {},
        {**sizes, **(footprints or {})},
        unix_s,
    )


def carried_out(before: Snapshot, commands: Iterable[Command]) -> Snapshot:
    """The snapshot once workers have done what a plan says."""
    workers = {id_: dict(w.replicas) for id_, w in before.workers.items()}
    wants = dict(before.desired.wants)
    for command in commands:
        if isinstance(command, Release):
            workers[command.worker].pop(command.key)
            if command.replicas_left:
                wants[command.key] = replace(wants[command.key], replicas=command.replicas_left)
            elif command.drop_want:
                wants.pop(command.key, None)
        elif isinstance(command, DropWant):
            wants.pop(command.key)
        elif isinstance(command, KeepPrefetched):
            wants[command.key] = replace(wants[command.key], source=WantSource.MISS)
    for command in commands:
        if isinstance(command, Assign):
            held = workers[command.worker].get(command.key)
            size = before.footprints[measured(command.key.model)]
            fresh = held is None or held.state is ReplicaState.FAILED
            workers[command.worker][command.key] = Replica(
                command.key,
                ReplicaState.HOT,
                size.weights_bytes if fresh or held is None else held.weights_bytes,
                size.workspace_bytes if fresh or held is None else held.workspace_bytes,
                command.pinned,
            )
    return Snapshot(
        replace(before.desired, revision=2, wants=wants),
        {
            id_: worker(
                id_,
                w.ledger.budget_bytes,
                workers[id_].values(),
                context=w.ledger.context_bytes,
                state=w.state,
                lease=w.lease_until_s,
                tier=w.ledger.assignable_bytes,
                max_hot=w.ledger.max_hot,
                labels=w.labels,
            )
            for id_, w in before.workers.items()
        },
        before.failures,
        before.footprints,
        before.unix_s,
    )
