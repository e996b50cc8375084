"""How many images a pass may have, by version and shape. Guarded by the engine's lock.

Pure: times are arguments, in seconds of one clock.
"""

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from worker.batching.estimates import Shape

# For so long images run alone that failed in company, and for twice as long each next time.
ALONE_S, MAX_ALONE_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class _Alone:
    """Images of a version run alone until a moment; then they may come together again.

    `tickets`: of the passes that failed, which have not run alone so far.
    """

    tickets: frozenset[int]
    until: float
    wait_s: float


class BatchLimits:
    """Three limits hold: what the ledger promises memory for, what was seen to fit, and one image
    for a version whose images fail in company and not alone.
    """

    def __init__(self) -> None:
        self._promised: dict[str, int] = {}
        # Half of what did not fit.
        self._fitting: dict[tuple[str, Shape], int] = {}
        self._alone: dict[str, _Alone] = {}

    def max_images(self, version: str, shape: Shape, now: float) -> int:
        if self._runs_alone(version, now):
            return 1
        promised = self._promised.get(version, sys.maxsize)
        return min(promised, self._fitting.get((version, shape), promised))

    def promise(self, version: str, images: int) -> None:
        """Memory for passes of so many images is promised from now on."""
        self._promised[version] = images

    def too_large(self, version: str, shape: Shape, images: int) -> None:
        """A pass of so many images did not fit: the next has half of them at most."""
        self._fitting[version, shape] = images // 2

    def failed_together(self, version: str, now: float, tickets: Iterable[int] = ()) -> bool:
        """A pass of several images failed: for a while the next have one each. Returns whether this
        is new.
        """
        before = self._alone.get(version)
        if before is not None and now < before.until:
            self._alone[version] = replace(before, tickets=before.tickets | frozenset(tickets))
            return False
        wait_s = ALONE_S if before is None else min(2 * before.wait_s, MAX_ALONE_S)
        self._alone[version] = _Alone(frozenset(tickets), now + wait_s, wait_s)
        return True

    def ran_together(self, version: str, now: float) -> None:
        """A pass of several images was well. One that was in flight when another failed proves
        nothing.
        """
        if not self._runs_alone(version, now):
            self._alone.pop(version, None)

    def failed_alone(self, version: str, tickets: Collection[int]) -> bool:
        """A pass of one image failed. If that image was in a pass of several that failed, the image
        was at fault and not its company: passes may have several again. Returns whether that is so.
        """
        alone = self._alone.get(version)
        if alone is None or alone.tickets.isdisjoint(tickets):
            return False
        del self._alone[version]
        return True

    def ran_alone(self, version: str, ticket: int) -> None:
        """A pass of one image was well."""
        if (alone := self._alone.get(version)) is not None:
            self._alone[version] = replace(alone, tickets=alone.tickets - {ticket})

    def left(self, ticket: int) -> None:
        """A ticket is gone. If it was in a pass that failed and has not run alone, nobody knows
        whether it was at fault: passes may have several again.
        """
        for version in [one for one, alone in self._alone.items() if ticket in alone.tickets]:
            del self._alone[version]

    def reset_fit(self, version: str) -> None:
        """Lets batch sizes that did not fit, or failed, be tried again."""
        self._fitting = {key: n for key, n in self._fitting.items() if key[0] != version}
        self._alone.pop(version, None)

    def forget(self, version: str) -> None:
        self._promised.pop(version, None)
        self.reset_fit(version)

    def _runs_alone(self, version: str, now: float) -> bool:
        alone = self._alone.get(version)
        return alone is not None and now < alone.until
