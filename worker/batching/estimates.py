"""How long passes take: a sliding window of measured times, and waits computed from it.

Pure: times come in as arguments, in seconds. Asked many times between two passes, so what was
computed is kept until the next one.
"""

from bisect import bisect_left
from collections import deque
from statistics import median

Shape = tuple[int, int]
# A device whose passes become slower is to be noticed before a queue that was let in by the old
# ones is through; four that are off change nothing.
_WINDOW = 9
# Estimates are medians: who has just enough time is late every other time, and a pass is spent for
# nothing. A wait of many passes is off in proportion.
MARGIN = 1.1


class _Passes:
    """Times of one kind of pass. The first counts only until there is a second: a runtime prepares
    what it has not run before.
    """

    def __init__(self, window: int) -> None:
        self._times: deque[float] = deque(maxlen=window)
        self.is_sure = False
        self.median_s = 0.0

    def record(self, seconds: float) -> None:
        if self._times and not self.is_sure:
            self._times.clear()
            self.is_sure = True
        self._times.append(seconds)
        self.median_s = median(self._times)


class _Version:
    """What is known of one version: passes by shape and batch, and what was computed from them."""

    def __init__(self) -> None:
        self.passes: dict[Shape, dict[int, _Passes]] = {}
        self.computed: dict[tuple[Shape, int], float] = {}

    def pass_s(self, shape: Shape, batch: int) -> float:
        seconds = self.computed.get((shape, batch))
        if seconds is None:
            seconds = self.computed[shape, batch] = self._compute(shape, batch)
        return seconds

    def _compute(self, shape: Shape, batch: int) -> float:
        pixels = shape[0] * shape[1]
        known = min(self.passes, key=lambda one: (abs(one[0] * one[1] - pixels), one))
        medians = sorted((size, one.median_s) for size, one in self.passes[known].items())
        return _between(medians, batch) * (pixels / (known[0] * known[1]))


class LatencyEstimates:
    """Medians of the last passes by (version, letterboxed shape, batch).

    A median, since one pass beside a page fault or a load is no sign of the next.
    """

    def __init__(self, window: int = _WINDOW) -> None:
        self._window = window
        self._versions: dict[str, _Version] = {}

    def record(self, version: str, shape: Shape, batch: int, seconds: float) -> None:
        """Notes one pass of `batch` images."""
        known = self._versions.setdefault(version, _Version())
        sizes = known.passes.setdefault(shape, {})
        if batch not in sizes:
            sizes[batch] = _Passes(self._window)
        sizes[batch].record(seconds)
        known.computed.clear()

    def forget(self, version: str) -> None:
        self._versions.pop(version, None)

    def pass_s(self, version: str, shape: Shape, batch: int) -> float | None:
        """Expected seconds of a pass; None for a version that has not run.

        A batch that was not measured lies on the line through its neighbours: a pass takes a fixed
        time and more an image. A shape that was not is the nearest, scaled by pixels.
        """
        known = self._versions.get(version)
        return known.pass_s(shape, batch) if known is not None else None

    def measured(self, version: str) -> dict[Shape, tuple[int, ...]]:
        """Images of the passes that were measured, by shape."""
        known = self._versions.get(version)
        if known is None:
            return {}
        return {shape: tuple(sizes) for shape, sizes in known.passes.items()}

    def is_sure(self, version: str, shape: Shape, batch: int) -> bool:
        """Whether just such passes were measured, and more than the first."""
        known = self._versions.get(version)
        passes = known.passes.get(shape, {}).get(batch) if known is not None else None
        return passes is not None and passes.is_sure

    def passes_s(self, version: str, shape: Shape, images: int, batch: int) -> float:
        """Expected seconds of so many images, `batch` at a time; 0 for one that has not run."""
        known = self._versions.get(version)
        if known is None or not images:
            return 0.0
        full, rest = divmod(images, batch)
        seconds = full * known.pass_s(shape, batch) if full else 0.0
        return seconds + known.pass_s(shape, rest) if rest else seconds

    def most_within(self, version: str, shape: Shape, most: int, limit_s: float) -> int:
        """The largest batch up to `most` whose pass is expected to end within a limit; at least 1,
        and no more before anything was measured. A larger batch is taken to take longer.
        """
        known = self._versions.get(version)
        if known is None:
            return 1
        return max(
            1, bisect_left(range(1, most + 1), True, key=lambda n: known.pass_s(shape, n) > limit_s)
        )


def _between(medians: list[tuple[int, float]], batch: int) -> float:
    """Seconds at `batch` on the line through the two measured sizes around it, or the two nearest;
    in proportion where only one was measured. Never less than one of fewer images, nor more an
    image than a smaller one.
    """
    at = bisect_left(medians, (batch, 0.0))
    if at < len(medians) and medians[at][0] == batch:
        return medians[at][1]
    if len(medians) == 1:
        return medians[0][1] * batch / medians[0][0]
    low = min(max(at - 1, 0), len(medians) - 2)
    (small, small_s), (large, large_s) = medians[low], medians[low + 1]
    slope = (large_s - small_s) / (large - small)
    seconds = small_s + slope * (batch - small)
    if batch < small:
        return min(max(seconds, small_s * batch / small), small_s)
    if batch > large:
        return min(max(seconds, large_s), large_s * batch / large)
    return seconds
