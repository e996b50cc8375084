"""Which tenant of one priority goes next, and how much of others' work goes before a request. Pure.

Each tenant has a tag: the device time it used, divided by its weight. The lowest tag goes next, so
that a tenant with a backlog delays another by no more than the passes that were begun.
"""

from collections.abc import Mapping

from worker.batching.config import Key

# What a pass counts for before one was measured.
UNMEASURED_S = 0.001


class TenantTurns:
    """Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): the work of a tenant begins at
    the tag where its last ended, or at `virtual_s`, the tag at which the newest pass began. Unused
    time is not saved up, and nobody who waits is left idle for another.

    Of two tenants that always wait, the times over weights differ by no more than the longest pass
    of each over its weight.
    """

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self._ends: dict[str, float] = {}

    def tag_s(self, tenant: str) -> float:
        return max(self._ends.get(tenant, 0.0), self.virtual_s)

    def choose(self, firsts: Mapping[str, Key]) -> str:
        """The tenant that goes next; `firsts` has the key of each one's most urgent ticket, which
        decides between equals. It is not empty.
        """
        chosen = min(firsts, key=lambda tenant: (self.tag_s(tenant), firsts[tenant]))
        self.chosen(chosen)
        if len(self._ends) > len(firsts):
            self._ends = {name: end for name, end in self._ends.items() if end > self.virtual_s}
        return chosen

    def chosen(self, tenant: str) -> None:
        """Notes that a tenant goes next."""
        self.virtual_s = max(self._ends.get(tenant, 0.0), self.virtual_s)

    def charge(self, tenant: str, seconds: float, weight: float) -> None:
        """Adds device time that a tenant used."""
        self._ends[tenant] = self.tag_s(tenant) + (seconds or UNMEASURED_S) / weight

    def before_s(
        self, tenant: str, work_s: float, weight: float, other: str, other_s: float, other_w: float
    ) -> float:
        """How much of the work `other_s` of a tenant of the weight `other_w` goes before `work_s`
        of this one is done.
        """
        ends = self.tag_s(tenant) + work_s / weight
        return min(other_s, max(0.0, ends - self.tag_s(other)) * other_w)

    def reset(self) -> None:
        """Makes all tags equal, once nobody waits."""
        self.virtual_s = 0.0
        self._ends.clear()
