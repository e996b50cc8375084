"""How long passes take: a sliding window of measured times, and waits computed from it.

Pure: times come in as arguments, in seconds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

Shape = tuple[int, int]
_WINDOW = 32


@dataclass(frozen=True, slots=True)
class Waiting:
    """So many tickets of one version and shape, run at most `max_batch` at a time."""

    version: str
    shape: Shape
    count: int
    max_batch: int


class Estimates:
    """Medians of the last passes by (version, letterboxed shape, batch).

    A median, since one pass beside a page fault or a load is no sign of the next. The first of a
    kind counts only until there is a second: a runtime prepares what it has not run before.
    """

    def __init__(self, window: int = _WINDOW) -> None:
        self._window = window
        self._times: dict[str, dict[tuple[Shape, int], deque[float]]] = {}
        self._first: set[tuple[str, Shape, int]] = set()

    def record(self, version: str, shape: Shape, batch: int, seconds: float) -> None:
        """Notes one pass of `batch` images."""
        times = self._times.setdefault(version, {})
        known = times.get((shape, batch))
        if known is None:
            known = times[shape, batch] = deque(maxlen=self._window)
            self._first.add((version, shape, batch))
        elif (version, shape, batch) in self._first:
            self._first.discard((version, shape, batch))
            known.clear()
        known.append(seconds)

    def forget(self, version: str) -> None:
        for shape, batch in self._times.pop(version, {}):
            self._first.discard((version, shape, batch))

    def pass_s(self, version: str, shape: Shape, batch: int) -> float | None:
        """Expected seconds of a pass; None for a version that has not run.

        What was not measured is scaled by pixels from the nearest that was: work grows with
        images times area, and a small pass is never cheaper than this says by much.
        """
        times = self._times.get(version)
        if not times:
            return None
        if (shape, batch) in times:
            return median(times[shape, batch])
        pixels = batch * shape[0] * shape[1]

        def distance(known: tuple[Shape, int]) -> tuple[int, int]:
            (height, width), images = known
            return (abs(images * height * width - pixels), images)

        nearest = min(times, key=distance)
        (height, width), images = nearest
        return median(times[nearest]) * pixels / (images * height * width)

    def wait_s(self, waiting: Iterable[Waiting]) -> float:
        """Seconds until all these are done; versions that have not run count as nothing."""
        total = 0.0
        for lane in waiting:
            full, rest = divmod(lane.count, lane.max_batch)
            if full:
                total += full * (self.pass_s(lane.version, lane.shape, lane.max_batch) or 0.0)
            if rest:
                total += self.pass_s(lane.version, lane.shape, rest) or 0.0
        return total
