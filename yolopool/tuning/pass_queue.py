"""What requests take that share passes: the queue of one device that runs all that waits, up to a
largest batch, whenever it is free. Pure.

The bulk-service queue M/G(1,b)/1 of Neuts, "A general class of bulk queues with Poisson input",
Ann. Math. Stat. 38 (1967), by its Markov chain at the ends of passes; Inoue has it for inference
servers ("Queueing analysis of GPU-based inference servers with dynamic batching", 2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolopool.tuning.pass_curve import PassCurve

Floats = NDArray[np.float64]
# So many passes take their p99 instead of their median: twice those that were slower.
SLOW_SHARE = 0.02
# Moments of a pass at which arrivals are looked at.
_MOMENTS = 12
# A normal distribution by three points: deviations from its mean, and how likely they are.
_NODES = ((-1.732, 1 / 6), (0.0, 2 / 3), (1.732, 1 / 6))
# Numbers of waiting requests that are rarer change no p99.
_RARE = 1e-5
# Beyond this share of what full passes can answer, queues grow without end in practice.
MOST_BUSY = 0.97


@dataclass(frozen=True, slots=True)
class Batched:
    """`largest` images a pass; `preferred`: see Batching of types.proto; empty: any size."""

    largest: int
    preferred: tuple[int, ...] = ()

    def cut(self, waiting: int) -> int:
        """Images of the next pass where so many wait, at least one."""
        most = min(waiting, self.preferred[-1] if self.preferred else self.largest)
        return max((size for size in self.preferred if size <= most), default=most)


@dataclass(frozen=True, slots=True)
class Predicted:
    """`p99_s`: of the wait and the pass of a request. `busy`: the device's share of time in passes,
    0..1. `images`: of a pass on average.
    """

    p99_s: float
    busy: float
    images: float


def predicted(curve: PassCurve, batched: Batched, rate: float) -> Predicted | None:
    """At `rate` requests a second that arrive at random (Poisson); None: it can't answer them."""
    full = batched.cut(10**6)
    sizes = range(1, full + 1)
    usual = np.array([0.0, *(curve.usual_of(n) for n in sizes)])
    slow: Floats = np.maximum(usual, np.array([0.0, *(curve.slow_of(n) for n in sizes)]))
    mean = (1 - SLOW_SHARE) * usual + SLOW_SHARE * slow
    if rate * mean[full] >= MOST_BUSY * full:
        return None
    times = [(usual, 1 - SLOW_SHARE), (slow, SLOW_SHARE)]
    if np.array_equal(usual, slow):
        times = [(usual, 1.0)]
    # Long enough that the queue is hardly ever longer.
    length = int(min(1000, 3 * full + 30 + 4 * rate * slow[full]))
    cuts = np.array([1, *(batched.cut(waiting) for waiting in range(1, length + full + 2))])
    left = _left_behind(length, cuts, times, rate)
    own = _to_answer(length, full, cuts, usual, mean)
    values: list[Floats] = [usual[1:2], slow[1:2]]
    weights: list[Floats] = [left[:1] * (1 - SLOW_SHARE), left[:1] * SLOW_SHARE]
    for size in sorted(set(cuts[:length].tolist())):
        for taken, likely in times:
            value, weight = _of_arrivals(
                taken[size],
                [
                    (max(0, waiting - size), share * likely)
                    for waiting, share in enumerate(left)
                    if cuts[waiting] == size and share > _RARE
                ],
                own, mean[full], full, rate,
            )  # fmt: skip
            values.append(value)
            weights.append(weight)
    passes = float(sum(share * mean[cuts[waiting]] for waiting, share in enumerate(left)))
    cycle = passes + float(left[0]) / rate
    p99_s = _quantile(np.concatenate(values), np.concatenate(weights), 0.99)
    return Predicted(max(p99_s, float(slow[1])), passes / cycle, max(1.0, float(rate * cycle)))


def _left_behind(
    length: int, cuts: NDArray[np.int_], times: Sequence[tuple[Floats, float]], rate: float
) -> Floats:
    """How likely it is that so many wait when a pass ends. With none, the next pass is of one."""
    chain = np.zeros((length, length))
    arrived: dict[int, Floats] = {}
    for waiting in range(length):
        size = int(cuts[waiting])
        if size not in arrived:
            arrived[size] = sum(
                (part * _poisson(rate * taken[size], length) for taken, part in times),
                start=np.zeros(length),
            )
        behind = max(0, waiting - size)
        chain[waiting, behind:] = arrived[size][: length - behind]
        chain[waiting, -1] += max(0.0, 1.0 - chain[waiting].sum())
    balance = chain.T - np.eye(length)
    balance[-1] = 1.0
    target = np.zeros(length)
    target[-1] = 1.0
    likely: Floats = np.clip(np.linalg.solve(balance, target), 0.0, None)
    return likely


def _to_answer(
    length: int, full: int, cuts: NDArray[np.int_], usual: Floats, mean: Floats
) -> Floats:
    """Seconds from the end of a pass to the answer of a request with `a` ahead of it and `l` behind
    it, at [a, l]; passes before its own take the mean.
    """
    own = np.zeros((length, full + 1))
    later = np.arange(full + 1)
    for ahead in range(length):
        size = cuts[np.minimum(ahead + 1 + later, len(cuts) - 1)]
        is_in = ahead < size
        rest = np.maximum(ahead - size, 0)
        own[ahead] = np.where(is_in, usual[size], mean[size] + own[rest, later])
    return own


def _of_arrivals(
    pass_s: float,
    left: Sequence[tuple[int, float]],
    own: Floats,
    full_s: float,
    full: int,
    rate: float,
) -> tuple[Floats, Floats]:
    """What requests take that arrive in passes of so many seconds, and how many they are. `left`:
    how many were left over before the pass, and how likely that is.
    """
    if not left:
        return np.zeros(0), np.zeros(0)
    behind = np.array([each for each, _ in left])[:, None, None]
    share = np.array([each for _, each in left])[:, None, None]
    at = (np.arange(_MOMENTS) + 0.5) / _MOMENTS * pass_s
    most = int(rate * pass_s + 6 * np.sqrt(rate * pass_s) + 4)
    before = np.array([_poisson(rate * moment, most) for moment in at])
    ahead = np.minimum(behind + np.arange(most), len(own) - 1)
    rest = (pass_s - at)[:, None]
    after = rate * (rest + ahead // full * full_s)
    values, weights = [], []
    for deviations, likely in _NODES:
        later = np.clip(np.rint(after + deviations * np.sqrt(after)), 0, full).astype(int)
        values.append((rest + own[np.broadcast_to(ahead, later.shape), later]).ravel())
        weights.append((before * share * (rate * pass_s / _MOMENTS * likely)).ravel())
    return np.concatenate(values), np.concatenate(weights)


def _poisson(expected: float, length: int) -> Floats:
    """How likely 0, 1, ... length - 1 are, where more than 0 are expected."""
    counts = np.arange(length)
    logs = counts * np.log(expected) - expected - np.cumsum(np.log(np.maximum(counts, 1)))
    likely: Floats = np.exp(logs)
    return likely


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][int(np.searchsorted(reached, share * reached[-1]))])
