"""The plan: which commands bring the workers from observed to desired state. Pure.

The pipeline: unpin, release, then reconcile each want in order of urgency (filter, rank, preempt),
then prefetch. A want that can't be met gets Blocked with the reason. A plan that was carried out
leaves nothing for the next to do: an evicted replica's want is dropped with it.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from control_plane.scheduling import (
    descheduling,
    feasible,
    preemption,
    prefetch,
    reasons,
    scaling,
)
from control_plane.scheduling.context import PlanContext, ProposedWants, is_loaded
from control_plane.scheduling.proposed_fleet import ProposedFleet
from control_plane.scheduling.proposed_worker import ProposedWorker, size_of
from control_plane.scheduling.shares import memory_share
from control_plane.types.command import Assign, Blocked, Command, DropWant, KeepPrefetched, Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.snapshot import Snapshot
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.types.worker import Replica
from yolopool.vocabulary import ReplicaState


def plan(snapshot: Snapshot, now: float) -> list[Command]:
    """Commands that bring the live workers from observed to desired state.

    now: monotonic seconds. Releases come before the assigns that need their memory. No worker's
    ledger is overrun; nothing pinned and nothing with open requests is evicted.
    """
    return replan(ProposedFleet.of(snapshot, now), snapshot, now)


def replan(
    fleet: ProposedFleet,
    snapshot: Snapshot,
    now: float,
    about: Collection[VersionKey] | None = None,
) -> list[Command]:
    """As `plan`, on a fleet that the caller keeps up to date, and `about` some versions only: those
    of workers and wants that changed, and those that are blocked. Afterwards `fleet` is as it will
    be once the commands are done.
    """
    context = PlanContext(snapshot, fleet, now, ProposedWants(snapshot), about)
    wants = context.wants.of(about)
    workers = _workers(fleet, about)
    commands: list[Command] = [
        *descheduling.unpin(context, workers),
        *descheduling.release_idle(context, wants),
        *descheduling.release_unschedulable(context, workers),
        *descheduling.release_unwanted(context, workers),
    ]
    if about is None:
        commands += memory_share.release_excess(context)
    for key in [want.key for want in sorted(wants, key=context.urgency)]:
        # A more urgent want may have evicted its replica, and lowered or dropped this want.
        want = context.wants.get(key)
        if want is not None:
            commands += _reconcile_want(context, want)
    if context.wants.dropped:
        commands += descheduling.release_unwanted(context, _workers(fleet, context.wants.dropped))
    if about is None and not any(_needs_memory(command) for command in commands):
        commands += prefetch.prefetch(context)
    # A replica that is unpinned and then released is only released.
    gone = {(c.worker, c.key) for c in commands if isinstance(c, Release)}
    commands = [c for c in commands if not isinstance(c, Assign) or (c.worker, c.key) not in gone]
    return [c for c in commands if not isinstance(c, Blocked) or c.final or c.key in context.wants]


def _needs_memory(command: Command) -> bool:
    return isinstance(command, Blocked) and command.reason == "LEDGER_FULL"


def _workers(fleet: ProposedFleet, about: Collection[VersionKey] | None) -> list[ProposedWorker]:
    if about is None:
        return [fleet.workers[id_] for id_ in sorted(fleet.workers)]
    touched = {id_ for key in about for id_ in fleet.holder_ids.get(key, ())}
    return [fleet.workers[id_] for id_ in sorted(touched)]


def _reconcile_want(context: PlanContext, want: Want) -> Iterable[Command]:
    """Commands for one want: fewer replicas, more, the right pin, or the reason why not."""
    version = context.version(want.key)
    if version is None:
        return
    if version.state is not VersionState.READY:
        yield reasons.not_ready(want.key, version)
        return
    holders = context.present(want.key)
    if _is_settled(context, want, version, holders):
        return
    eligible = [worker for worker in holders if context.is_eligible(want.key, worker)]
    yield from descheduling.scale_down(context, want, eligible)
    yield from descheduling.migrate(context, want, holders)
    eligible = [worker for worker in eligible if context.is_still_at(worker, want.key)]
    pins, refused = _pin_replicas(context, want, eligible)
    yield from pins
    if want.source is WantSource.PREFETCH and not holders:
        yield _drop_want(context, want, "it was only prefetched, and its worker is gone")
        return
    yield from _keep_prefetched(context, want, holders)
    yield from _load_prefetched(context, want, eligible)
    yield from _reload_outdated(context, want, version, eligible)
    yield from _rebatch(context, want, version, eligible)
    # A replica that can't be pinned where it is serves there until another worker has it.
    missing = want.replicas - len(eligible) + len(refused)
    if missing > 0:
        yield from _place_missing(context, want, version, missing, refused)
    else:
        yield from scaling.scale_up(context, want, version)


def _pin_replicas(
    context: PlanContext, want: Want, holders: list[ProposedWorker]
) -> tuple[list[Command], list[Blocked]]:
    """Pins as many as are wanted, and says which can't be. Copies beyond stay unpinned."""
    if not want.pinned:
        return [], []
    pins: list[Command] = []
    refused: list[Blocked] = []
    by_pin = sorted(holders, key=lambda worker: not worker.replicas[want.key].pinned)
    for worker in by_pin[: want.replicas]:
        for command in preemption.pin_replica(context, want, worker):
            if isinstance(command, Blocked):
                refused.append(command)
            else:
                pins.append(command)
    return pins, refused


