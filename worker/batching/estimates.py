"""How long passes take: a sliding window of measured times, and estimates computed from it.

Pure: times are arguments, in seconds. Estimates are asked for many times between two passes, so
they are kept until the next pass is recorded.
"""

from bisect import bisect_left
from collections import deque
from statistics import median

Shape = tuple[int, int]
# Passes in the window. Short, so that a device that becomes slower is noticed before the queue that
# was admitted by the old times is done; four outliers change nothing.
_WINDOW = 9
# Estimates are medians: a ticket with just enough time would be late every other time, and waste a
# pass. The error of a wait grows with its passes.
MARGIN = 1.1


class _Passes:
    """Times of one kind of pass. The first counts only until there is a second: in its first pass
    a runtime prepares kernels.
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
    """One version: its passes by shape and batch size, and the estimates computed from them."""

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
        nearest = min(self.passes, key=lambda known: (abs(known[0] * known[1] - pixels), known))
        medians = sorted((size, times.median_s) for size, times in self.passes[nearest].items())
        return _interpolate(medians, batch) * (pixels / (nearest[0] * nearest[1]))


class LatencyEstimates:
    """Medians of the last passes, by version, letterboxed shape and batch size.

    A median, since one pass that a page fault or a load slows down says nothing about the next.
    """

    def __init__(self, window: int = _WINDOW) -> None:
        self._window = window
        self._versions: dict[str, _Version] = {}

    def record(self, version: str, shape: Shape, batch: int, seconds: float) -> None:
        """Records one pass of `batch` images."""
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

        A batch size that was not measured lies on the line through its neighbours: a pass takes a
        fixed time and more for each image. A shape that was not measured takes the time of the
        nearest one, scaled by pixels.
        """
        known = self._versions.get(version)
        return known.pass_s(shape, batch) if known is not None else None

    def measured(self, version: str) -> dict[Shape, tuple[int, ...]]:
        """The batch sizes that were measured, by shape."""
        known = self._versions.get(version)
        if known is None:
            return {}
        return {shape: tuple(sizes) for shape, sizes in known.passes.items()}

    def is_sure(self, version: str, shape: Shape, batch: int) -> bool:
        """Whether passes of this very kind were measured, and more than the first."""
        known = self._versions.get(version)
        passes = known.passes.get(shape, {}).get(batch) if known is not None else None
        return passes is not None and passes.is_sure

    def passes_s(self, version: str, shape: Shape, images: int, batch: int) -> float:
        """Expected seconds of `images`, `batch` at a time; 0 for a version that has not run."""
        known = self._versions.get(version)
        if known is None or not images:
            return 0.0
        full, rest = divmod(images, batch)
        seconds = full * known.pass_s(shape, batch) if full else 0.0
        return seconds + known.pass_s(shape, rest) if rest else seconds

    def max_within(self, version: str, shape: Shape, limit: int, limit_s: float) -> int:
        """The largest batch, of at most `limit`, whose pass is expected to end within `limit_s`; at
        least 1, and 1 before anything was measured. Assumes that a larger batch takes longer.
        """
        known = self._versions.get(version)
        if known is None:
            return 1
        return max(
            1,
            bisect_left(range(1, limit + 1), True, key=lambda n: known.pass_s(shape, n) > limit_s),
        )


def _interpolate(medians: list[tuple[int, float]], batch: int) -> float:
    """Seconds at `batch` on the line through the two measured sizes around it, or the two nearest;
    in proportion where only one was measured. A larger batch never takes less than a smaller one,
    nor more for each image.
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
