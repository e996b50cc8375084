"""A against B in one run: alternating runs, ratio of medians, with the spread beside it.

Figures of two runs are never compared: machines drift by more than most changes gain.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from benchmarks.harness.statistics import Interval, Spread, bootstrap, median, spread

# One run of a variant: its figure, e.g. images a second.
Run = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """B over A. `by_round` has the ratio of each pair: if it straddles 1, nothing was shown."""

    a: Spread
    b: Spread
    ratio: float
    by_round: Spread
    interval: Interval  # 95 % bootstrap of the ratio of medians

    def __str__(self) -> str:
        rounds = f"rounds {self.by_round.minimum:.3f}-{self.by_round.maximum:.3f}"
        interval = f"95 % {self.interval.low:.3f}-{self.interval.high:.3f}"
        return f"B/A {self.ratio:.3f} ({rounds}, {interval}; A {self.a}, B {self.b})"


async def alternate(a: Run, b: Run, rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Runs A B, B A, A B, ...: in turns, so that a drift of the machine meets both, and with the
    order reversed each round, so that neither always comes after the other."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            taken[index].append(await (a, b)[index]())
    return tuple(taken[0]), tuple(taken[1])


def ratio_of_medians(samples: Sequence[Sequence[float]]) -> float:
    """median(samples[1]) / median(samples[0])."""
    return median(samples[1]) / median(samples[0])


def compare(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Comparison:
    """Compares paired runs: a[i] and b[i] are of one round. ValueError if empty or unpaired."""
    if len(a) != len(b):
        raise ValueError(f"runs come in pairs: {len(a)} of A and {len(b)} of B")
    return Comparison(
        a=spread(a),
        b=spread(b),
        ratio=ratio_of_medians((a, b)),
        by_round=spread([second / first for first, second in zip(a, b, strict=True)]),
        interval=bootstrap((a, b), ratio_of_medians, seed),
    )