def _place_missing(
    context: PlanContext, want: Want, version: ModelVersion, missing: int, refused: list[Blocked]
) -> Iterable[Command]:
    """One replica after the other, until none can be placed any more."""
    for _ in range(missing):
        commands = feasible.place_replica(context, want, version)
        if isinstance(commands[-1], Blocked):
            yield from commands[:-1]
            yield from refused[:1] or _give_up(context, want, commands[-1])
            return
        yield from commands


def _is_settled(
    context: PlanContext, want: Want, version: ModelVersion, holders: list[ProposedWorker]
) -> bool:
    """Whether there is nothing to decide: nearly all versions, nearly always."""
    if len(holders) != want.replicas or want.pinned:
        return False
    if want.source is WantSource.PREFETCH and _is_in_use(want, holders):
        return False
    return all(
        scaling.is_calm(worker.replicas[want.key])
        and context.is_eligible(want.key, worker)
        and not _is_only_prefetched(want, worker.replicas[want.key])
        and not _is_batched_otherwise(version, worker)
        and not _is_outdated(version, worker)
        for worker in holders
    )


def _keep_prefetched(
    context: PlanContext, want: Want, holders: list[ProposedWorker]
) -> Iterable[KeepPrefetched]:
    """What was prefetched and is in use is wanted from now on."""
    if want.source is WantSource.PREFETCH and _is_in_use(want, holders):
        context.wants.add(replace(want, source=WantSource.MISS))
        yield KeepPrefetched(want.key)


def _is_in_use(want: Want, holders: list[ProposedWorker]) -> bool:
    uses = (worker.last_used(worker.replicas[want.key]) for worker in holders)
    return any(used >= want.since_unix_s for used in uses)


def _is_only_prefetched(want: Want, replica: Replica) -> bool:
    """Whether it was only prefetched and is wanted by now. An ordinary load reaches the device."""
    ahead = replica.state is ReplicaState.WARM and replica.footprint is None
    return ahead and want.source is not WantSource.PREFETCH


def _load_prefetched(
    context: PlanContext, want: Want, holders: list[ProposedWorker]
) -> Iterable[Command]:
    if want.key in context.assigned:
        return
    for worker in holders:
        replica = worker.replicas[want.key]
        if not _is_only_prefetched(want, replica):
            continue
        # Where pinned replicas leave no device memory, it stays as it is.
        if worker.fits(size_of(replica), pinned=replica.pinned, without=[want.key]):
            yield context.pin(
                worker, replace(want, pinned=replica.pinned), "it was only prefetched"
            )


def _reload_outdated(
    context: PlanContext, want: Want, version: ModelVersion, holders: list[ProposedWorker]
) -> Iterable[Command]:
    """Reloads replicas of another build than serves the version now, one at a time."""
    others = [worker for worker in holders if _is_outdated(version, worker)]
    if not others or any(not is_loaded(worker.replicas[want.key]) for worker in holders):
        return
    kinds = {worker.device_kind for worker in others}
    # A build that failed on one worker must not take the version off the next.
    if any(
        worker.device_kind in kinds and context.failure(worker, want.key) is not None
        for worker in context.fleet.workers.values()
    ):
        return
    if want.key not in context.assigned:
        yield context.reload(others[0], want)


def _is_outdated(version: ModelVersion, worker: ProposedWorker) -> bool:
    replica = worker.replicas[version.key]
    return is_loaded(replica) and replica.is_outdated(version, worker.build)


def _rebatch(
    context: PlanContext, want: Want, version: ModelVersion, holders: list[ProposedWorker]
) -> Iterable[Command]:
    """Hands replicas the batching that changed since they were loaded."""
    for worker in holders:
        if want.key not in context.assigned and _is_batched_otherwise(version, worker):
            yield context.rebatch(worker, want, version.given.batching.get(worker.device_kind))


def _is_batched_otherwise(version: ModelVersion, worker: ProposedWorker) -> bool:
    replica = worker.replicas[version.key]
    if not is_loaded(replica) or replica.footprint is None:
        return False  # the load will carry it
    return replica.batching != version.given.batching.get(worker.device_kind)


def _give_up(context: PlanContext, want: Want, blocked: Command) -> Iterable[Command]:
    """Why a want is blocked. A soft want that failed on every worker is dropped, not retried."""
    yield blocked
    soft = want.source is not WantSource.ADMIN and not want.pinned
    failed = isinstance(blocked, Blocked) and blocked.final and blocked.reason == "LOAD_FAILED"
    if failed and soft and not context.present(want.key):
        yield _drop_want(context, want, "it failed to load on every worker that it may run on")


def _drop_want(context: PlanContext, want: Want, why: str) -> DropWant:
    context.wants.drop(want.key)
    return DropWant(want.key, why)
