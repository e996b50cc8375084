"""How far one model's boxes are from another's, image by image. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.harness.matching import Detected, overlap

# Boxes of one class that overlap so much are one box, seen twice.
SAME = 0.5


@dataclass(frozen=True, slots=True)
class Drift:
    """Boxes of the exact model, how many of them were found again, and boxes that it does not
    have; the largest distance of a side of a matched box in pixels, and of its scores.
    """

    boxes: int = 0
    matched: int = 0
    extra: int = 0
    pixels: float = 0.0
    score: float = 0.0


def between(exact: Sequence[Detected], other: Sequence[Detected]) -> Drift:
    """Of one image: exact boxes, most confident first, each take the free box of their class with
    the largest overlap of at least SAME.
    """
    free = list(other)
    pixels = score = 0.0
    matched = 0
    for box in sorted(exact, key=lambda one: -one.confidence):
        fits = [one for one in free if one.class_name == box.class_name]
        best = max(fits, key=lambda one: overlap(one.box, box.box), default=None)
        if best is None or overlap(best.box, box.box) < SAME:
            continue
        free.remove(best)
        matched += 1
        sides = zip(best.box, box.box, strict=True)
        pixels = max(pixels, *(abs(a - b) for a, b in sides))
        score = max(score, abs(best.confidence - box.confidence))
    return Drift(len(exact), matched, len(free), pixels, score)


def total(drifts: Iterable[Drift]) -> Drift:
    """Over images: sums of counts, the largest of distances."""
    every = tuple(drifts)
    return Drift(
        sum(one.boxes for one in every),
        sum(one.matched for one in every),
        sum(one.extra for one in every),
        max((one.pixels for one in every), default=0.0),
        max((one.score for one in every), default=0.0),
    )
