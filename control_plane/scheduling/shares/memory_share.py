"""The share of the fleet's memory that models of a tenant may hold, and who leaves for it. Pure.

A tenant makes room by its own models alone: the least valuable of them that are idle leave first,
wherever they are. What leaves counts until it is gone, so that the share is never exceeded.
"""

from collections.abc import Iterable

from control_plane.scheduling import preemption
from control_plane.scheduling.context import PlanContext, is_loaded
from control_plane.scheduling.proposed_worker import ProposedWorker, kept_bytes
from control_plane.types.access.tenant import Tenant
from control_plane.types.command import Blocked, Command, Release
from control_plane.types.desired import Want
from control_plane.types.version import ModelVersion, VersionKey
from control_plane.types.worker import Replica

MIB = 2**20
Place = tuple[ProposedWorker, Replica]


def allows(context: PlanContext, version: ModelVersion) -> bool:
    """Whether one more replica keeps the share of its owner, without anyone leaving."""
    tenant = limited_owner(context, version.key)
    return tenant is None or _missing_bytes(context, tenant, version) <= 0


def make_room(context: PlanContext, want: Want, version: ModelVersion) -> list[Command]:
    """What has to happen before one more replica keeps the share of its owner: releases, and why it
    waits, last. Empty: nothing.
    """
    tenant = limited_owner(context, want.key)
    if tenant is None:
        return []
    missing = _missing_bytes(context, tenant, version)
    if missing <= 0:
        return []
    if _size(context, version) > _limit_bytes(context, tenant):
        return [_blocked(context, tenant, version, "it is larger than that", final=True)]
    if _leaving_bytes(context, tenant) >= missing:
        return [_blocked(context, tenant, version, "another of its models is leaving")]
    own = [
        (worker, replica)
        for worker, replica in _own(context, tenant)
        if replica.key != want.key and preemption.may_preempt(context, worker, replica, want)
    ]
    victims = _fewest(context, own, missing - _leaving_bytes(context, tenant))
    why = f"tenant {tenant.name} holds its share of the memory, and {want.key} needs some of it"
    releases: list[Command] = [
        context.evict(worker, replica.key, why, "SHARE") for worker, replica in victims
    ]
    if releases:
        return [*releases, _blocked(context, tenant, version, "another of its models is leaving")]
    pinned = all(context.is_pinned(one) for _, one in _own(context, tenant) if one.key != want.key)
    if pinned:
        return [_blocked(context, tenant, version, "its other models are pinned", final=True)]
    return [_blocked(context, tenant, version, "its other models are in use or being loaded")]


def release_excess(context: PlanContext) -> Iterable[Release]:
    """Releases of idle models of tenants that hold more than their share: it was lowered."""
    for tenant in context.snapshot.desired.tenants.values():
        if not tenant.limits.memory_share:
            continue
        excess = context.held_bytes(tenant) - _limit_bytes(context, tenant)
        excess -= _leaving_bytes(context, tenant)
        if excess <= 0:
            continue
        idle = [
            (worker, replica)
            for worker, replica in _own(context, tenant)
            if is_loaded(replica)
            and not context.is_pinned(replica)
            and not worker.outstanding(replica)
        ]
        why = f"tenant {tenant.name} holds more than its share of the memory"
        for worker, replica in _fewest(context, idle, excess, all_help=True):
            yield context.evict(worker, replica.key, why, "SHARE")


def limited_owner(context: PlanContext, key: VersionKey) -> Tenant | None:
    """The tenant that owns a version, if its memory is limited."""
    owner = context.owners.of(key.model)
    return owner if owner is not None and owner.limits.memory_share else None


def _missing_bytes(context: PlanContext, tenant: Tenant, version: ModelVersion) -> int:
    held = context.held_bytes(tenant) + _size(context, version)
    return held - _limit_bytes(context, tenant)


def _size(context: PlanContext, version: ModelVersion) -> int:
    """What a replica keeps, on the kind of worker where that is most."""
    builds = {worker.build: worker for worker in context.fleet.workers.values()}
    sizes = (context.size(version, worker).kept_bytes for worker in builds.values())
    return max(sizes, default=0)


def _limit_bytes(context: PlanContext, tenant: Tenant) -> int:
    return int(tenant.limits.memory_share * context.fleet_bytes)


def _own(context: PlanContext, tenant: Tenant) -> Iterable[Place]:
    for id_ in sorted(context.fleet.workers):
        worker = context.fleet.workers[id_]
        for replica in list(worker.replicas.values()):
            if context.owners.of(replica.key.model) == tenant:
                yield worker, replica


def _leaving_bytes(context: PlanContext, tenant: Tenant) -> int:
    return sum(
        kept_bytes(replica)
        for worker in context.fleet.workers.values()
        for replica in worker.leaving.values()
        if context.owners.of(replica.key.model) == tenant
    )


def _fewest(
    context: PlanContext, places: list[Place], needed: int, all_help: bool = False
) -> list[Place]:
    """The least valuable replicas that free so many bytes, less those that are not needed; empty if
    all together do not, unless `all_help`.
    """
    chosen: list[Place] = []
    for worker, replica in sorted(
        places,
        key=lambda place: (
            not context.was_used(*place),
            context.retention_value(*place),
            place[0].last_used(place[1]),
            place[1].key,
            place[0].id,
        ),
    ):
        if needed <= 0:
            break
        chosen.append((worker, replica))
        needed -= kept_bytes(replica)
    if needed > 0 and not all_help:
        return []
    for place in list(chosen[:-1]):
        if needed + kept_bytes(place[1]) <= 0:
            chosen.remove(place)
            needed += kept_bytes(place[1])
    return chosen


def _blocked(
    context: PlanContext, tenant: Tenant, version: ModelVersion, why: str, final: bool = False
) -> Blocked:
    held, limit = context.held_bytes(tenant) / MIB, _limit_bytes(context, tenant) / MIB
    size = _size(context, version) / MIB
    told = (
        f"models of tenant {tenant.name} hold {held:,.1f} of the {limit:,.1f} MiB that they may "
        f"({100 * tenant.limits.memory_share:g}% of all workers), and {version.key} needs "
        f"{size:,.1f}: {why}"
    )
    if final:
        told += "; unload or unpin one, or raise its memory_share"
    return Blocked(version.key, "TENANT_MEMORY", told, final=final)
