"""What one tenant may still take at this control plane, and when it may take more. Pure: times are
arguments.
"""

import math
from dataclasses import dataclass

from control_plane.tenants.rate_limit import RateLimit
from control_plane.types.access.tenant import NOBODY, Tenant
from yolopool.errors import ResourceExhausted, TenantConcurrency, TenantDay, TenantRate

DAY_S = 86_400
# What is assumed of a request's duration before one has ended, and how fast the mean follows.
FIRST_S, NEWEST = 0.05, 0.1
# The shortest delays that a caller is told: of a rate, and of what others' answers decide.
MIN_RETRY_S, MIN_AGAIN_S = 0.001, 0.01


@dataclass(slots=True)
class DayCount:
    """Images let in on a day, and their bytes."""

    images: int = 0
    bytes: int = 0


class Quota:
    """`tenant` and `share` (of its rate and concurrency, 0..1) are set from outside. `asked` counts
    who came. On `day` all control planes let in what was `told`, and this one its `own` since.
    """

    def __init__(self) -> None:
        self.tenant = NOBODY
        self.asked = 0
        self.open = 0
        self.day = 0
        self.own = DayCount()
        self.told = DayCount()
        self._rate = RateLimit()
        self._share = 1.0
        self._mean_s = FIRST_S

    @property
    def share(self) -> float:
        return self._share

    def set(self, tenant: Tenant, share: float, now: float) -> None:
        if tenant != self.tenant or share != self._share:
            self.tenant, self._share = tenant, share
            self._rate.set_rate(tenant.limits.requests_per_s * share, now)

    @property
    def concurrency(self) -> int:
        """Images that may be open here; 0: no limit."""
        return math.ceil(self.tenant.limits.concurrent_requests * self._share - 1e-9)

    def begin(self, now: float, unix_s: float, size_bytes: int) -> None:
        """Lets in one image, or raises why not. now: monotonic."""
        self.asked += 1
        refusal = self._refusal(now, unix_s, size_bytes)
        if refusal is not None:
            raise refusal
        self._rate.take(now)
        self.own.images += 1
        self.own.bytes += size_bytes
        self.open += 1

    def end(self, took_s: float) -> None:
        self.open -= 1
        self._mean_s += NEWEST * (took_s - self._mean_s)

    def turn_to(self, day: int) -> None:
        """Begins a day of UTC anew, if it is another."""
        if day != self.day:
            self.day, self.own, self.told = day, DayCount(), DayCount()

    def _refusal(self, now: float, unix_s: float, size_bytes: int) -> ResourceExhausted | None:
        limits = self.tenant.limits
        self.turn_to(int(unix_s // DAY_S))
        images, bytes_ = self.own.images + self.told.images, self.own.bytes + self.told.bytes
        if limits.images_per_day and images >= limits.images_per_day:
            return self._day_is_over(unix_s, f"{limits.images_per_day} images")
        if limits.bytes_per_day and bytes_ + size_bytes > limits.bytes_per_day:
            return self._day_is_over(unix_s, f"{limits.bytes_per_day} bytes")
        if limits.concurrent_requests and self.open >= self.concurrency:
            return TenantConcurrency(
                f"{self.open} images of tenant {self.tenant.name} wait for their answers, and no "
                f"more may ({limits.concurrent_requests} in the whole pool): send fewer at a time",
                # One of them ends about every so many seconds.
                retry_after_s=max(MIN_AGAIN_S, self._mean_s / max(1, self.open)),
                details={"tenant": self.tenant.name},
            )
        wait_s = self._rate.wait_s(now)
        if wait_s > 0:
            return TenantRate(
                f"tenant {self.tenant.name} may send {limits.requests_per_s:g} images a second: "
                "send more slowly, or ask an admin for more",
                retry_after_s=max(MIN_RETRY_S, wait_s),
                details={"tenant": self.tenant.name},
            )
        return None

    def _day_is_over(self, unix_s: float, what: str) -> TenantDay:
        left_s = DAY_S - unix_s % DAY_S
        return TenantDay(
            f"tenant {self.tenant.name} may send {what} a day, and no more until midnight UTC "
            f"({left_s / 3600:.1f} h): ask an admin for more",
            retry_after_s=left_s,
            details={"tenant": self.tenant.name},
        )
