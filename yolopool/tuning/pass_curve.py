"""How long passes of a shape take by batch size, as measured. Pure."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Protocol


class Measured(Protocol):
    """One point of a sweep; milliseconds of a pass."""

    @property
    def batch(self) -> int: ...

    @property
    def p50_ms(self) -> float: ...

    @property
    def p99_ms(self) -> float: ...


@dataclass(frozen=True, slots=True)
class PassCurve:
    """`batches` ascend; `usual_s` are the medians of their passes, and never fall; `slow_s` are
    what the slowest in 100 take.
    """

    shape: str
    batches: tuple[int, ...]
    usual_s: tuple[float, ...]
    slow_s: tuple[float, ...]

    @classmethod
    def of(cls, shape: str, points: Iterable[Measured]) -> "PassCurve":
        """Of the measured points of one shape, at least one, each batch once, in any order.

        Dozens of passes are too few for a p99 of their own: how much longer a slow pass takes is
        the median of all sizes.
        """
        ordered = sorted(points, key=lambda point: point.batch)
        spread = max(1.0, median(point.p99_ms / point.p50_ms for point in ordered))
        usual_s = tuple(accumulate((point.p50_ms / 1000 for point in ordered), max))
        batches = tuple(point.batch for point in ordered)
        return cls(shape, batches, usual_s, tuple(spread * each for each in usual_s))

    def usual_of(self, images: int) -> float:
        """Median seconds of a pass of so many images, on the line between measured sizes."""
        return self._at(images, self.usual_s)

    def slow_of(self, images: int) -> float:
        """What the slowest in 100 of such passes take, in seconds."""
        return self._at(images, self.slow_s)

    def images_per_s(self, images: int) -> float:
        """Of passes of so many images, one after the other."""
        return images / self.usual_of(images)

    def _at(self, images: int, times: tuple[float, ...]) -> float:
        at = bisect_left(self.batches, images)
        if at == len(self.batches):  # in proportion to the largest: no gain is assumed
            return times[-1] * images / self.batches[-1]
        if self.batches[at] == images or at == 0:
            return times[at]
        small, large = self.batches[at - 1], self.batches[at]
        part = (images - small) / (large - small)
        return times[at - 1] + part * (times[at] - times[at - 1])
