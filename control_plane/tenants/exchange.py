"""Once a second: takes this control plane's parts of quotas, and takes what was used to the store.

Never in the way of a request. While the store does not answer, parts stay and counts grow here.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog

from control_plane.metrics.exposition import Metrics
from control_plane.store.registry import Registry
from control_plane.tenants.admission import Admission
from control_plane.tenants.parts import parts_of
from control_plane.tenants.quota import DayCount
from control_plane.tenants.resident_memory import resident_bytes
from control_plane.tenants.usage_meter import DAY_S, UsedInDay
from control_plane.types.access.tenant import Owners
from control_plane.types.access.usage import Usage
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable
from yolopool.server.clock import Clock

log = structlog.get_logger()

EXCHANGE_S = 1.0
# After so long without a word the parts of a control plane are free.
KEEP_S = 5.0
# How fast a demand follows what was asked in the last second.
NEWEST = 0.5
ATTEMPTS = 4
# A longer time since the last look does not count as resident: this process slept.
MAX_STEP_S = 10.0
GB, HOUR_S = 1e9, 3600.0


class QuotaExchange:
    """`run` does not return; `close` at a stop. `is_leader`: whether this process counts memory."""

    def __init__(
        self,
        name: str,
        admission: Admission,
        registry: Registry,
        view: View,
        metrics: Metrics,
        is_leader: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._name = name
        self._admission = admission
        self._registry = registry
        self._view = view
        self._metrics = metrics
        self._is_leader = is_leader
        self._clock = clock
        self._demands: dict[str, float] = {}
        self._looked_s: float | None = None
        self._sequence = 0
        self._pending: deque[UsedInDay] = deque()

    async def run(self) -> None:
        while not self._view.is_loaded:
            await self._view.waiters.after(self._view.waiters.changes, EXCHANGE_S)
        while True:
            await self.once()
            await asyncio.sleep(EXCHANGE_S)

    async def once(self) -> None:
        """One exchange. A store that does not answer is logged."""
        try:
            self._note_demands()
            self._note_memory()
            await self._take_parts()
            await self._flush()
        except RegistryUnavailable as error:
            log.info("tenants' usage waits for the store", why=error.message)
        except Exception:
            log.exception("tenants' quotas can't be exchanged")

    async def close(self) -> None:
        """Tells the store the last counts, and gives up the parts. Raises RegistryUnavailable."""
        await self._flush()
        await self._registry.accounts.drop_parts(self._name)

    def _note_demands(self) -> None:
        admission, now = self._admission, self._clock.monotonic()
        since_s = max(0.1, now - self._looked_s) if self._looked_s is not None else EXCHANGE_S
        admission.forget_gone()
        demands: dict[str, float] = {}
        for name, tenant in self._view.desired.tenants.items():
            limits = tenant.limits
            if not limits.requests_per_s and not limits.concurrent_requests:
                continue
            quota = admission.quota(tenant, now)
            asked, quota.asked = quota.asked, 0
            before = self._demands.get(name, 0.0)
            demand = before + NEWEST * (asked / since_s - before)
            demands[name] = demand if demand > 0.01 else 0.0
        self._demands = demands

    def _note_memory(self) -> None:
        now, before = self._clock.monotonic(), self._looked_s
        self._looked_s = now
        if before is None or not self._is_leader() or now - before > MAX_STEP_S:
            return
        owners = Owners(self._view.desired.tenants)
        gb_hours_a_byte = (now - before) / GB / HOUR_S
        for tenant, held in resident_bytes(self._view.workers.values(), owners).items():
            count = self._admission.meter.of(tenant, self._clock.unix())
            count.gb_hours += held * gb_hours_a_byte

    async def _take_parts(self) -> None:
        accounts = self._registry.accounts
        for _ in range(ATTEMPTS):
            revision, known = await accounts.parts()
            parts = parts_of(self._name, self._demands, known)
            self._admission.even_share = 1.0 / len({*known, self._name})
            # What it gives up it does before the others can see that it is free.
            self._set({name: min(part.share, self._share(name)) for name, part in parts.items()})
            if await accounts.take_parts(self._name, parts, revision, KEEP_S):
                self._set({name: part.share for name, part in parts.items()})
                return

    def _share(self, tenant: str) -> float:
        quota = self._admission.quotas.get(tenant)
        return quota.share if quota is not None else 0.0

    def _set(self, shares: Mapping[str, float]) -> None:
        now = self._clock.monotonic()
        for name, share in shares.items():
            quota = self._admission.quotas.get(name)
            if quota is not None:
                quota.set(quota.tenant, share, now)

    async def _flush(self) -> None:
        """Takes what was used to the store, each count once, and learns what others used."""
        today = int(self._clock.unix() // DAY_S)
        if not self._pending:
            self._pending.extend(self._admission.meter.take())
            for one in self._pending:
                self._metrics.tenants_used(one.used, self._view.desired.tenants)
            if not self._pending and self._has_day_limits():
                self._pending.append(UsedInDay(today, {}))
        while self._pending:
            day, used = self._pending[0]
            totals = await self._registry.accounts.add_usage(
                self._name, self._sequence, day_name(day), used
            )
            self._sequence += 1
            self._pending.popleft()
            if day == today:
                self._learn(today, totals)

    def _has_day_limits(self) -> bool:
        tenants = self._view.desired.tenants.values()
        return any(one.limits.images_per_day or one.limits.bytes_per_day for one in tenants)

    def _learn(self, day: int, totals: Mapping[str, Usage]) -> None:
        now, meter = self._clock.monotonic(), self._admission.meter
        for name, tenant in self._view.desired.tenants.items():
            quota, told = self._admission.quota(tenant, now), totals.get(name, Usage())
            quota.turn_to(day)
            quota.told = DayCount(told.images, told.bytes)
            # What came since the counts were taken.
            newer = meter.so_far(name)
            quota.own = DayCount(newer.images, newer.bytes)


def day_name(day: int) -> str:
    """2026-03-01, of days since 1970-01-01."""
    return datetime.fromtimestamp(day * DAY_S, UTC).strftime("%Y-%m-%d")


def days_until(unix_s: float, count: int) -> list[str]:
    """The names of the last days, today first."""
    today = int(unix_s // DAY_S)
    return [day_name(today - back) for back in range(count)]
