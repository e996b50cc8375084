"""Tenants: their records for callers, and the calls about them."""

from dataclasses import dataclass

from yolopool.client.calls import CHANGE_TIMEOUT_S, READ_TIMEOUT_S, Call
from yolopool.errors import InvalidOption
from yolopool.v1 import tenants_pb2, types_pb2

_PRIORITIES = {
    "interactive": types_pb2.PRIORITY_INTERACTIVE,
    "normal": types_pb2.PRIORITY_NORMAL,
    "bulk": types_pb2.PRIORITY_BULK,
}
_WORDS: dict[int, str] = {number: word for word, number in _PRIORITIES.items()}


@dataclass(frozen=True, slots=True)
class Tenant:
    """What is set of a tenant. `models`: patterns of the models that are its own. A limit of 0 is
    none; `memory_share` is 0..1. `priority_ceiling`: interactive, normal or bulk.
    """

    name: str
    models: tuple[str, ...] = ()
    requests_per_s: float = 0.0
    concurrent_requests: int = 0
    images_per_day: int = 0
    bytes_per_day: int = 0
    store_bytes: int = 0
    memory_share: float = 0.0
    weight: float = 1.0
    priority_ceiling: str = "interactive"
    pool: str = ""


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """What a tenant used in one day of UTC (`day`: 2026-03-01). `refused` and `images` count images
    that came; `gb_hours`: weights on devices, GB times hours.
    """

    name: str
    day: str
    refused: int
    images: int
    bytes: int
    device_s: float
    gb_hours: float


@dataclass(frozen=True, slots=True)
class DeletedTenant:
    """What was deleted of a tenant, or would be; models as name@version."""

    keys: tuple[str, ...]
    models: tuple[str, ...]
    schedules: tuple[str, ...]
    changed_schedules: tuple[str, ...]
    usage_days: int
    existed: bool
    aliases: tuple[str, ...] = ()


def set_tenant(tenant: Tenant) -> Call[Tenant]:
    """Adds a tenant, or replaces all that is set of it."""
    if tenant.priority_ceiling not in _PRIORITIES:
        raise InvalidOption(
            f"priority_ceiling is {tenant.priority_ceiling!r}: give one of {', '.join(_PRIORITIES)}"
        )
    message = tenants_pb2.Tenant(
        name=tenant.name,
        models=tenant.models,
        limits=tenants_pb2.TenantLimits(
            requests_per_s=tenant.requests_per_s,
            concurrent_requests=tenant.concurrent_requests,
            images_per_day=tenant.images_per_day,
            bytes_per_day=tenant.bytes_per_day,
            store_bytes=tenant.store_bytes,
            memory_share=tenant.memory_share,
        ),
        weight=tenant.weight,
        priority_ceiling=_PRIORITIES[tenant.priority_ceiling],
        pool=tenant.pool,
    )
    request = tenants_pb2.SetTenantRequest(tenant=message)
    return Call(
        "tenants", "SetTenant", request, CHANGE_TIMEOUT_S, lambda reply: _tenant(reply.tenant)
    )


def list_tenants() -> Call[tuple[Tenant, ...]]:
    """All tenants, in order of their names."""
    request = tenants_pb2.ListTenantsRequest()
    return Call(
        "tenants",
        "ListTenants",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(map(_tenant, reply.tenants)),
    )


def usage(name: str = "", *, days: int = 1) -> Call[tuple[TenantUsage, ...]]:
    """What a tenant (empty: each of them) used in the last days, the newest first."""
    request = tenants_pb2.GetUsageRequest(name=name, days=days)
    return Call(
        "tenants",
        "GetUsage",
        request,
        READ_TIMEOUT_S,
        lambda reply: tuple(map(_usage, reply.usage)),
    )


def delete_tenant(name: str, *, confirm: str = "", dry_run: bool = False) -> Call[DeletedTenant]:
    """Deletes all of a tenant: keys, models, usage. `confirm` says its name again; `dry_run` only
    tells what would go.
    """
    request = tenants_pb2.DeleteTenantRequest(name=name, confirm=confirm, dry_run=dry_run)
    return Call("tenants", "DeleteTenant", request, CHANGE_TIMEOUT_S, _deleted)


def _tenant(message: tenants_pb2.Tenant) -> Tenant:
    limits = message.limits
    return Tenant(
        message.name,
        tuple(message.models),
        limits.requests_per_s,
        limits.concurrent_requests,
        limits.images_per_day,
        limits.bytes_per_day,
        limits.store_bytes,
        limits.memory_share,
        message.weight,
        _WORDS.get(message.priority_ceiling, "unknown"),
        message.pool,
    )


def _usage(message: tenants_pb2.TenantUsage) -> TenantUsage:
    return TenantUsage(
        message.name,
        message.day,
        message.refused,
        message.images,
        message.bytes,
        message.device_s,
        message.gb_hours,
    )


def _deleted(reply: tenants_pb2.DeleteTenantResponse) -> DeletedTenant:
    return DeletedTenant(
        tuple(reply.keys),
        tuple(f"{key.model}@{key.version}" for key in reply.versions),
        tuple(reply.schedules),
        tuple(reply.changed_schedules),
        reply.usage_days,
        reply.existed,
        tuple(reply.aliases),
    )
