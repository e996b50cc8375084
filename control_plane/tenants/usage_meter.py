"""Counts what tenants use, in memory: by day, until the exchange takes it to the store. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from control_plane.types.access.usage import Usage

DAY_S = 86_400
# Tenants that are not set and are counted apart in a day. What tokens name may be anything: others
# are one.
MAX_TENANTS = 1000
OTHERS = "(other)"


class _Count:
    __slots__ = ("bytes", "device_s", "gb_hours", "images", "refused")

    def __init__(self) -> None:
        self.refused = self.images = self.bytes = 0
        self.device_s = self.gb_hours = 0.0

    def value(self) -> Usage:
        return Usage(self.refused, self.images, self.bytes, self.device_s, self.gb_hours)


class UsedInDay(NamedTuple):
    """`day`: days since 1970-01-01, UTC."""

    day: int
    used: Mapping[str, Usage]


class UsageMeter:
    """`unix_s` arguments: Unix seconds."""

    def __init__(self) -> None:
        self._day = 0
        self._counts: dict[str, _Count] = {}
        # Those that are not set, of the whole day, which `take` does not end.
        self._strangers: set[str] = set()
        self._earlier: list[UsedInDay] = []

    def of(self, tenant: str, unix_s: float, is_set: bool = True) -> _Count:
        """The count of a tenant today: to be added to at once, and not kept. One that is set has
        always its own, by which its limits of a day are kept.
        """
        day = int(unix_s // DAY_S)
        if day != self._day:
            self._end_day()
            self._strangers.clear()
            self._day = day
        count = self._counts.get(tenant)
        if count is None:
            if tenant and not is_set and tenant not in self._strangers:
                if len(self._strangers) >= MAX_TENANTS:
                    return self.of(OTHERS, unix_s)
                self._strangers.add(tenant)
            count = self._counts[tenant] = _Count()
        return count

    def so_far(self, tenant: str) -> Usage:
        """What is counted of a tenant today and not taken yet."""
        count = self._counts.get(tenant)
        return count.value() if count is not None else Usage()

    def take(self) -> list[UsedInDay]:
        """What was used since the last call, the earlier days first."""
        self._end_day()
        taken, self._earlier = self._earlier, []
        return taken

    def _end_day(self) -> None:
        if self._counts:
            used = {tenant: count.value() for tenant, count in self._counts.items()}
            self._earlier.append(UsedInDay(self._day, used))
            self._counts = {}
