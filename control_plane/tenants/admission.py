"""Lets in the images of tenants, or refuses them: every Detect passes here, whichever door it came
by. No store, no await.
"""

import math
from types import TracebackType

from control_plane.tenants.quota import Quota
from control_plane.tenants.usage_meter import UsageMeter
from control_plane.types.access.tenant import NOBODY, Tenant
from control_plane.view.view import View
from yolopool.errors import ResourceExhausted
from yolopool.server.clock import Clock


class OpenImage:
    """An image that was let in, until it is answered."""

    __slots__ = ("_began", "_clock", "_quota", "tenant")

    def __init__(self, tenant: Tenant, quota: Quota | None, clock: Clock, began: float) -> None:
        self.tenant = tenant
        self._quota = quota
        self._clock = clock
        self._began = began

    def __enter__(self) -> Tenant:
        return self.tenant

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._quota is not None:
            self._quota.end(self._clock.monotonic() - self._began)


class Admission:
    """`quotas` are of the tenants that are set and were asked for. `even_share`: the part of a
    quota before the control planes have talked about it.
    """

    def __init__(self, view: View, clock: Clock) -> None:
        self.quotas: dict[str, Quota] = {}
        self.meter = UsageMeter()
        self.even_share = 1.0
        self._view = view
        self._clock = clock

    def open(self, tenant: str, size_bytes: int) -> OpenImage:
        """Lets in one image of a tenant. Raises TenantRate, TenantConcurrency, TenantDay."""
        now, unix_s = self._clock.monotonic(), self._clock.unix()
        known = self._view.desired.tenants.get(tenant)
        quota = self.quota(known, now) if known is not None else None
        count = self.meter.of(tenant, unix_s, known is not None)
        if quota is not None:
            try:
                quota.begin(now, unix_s, size_bytes)
            except ResourceExhausted:
                count.refused += 1
                raise
        count.images += 1
        count.bytes += size_bytes
        return OpenImage(known or NOBODY, quota, self._clock, now)

    def quota(self, tenant: Tenant, now: float) -> Quota:
        quota = self.quotas.get(tenant.name)
        if quota is None:
            quota = self.quotas[tenant.name] = Quota()
            quota.set(tenant, self.even_share, now)
        elif quota.tenant is not tenant:
            quota.set(tenant, quota.share, now)
        return quota

    def used_device(self, tenant: str, seconds: float) -> None:
        """Adds device time that a worker says it spent for a tenant; what is no time is none."""
        if not 0.0 < seconds < math.inf:
            return  # one NaN would stay in the counts of the tenant, and in its metric
        is_set = tenant in self._view.desired.tenants
        self.meter.of(tenant, self._clock.unix(), is_set).device_s += seconds

    def forget_gone(self) -> None:
        """Drops the quotas of tenants that are no more."""
        tenants = self._view.desired.tenants
        gone = [name for name, quota in self.quotas.items() if name not in tenants]
        for name in gone:
            if not self.quotas[name].open:
                del self.quotas[name]
