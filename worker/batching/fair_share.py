"""Which version of one priority goes next: fair by device time, then by deadline.

Pure. Each version has a tag: the device time it used. A version may go if its tag is at most
SLACK_S above the lowest, and of these the one with the earliest deadline goes. What a tag has more
than others leaks at LEAK seconds a second. So deadlines alone decide while no version uses more
than half of the device, and a version that does waits for the others.
"""

from collections.abc import Mapping

# Long enough for deadlines to order a burst, short compared with what people wait for.
SLACK_S = 0.1
# A popular version is no flood: with an equal share of a busy device, most callers would wait
# several times as long as the rest.
LEAK = 0.5


class FairShare:
    """Tags as in start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996); the choice as in
    earliest eligible virtual deadline first (Stoica, Abdel-Wahab, 1995), by real deadlines.

    `virtual_s` is the lowest tag of the versions that waited at the last choice. A version that
    comes, or comes back, begins there: unused time is not saved up. Tags leak as a leaky bucket
    does (Turner, "New directions in communications", IEEE Communications 24, 1986).
    """

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self._tags: dict[str, float] = {}
        self._leaked_at = 0.0

    def tag_s(self, version: str) -> float:
        return max(self._tags.get(version, 0.0), self.virtual_s)

    def choose(self, firsts: Mapping[str, tuple[float, int]], now: float) -> str:
        """The version that goes next. `firsts` has the key of each version's most urgent ticket;
        it is not empty.
        """
        leaked_s, self._leaked_at = LEAK * max(0.0, now - self._leaked_at), now
        self._tags = {
            version: tag - leaked_s
            for version, tag in self._tags.items()
            if tag - leaked_s > self.virtual_s
        }
        self.virtual_s = min(map(self.tag_s, firsts))
        limit_s = self.virtual_s + SLACK_S
        eligible = (version for version in firsts if self.tag_s(version) <= limit_s)
        return min(eligible, key=firsts.__getitem__)

    def charge(self, version: str, seconds: float) -> None:
        """Adds device time that a version used."""
        self._tags[version] = self.tag_s(version) + seconds

    def before_s(self, version: str, work_s: float, other: str, other_work_s: float) -> float:
        """How much of `other`'s work, in seconds, goes before `work_s` of `version` is done: as
        much as makes their tags equal.
        """
        return min(other_work_s, max(0.0, work_s + self.tag_s(version) - self.tag_s(other)))

    def reset(self) -> None:
        """Makes all tags equal, once nobody waits."""
        self.virtual_s = 0.0
        self._tags.clear()
