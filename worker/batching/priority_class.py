"""The lanes of one priority, and whose turn it is: of tenants by `tenant_turns`, of a tenant's
versions by `fair_share`. Pure.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from worker.batching.config import Key
from worker.batching.estimates import MARGIN, LatencyEstimates, Shape
from worker.batching.fair_share import FairShare
from worker.batching.lane import Lane
from worker.batching.tenant_turns import TenantTurns

# How much longer the pass of a tenant may become by others that join it: it waits for one pass of
# theirs, and not for two.
MAX_LONGER = 1.2

Lanes = dict[str, dict[Shape, Lane]]  # by version and shape
Weight = Callable[[str], float]
# Lanes whose pass may begin, by tenant and version: of each version the most urgent.
Ready = Mapping[str, Mapping[str, Lane]]


class PriorityClass:
    """No lane is empty. `weight`: of a tenant beside others."""

    def __init__(self, weight: Weight) -> None:
        self.tenants: dict[str, Lanes] = {}
        self._weight = weight
        self._turns = TenantTurns()
        self._shares: dict[str, FairShare] = {}

    # --- its lanes ----------------------------------------------------------------------------

    def lane(self, tenant: str, version: str, shape: Shape) -> Lane | None:
        return self.tenants.get(tenant, {}).get(version, {}).get(shape)

    def put(self, lane: Lane) -> None:
        self.tenants.setdefault(lane.tenant, {}).setdefault(lane.version, {})[lane.shape] = lane
        self._shares.setdefault(lane.tenant, FairShare())

    def drop_if_empty(self, lane: Lane) -> None:
        if lane.keys:
            return
        lanes = self.tenants[lane.tenant]
        del lanes[lane.version][lane.shape]
        if not lanes[lane.version]:
            del lanes[lane.version]
        if lanes:
            return
        self._shares[lane.tenant].reset()
        del self.tenants[lane.tenant]
        if not self.tenants:
            self._turns.reset()
            self._shares.clear()

    def __iter__(self) -> Iterator[Lane]:
        for lanes in self.tenants.values():
            for shapes in lanes.values():
                yield from shapes.values()

    def of_version(self, version: str) -> Iterator[Lane]:
        for lanes in self.tenants.values():
            yield from lanes.get(version, {}).values()

    def beside(self, lane: Lane) -> Iterator[Lane]:
        """Lanes of other tenants that may share a pass with it; whose turn is next first."""
        others = (name for name in self.tenants if name != lane.tenant)
        for name in sorted(others, key=lambda name: (self._turns.tag_s(name), name)):
            other = self.lane(name, lane.version, lane.shape)
            if other is not None:
                yield other

    def ready(
        self,
        now: float,
        is_there: Callable[[str], bool],
        max_images: Callable[[str, Shape], int],
        arrived: Callable[[int], float],
        estimates: LatencyEstimates,
    ) -> tuple[Ready, list[float]]:
        """The lanes whose pass may begin, of versions that are there, and when others may."""
        firsts: dict[str, dict[str, Lane]] = {}
        later: list[float] = []
        # Counted once: to look beside each lane would take the square of the tenants.
        alike = self._alike() if len(self.tenants) > 1 else {}
        for tenant, versions in self.tenants.items():
            found: dict[str, Lane] = {}
            for version, shapes in versions.items():
                if not is_there(version):
                    continue
                for lane in shapes.values():
                    own = len(lane.keys)
                    beside = alike.get((version, lane.shape), own) - own
                    limit = max_images(version, lane.shape)
                    at = lane.ready_at(limit, arrived, estimates, beside)
                    if at is not None and at > now:
                        later.append(at)
                    elif version not in found or lane.keys[0] < found[version].keys[0]:
                        found[version] = lane
            if found:
                firsts[tenant] = found
        return firsts, later

    def _alike(self) -> Mapping[tuple[str, Shape], int]:
        """How many tickets wait of each version and shape."""
        found: Counter[tuple[str, Shape]] = Counter()
        for lane in self:
            found[lane.version, lane.shape] += len(lane.keys)
        return found

    def company(
        self,
        lane: Lane,
        keys: list[Key],
        limit: int,
        begins: float,
        deadline: Callable[[int], float],
        estimates: LatencyEstimates,
    ) -> list[tuple[Lane, list[Key]]]:
        """Removes the tickets of other tenants that join the pass of these keys of a lane: as many
        as there is room for, lengthen it by at most MAX_LONGER, and make no ticket in it late.
        """
        others = list(self.beside(lane))
        waiting = len(keys) + sum(len(other.keys) for other in others)
        room = lane.batching.cut(waiting, limit) - len(keys)
        longest_s = MAX_LONGER * lane.pass_s(len(keys), limit, estimates)
        while room > 0:
            parts = _first_of(others, room)
            joined = [*keys, *(key for _, some in parts for key in some)]
            pass_s = lane.pass_s(len(joined), limit, estimates)
            due = min(deadline(number) for _, number in joined)
            if pass_s <= longest_s and begins + MARGIN * pass_s < due:
                return [(other, other.pop(len(some), estimates)) for other, some in parts]
            room //= 2
        return []

    # --- whose turn it is ---------------------------------------------------------------------

    def choose(self, ready: Ready, now: float) -> Lane:
        """The lane that goes next; `ready` is not empty."""
        if len(ready) == 1:
            (tenant,) = ready
            self._turns.chosen(tenant)
        else:
            tenant = self._turns.choose(
                {
                    name: min(lane.keys[0] for lane in lanes.values())
                    for name, lanes in ready.items()
                }
            )
        lanes = ready[tenant]
        keys = {version: lane.keys[0] for version, lane in lanes.items()}
        return lanes[self._shares[tenant].choose(keys, now)]

    def charge(self, lane: Lane, seconds: float) -> None:
        """Adds device time that tickets of a lane use."""
        self._turns.charge(lane.tenant, seconds, self._weight(lane.tenant))
        self._shares[lane.tenant].charge(lane.version, seconds)

    def before_s(self, tenant: str, version: str, own_s: float, weight: float) -> float:
        """Seconds of work of this priority that go before `own_s` of a tenant's version is done."""
        total = 0.0
        share = self._shares.get(tenant)
        for other, shapes in self.tenants.get(tenant, {}).items():
            if other != version and share is not None:
                total += share.before_s(version, own_s, other, _work_s(shapes))
        if len(self.tenants) == (tenant in self.tenants):
            return total
        own_s += total
        for name, lanes in self.tenants.items():
            if name != tenant:
                work_s = sum(map(_work_s, lanes.values()))
                total += self._turns.before_s(
                    tenant, own_s, weight, name, work_s, self._weight(name)
                )
        return total


def _work_s(shapes: Mapping[Shape, Lane]) -> float:
    return sum(lane.work_s for lane in shapes.values())


def _first_of(lanes: list[Lane], room: int) -> list[tuple[Lane, list[Key]]]:
    """The first tickets of lanes, as many as there is room for, the first lane's first."""
    parts: list[tuple[Lane, list[Key]]] = []
    for lane in lanes:
        if room > 0:
            parts.append((lane, lane.keys[:room]))
            room -= len(parts[-1][1])
    return parts
