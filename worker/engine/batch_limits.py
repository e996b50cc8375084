"""How many images a pass may have, by version and shape. Guarded by the engine's lock."""

import sys
from collections.abc import Collection, Iterable

from worker.batching.estimates import Shape


class BatchLimits:
    """Three limits hold: what the ledger promises memory for, what was seen to fit, and one image
    for a version whose images fail in company and not alone.
    """

    def __init__(self) -> None:
        self._promised: dict[str, int] = {}
        # Half of what did not fit.
        self._fitting: dict[tuple[str, Shape], int] = {}
        # Tickets of the pass that failed, by version.
        self._alone: dict[str, frozenset[int]] = {}

    def max_images(self, version: str, shape: Shape) -> int:
        if version in self._alone:
            return 1
        promised = self._promised.get(version, sys.maxsize)
        return min(promised, self._fitting.get((version, shape), promised))

    def promise(self, version: str, images: int) -> None:
        """Memory for passes of so many images is promised from now on."""
        self._promised[version] = images

    def too_large(self, version: str, shape: Shape, images: int) -> None:
        """A pass of so many images did not fit: the next has half of them at most."""
        self._fitting[version, shape] = images // 2

    def failed_together(self, version: str, tickets: Iterable[int] = ()) -> bool:
        """A pass of several images failed: the next have one each. Returns whether this is new."""
        is_new = version not in self._alone
        self._alone[version] = self._alone.get(version, frozenset()) | frozenset(tickets)
        return is_new

    def failed_alone(self, version: str, tickets: Collection[int]) -> bool:
        """A pass of one image failed. If that image was in a pass of several that failed, the image
        was at fault and not its company: passes may have several again. Returns whether that is so.
        """
        if self._alone.get(version, frozenset()).isdisjoint(tickets):
            return False
        del self._alone[version]
        return True

    def reset_fit(self, version: str) -> None:
        """Lets batch sizes that did not fit, or failed, be tried again."""
        self._fitting = {key: n for key, n in self._fitting.items() if key[0] != version}
        self._alone.pop(version, None)

    def forget(self, version: str) -> None:
        self._promised.pop(version, None)
        self.reset_fit(version)
