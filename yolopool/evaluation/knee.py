"""Which batch size is worth its latency: the knee of a batch-latency curve. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# A doubling of the batch must add this share of throughput to be worth its latency.
GAIN = 0.1


class Measured(Protocol):
    """One point of a curve."""

    @property
    def batch(self) -> int: ...

    @property
    def images_per_s(self) -> float: ...

    @property
    def p50_ms(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Knee:
    """The batch size to use, and what the next larger measured one (`next_batch`, 0: none) would
    add in throughput and latency, as fractions of the knee's.
    """

    batch: int
    images_per_s: float
    p50_ms: float
    next_batch: int
    more_images: float
    more_latency: float

    def says(self, gain: float = GAIN) -> str:
        """The reason, in one sentence."""
        speed = f"{self.images_per_s:.3g} images/s at {self.p50_ms:.3g} ms a pass"
        if not self.next_batch:
            return f"batch {self.batch}, {speed}: no larger one was measured"
        return (
            f"batch {self.batch}, {speed}: {self.next_batch} gives {self.more_images:+.0%} "
            f"images/s for {self.more_latency:+.0%} latency, and a doubling must give {gain:+.0%}"
        )


def knee(points: Sequence[Measured], gain: float = GAIN) -> Knee:
    """The smallest batch beyond which no larger one gives `gain` more images/s per doubling.

    Batch c is worth its latency beside b < c if T(c) >= T(b) (1 + gain) ** log2(c / b), with T the
    images/s. No batch beyond the knee is worth it, and every smaller batch has a larger one that
    is: the knee is the largest batch for which T(b) / b ** log2(1 + gain) is greatest. So it does
    not depend on how many larger batches were measured. The knee of Kneedle does, because it scales
    the curve to the measured range (Satopaa et al., "Finding a 'Kneedle' in a Haystack", 2011).

    `points` are of one shape, in any order, each batch once. Raises ValueError without points.
    """
    if not points:
        raise ValueError("nothing was measured, so there is no knee")
    ordered = sorted(points, key=lambda point: point.batch)
    power = math.log2(1 + gain)
    best = max(ordered, key=lambda point: (point.images_per_s / point.batch**power, point.batch))
    following = next((point for point in ordered if point.batch > best.batch), None)
    if following is None:
        return Knee(best.batch, best.images_per_s, best.p50_ms, 0, 0.0, 0.0)
    return Knee(
        best.batch,
        best.images_per_s,
        best.p50_ms,
        following.batch,
        following.images_per_s / best.images_per_s - 1,
        following.p50_ms / best.p50_ms - 1,
    )
