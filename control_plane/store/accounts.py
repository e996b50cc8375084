"""What control planes tell each other about tenants: their parts of quotas, and usage by day.

Neither is desired state: no revision is made. A store that lost them loses the usage of past days,
and parts are taken anew within a second. `MemoryAccounts` is the specification.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from control_plane.types.access.usage import DAYS_KEPT, Parts, Usage


class Taken(NamedTuple):
    """The parts of every live control plane, by its name, at a revision of them."""

    revision: int
    parts: Mapping[str, Parts]


class Accounts(Protocol):
    """A method raises RegistryUnavailable when the store does not answer in time."""

    async def parts(self) -> Taken:
        """The parts that were taken, less those that have expired."""
        ...

    async def take_parts(self, plane: str, parts: Parts, revision: int, keep_s: float) -> bool:
        """Replaces the parts of a control plane, which expire after keep_s. False: the revision is
        not that of the last change, so that another has taken some meanwhile.
        """
        ...

    async def drop_parts(self, plane: str) -> None:
        """A control plane stops: its parts are free."""
        ...

    async def add_usage(
        self, plane: str, sequence: int, day: str, used: Mapping[str, Usage]
    ) -> Mapping[str, Usage]:
        """Adds to the usage of a day (2026-03-01), by tenant, and returns all of that day. Of one
        plane a repeat of the last sequence adds nothing.
        """
        ...

    async def usage(self, days: Sequence[str]) -> Mapping[str, Mapping[str, Usage]]:
        """The usage of days, by day and tenant."""
        ...

    async def drop_usage(self, tenant: str, days: Sequence[str]) -> int:
        """Removes the usage of a tenant. Returns of how many of the days there was some."""
        ...


class MemoryAccounts:
    """`Accounts` in dictionaries. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._revision = 0
        self._parts: dict[str, tuple[Parts, float]] = {}
        self._usage: dict[str, dict[str, Usage]] = {}
        self._sequences: dict[str, int] = {}

    async def parts(self) -> Taken:
        now = self._clock()
        self._parts = {name: kept for name, kept in self._parts.items() if now < kept[1]}
        return Taken(self._revision, {name: parts for name, (parts, _) in self._parts.items()})

    async def take_parts(self, plane: str, parts: Parts, revision: int, keep_s: float) -> bool:
        if revision != self._revision:
            return False
        self._revision += 1
        self._parts[plane] = (dict(parts), self._clock() + keep_s)
        return True

    async def drop_parts(self, plane: str) -> None:
        self._revision += 1
        self._parts.pop(plane, None)

    async def add_usage(
        self, plane: str, sequence: int, day: str, used: Mapping[str, Usage]
    ) -> Mapping[str, Usage]:
        of_day = self._usage.setdefault(day, {})
        if self._sequences.get(plane) != sequence:
            self._sequences[plane] = sequence
            for tenant, more in used.items():
                of_day[tenant] = of_day.get(tenant, Usage()).plus(more)
        for old in sorted(self._usage)[:-DAYS_KEPT]:
            del self._usage[old]
        return dict(self._usage.get(day, {}))

    async def usage(self, days: Sequence[str]) -> Mapping[str, Mapping[str, Usage]]:
        return {day: dict(self._usage[day]) for day in days if day in self._usage}

    async def drop_usage(self, tenant: str, days: Sequence[str]) -> int:
        found = [self._usage[day] for day in days if tenant in self._usage.get(day, {})]
        for of_day in found:
            del of_day[tenant]
        return len(found)
