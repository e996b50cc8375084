"""Whose turn it is among versions of one priority: fair by device time, urgent first within that.

Pure. Each version has a tag, the device time that it had; what is more than another's is forgotten
at LEAK seconds a second. Only those may go whose tag is at most SLACK_S above the least; of these
the one with the earliest deadline goes. So deadlines alone decide while no version takes more than
half of the device, and one that does waits for those that had less.
"""

from collections.abc import Mapping

# Long enough for deadlines to order what comes in a burst, short beside what people wait for.
SLACK_S = 0.1
# A popular version is no flood: held to an equal share of a busy device, most callers would wait
# several times as long as the rest.
LEAK = 0.5


class FairShare:
    """Tags of start-time fair queuing (Goyal, Vin, Cheng, SIGCOMM 1996) and the choice of earliest
    eligible virtual deadline first (Stoica, Abdel-Wahab, 1995), by the callers' real deadlines.

    `virtual_s` is the least tag of those that waited at the last choice. Whoever comes, or comes
    back, begins there: time that was not asked for is not saved up. What leaks is as of a bucket
    (Turner, "New directions in communications", IEEE Communications 24, 1986).
    """

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self._tags: dict[str, float] = {}
        self._leaked_at = 0.0

    def tag_s(self, version: str) -> float:
        return max(self._tags.get(version, 0.0), self.virtual_s)

    def choose(self, firsts: Mapping[str, tuple[float, int]], now: float) -> str:
        """Of versions (at least one) with the key of their most urgent ticket, whose turn it is."""
        leaked_s, self._leaked_at = LEAK * max(0.0, now - self._leaked_at), now
        self._tags = {
            one: tag - leaked_s
            for one, tag in self._tags.items()
            if tag - leaked_s > self.virtual_s
        }
        self.virtual_s = min(map(self.tag_s, firsts))
        eligible = (one for one in firsts if self.tag_s(one) <= self.virtual_s + SLACK_S)
        return min(eligible, key=firsts.__getitem__)

    def charge(self, version: str, seconds: float) -> None:
        """Notes device time that it was given."""
        self._tags[version] = self.tag_s(version) + seconds

    def before_s(self, version: str, work_s: float, other: str, other_work_s: float) -> float:
        """Of the work of `other`, in seconds, what goes before `work_s` of `version` is done:
        as much as evens them out.
        """
        return min(other_work_s, max(0.0, work_s + self.tag_s(version) - self.tag_s(other)))

    def reset(self) -> None:
        """Nobody waits: all is even."""
        self.virtual_s = 0.0
        self._tags.clear()
