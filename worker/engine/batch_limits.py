"""How many images a pass may have, by version and shape. Guarded by the engine's lock."""

import sys

from worker.batching.estimates import Shape


class BatchLimits:
    """Two limits hold: what the ledger promises memory for, and what was seen to fit."""

    def __init__(self) -> None:
        self._promised: dict[str, int] = {}
        # Half of what did not fit.
        self._fitting: dict[tuple[str, Shape], int] = {}

    def max_images(self, version: str, shape: Shape) -> int:
        promised = self._promised.get(version, sys.maxsize)
        return min(promised, self._fitting.get((version, shape), promised))

    def promise(self, version: str, images: int) -> None:
        """Memory for passes of so many images is promised from now on."""
        self._promised[version] = images

    def too_large(self, version: str, shape: Shape, images: int) -> None:
        """A pass of so many images did not fit: the next has half of them at most."""
        self._fitting[version, shape] = images // 2

    def reset_fit(self, version: str) -> None:
        """Lets batch sizes that did not fit be tried again."""
        self._fitting = {key: n for key, n in self._fitting.items() if key[0] != version}

    def forget(self, version: str) -> None:
        self._promised.pop(version, None)
        self.reset_fit(version)
