"""Errors of tenants that have taken what they may: part of the tree of `errors`."""

from yolopool.error_kinds import ResourceExhausted


class TenantRate(ResourceExhausted):
    """The tenant sends more images a second than it may; `retry_after_s` says when the next may."""

    reason = "TENANT_RATE"


class TenantConcurrency(ResourceExhausted):
    """As many images of the tenant wait for their answers as may."""

    reason = "TENANT_CONCURRENCY"


class TenantDay(ResourceExhausted):
    """The tenant has sent what it may send a day; `retry_after_s` is the time to midnight UTC."""

    reason = "TENANT_DAY"


class TenantStore(ResourceExhausted):
    """Uploads and packs of the tenant's models take what they may."""

    reason = "TENANT_STORE"
    retryable = False


class TenantMemory(ResourceExhausted):
    """The tenant's models hold what they may of the devices' memory."""

    reason = "TENANT_MEMORY"
