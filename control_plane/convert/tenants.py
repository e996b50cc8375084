"""Tenants: proto to types and back, with the checks of their messages."""

import math
from collections.abc import Iterable

from control_plane.convert.versions import PRIORITIES, PRIORITIES_IN
from control_plane.types.access.tenant import Tenant, TenantLimits, lowered
from control_plane.types.access.usage import Usage
from yolopool.errors import InvalidOption
from yolopool.names import check_name
from yolopool.v1 import tenants_pb2, types_pb2
from yolopool.vocabulary import Priority

MAX_PATTERNS, MAX_PATTERN_CHARS, MAX_POOL_CHARS = 64, 130, 63
MIN_WEIGHT, MAX_WEIGHT = 0.01, 100.0
MAX_RATE, MAX_COUNT = 1e6, 10**15


def tenant_in(message: tenants_pb2.Tenant) -> Tenant:
    """Raises InvalidOption, InvalidModelName."""
    name = check_tenant_name(message.name)
    weight = message.weight or 1.0
    # Written so that NaN is rejected too.
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise InvalidOption(f"weight is {weight:g}: give {MIN_WEIGHT:g} to {MAX_WEIGHT:g}")
    if message.priority_ceiling not in types_pb2.Priority.values():
        raise InvalidOption(
            f"priority_ceiling {message.priority_ceiling} is not known: leave it out for none"
        )
    ceiling = Priority.INTERACTIVE
    if message.priority_ceiling:
        ceiling = PRIORITIES_IN[message.priority_ceiling]
    if len(message.pool) > MAX_POOL_CHARS or not message.pool.isprintable():
        raise InvalidOption(f"pool: at most {MAX_POOL_CHARS} printable characters")
    return Tenant(
        name, _patterns(message.models), _limits(message.limits), weight, ceiling, message.pool
    )


def check_tenant_name(name: str) -> str:
    """Raises InvalidOption, InvalidModelName."""
    if not name:
        raise InvalidOption("the tenant has no name: give one as keys name it")
    return check_name(name)


def tenant_out(tenant: Tenant) -> tenants_pb2.Tenant:
    limits = tenant.limits
    return tenants_pb2.Tenant(
        name=tenant.name,
        models=tenant.models,
        limits=tenants_pb2.TenantLimits(
            requests_per_s=limits.requests_per_s,
            concurrent_requests=limits.concurrent_requests,
            images_per_day=limits.images_per_day,
            bytes_per_day=limits.bytes_per_day,
            store_bytes=limits.store_bytes,
            memory_share=limits.memory_share,
        ),
        weight=tenant.weight,
        priority_ceiling=PRIORITIES[tenant.priority_ceiling],
        pool=tenant.pool,
    )


def usage_out(tenant: str, day: str, usage: Usage) -> tenants_pb2.TenantUsage:
    return tenants_pb2.TenantUsage(
        name=tenant,
        day=day,
        refused=usage.refused,
        images=usage.images,
        bytes=usage.bytes,
        device_s=usage.device_s,
        gb_hours=usage.gb_hours,
    )


def lowered_priority(
    priority: types_pb2.Priority.ValueType, ceiling: Priority
) -> types_pb2.Priority.ValueType:
    """The priority of a request, which may be unset, under a tenant's ceiling."""
    if ceiling is Priority.INTERACTIVE:
        return priority
    return PRIORITIES[lowered(PRIORITIES_IN.get(priority, Priority.NORMAL), ceiling)]


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(patterns))
    if len(found) > MAX_PATTERNS:
        raise InvalidOption(f"models: at most {MAX_PATTERNS} patterns")
    for pattern in found:
        if not 0 < len(pattern) <= MAX_PATTERN_CHARS or not pattern.isprintable():
            raise InvalidOption(
                f"models: a pattern has 1 to {MAX_PATTERN_CHARS} characters, such as team-a/*"
            )
    return found


def _limits(limits: tenants_pb2.TenantLimits) -> TenantLimits:
    rate, share = limits.requests_per_s, limits.memory_share
    if not (math.isfinite(rate) and 0.0 <= rate <= MAX_RATE):
        raise InvalidOption(f"requests_per_s is {rate:g}: give 0 (no limit) to {MAX_RATE:g}")
    if not (math.isfinite(share) and 0.0 <= share <= 1.0):
        raise InvalidOption(f"memory_share is {share:g}: give 0 (no limit) to 1")
    for name in ("images_per_day", "bytes_per_day", "store_bytes"):
        if getattr(limits, name) > MAX_COUNT:
            raise InvalidOption(f"{name} is above {MAX_COUNT}: leave it out for no limit")
    return TenantLimits(
        rate,
        limits.concurrent_requests,
        limits.images_per_day,
        limits.bytes_per_day,
        limits.store_bytes,
        share,
    )
