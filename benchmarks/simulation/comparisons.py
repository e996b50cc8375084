"""A stock of comparisons of one candidate with the stable version, each noted by the product's own
code, from which runs draw: so many runs cost little more than the stock.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.simulation.candidates import (
    CLASSES,
    NOTHING,
    Break,
    Reply,
    Scene,
    reply,
    scene,
)
from yolopool.evaluation.agreement.betting import SHARES
from yolopool.evaluation.agreement.disagreement import Tolerance, directions, disagreement
from yolopool.evaluation.agreement.evidence import Evidence

ARRAYS = ("failed", "logs", "sums", "counts", "objects", "scores", "moved", "times")
Ints = np.ndarray


@dataclass(slots=True)
class Stock:
    """Comparisons of one kind, in order, as arrays (n, ...)."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    images: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lost: np.ndarray = field(default_factory=lambda: np.zeros(0))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, entries: Sequence[Evidence]) -> "Stock":
        lost = np.zeros((len(entries), len(CLASSES), 2 + len(SHARES)))
        classes = np.zeros((len(entries), len(CLASSES), 2))
        for place, one in enumerate(entries):
            for number, values in one.lost.items():
                lost[place, number] = values
            for number, counts in one.classes.items():
                classes[place, number] = counts
        arrays = {name: np.stack([getattr(one, name) for one in entries]) for name in ARRAYS}
        return cls(arrays, np.array([one.images for one in entries]), lost, classes)

    def __len__(self) -> int:
        return len(self.images)

    def add_to(self, evidence: Evidence, chosen: Ints) -> None:
        """Notes these comparisons."""
        evidence.requests += len(chosen)
        evidence.images += int(self.images[chosen].sum())
        for name, values in self.arrays.items():
            setattr(evidence, name, getattr(evidence, name) + values[chosen].sum(axis=0))
        lost, classes = self.lost[chosen].sum(axis=0), self.classes[chosen].sum(axis=0)
        for number in np.nonzero(lost[:, 1])[0].tolist():
            zero = np.zeros(lost.shape[1])
            evidence.lost[number] = evidence.lost.get(number, zero) + lost[number]
        for number in np.nonzero(classes.sum(axis=1))[0].tolist():
            evidence.classes[number] = evidence.classes.get(number, np.zeros(2)) + classes[number]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """`same`: on the same image; `live`: an answer of the candidate with one of the stable version
    about another image.
    """

    same: Stock
    live: Stock


def comparisons(
    size: str, changes: Sequence[Break], allowed: Tolerance, count: int, seed: int
) -> Comparisons:
    """A stock of `count` of each; `changes` make the candidate of a version in order."""
    rng = np.random.default_rng(seed)
    same = _noted((scene(size, rng) for _ in range(count)), changes, allowed, rng)
    live = _noted((NOTHING for _ in range(4 * count)), changes, allowed, rng)
    return Comparisons(Stock.of(same), Stock.of(live))


def is_within(stock: Comparisons, allowed: Tolerance) -> bool:
    """Whether the whole stock is within every tolerance: what it is drawn from, exactly."""
    bounds = np.array([one.bound for one in directions(allowed)])
    for part in (stock.same, stock.live):
        sums, counts = part.arrays["sums"].sum(axis=0), part.arrays["counts"].sum(axis=0)
        lost = part.lost.sum(axis=0)
        if (sums > bounds * counts).any() or (lost[:, 0] > allowed.lost * lost[:, 1]).any():
            return False
    return True


def _noted(
    scenes: Iterable[Scene],
    changes: Sequence[Break],
    allowed: Tolerance,
    rng: np.random.Generator,
) -> list[Evidence]:
    entries = []
    for seen in scenes:
        load = float(rng.uniform(0.5, 1.5))
        stable = reply(seen, rng, load)
        candidate = reply(seen, rng, load)
        for change in changes:
            candidate = change(candidate, rng)
        entries.append(_compared(stable, candidate, allowed, same=seen is not NOTHING))
    return entries


def _compared(stable: Reply, candidate: Reply, allowed: Tolerance, *, same: bool) -> Evidence:
    """As a control plane notes it: times and images only of what was answered."""
    evidence = Evidence(allowed)
    evidence.note_outcome(stable_failed=stable.failed, candidate_failed=candidate.failed)
    if not stable.failed and not candidate.failed:
        evidence.note_times(stable.ms, candidate.ms)
        if same:
            found = disagreement(stable.found, candidate.found, allowed)
            evidence.note_images(stable.found, candidate.found, found)
    return evidence
