"""What the requests of the last minute were, by version: rates, quantiles, waits. Pure.

Kept in steps of STEP_S in a ring of STEPS. Beyond MAX_VERSIONS the one that was asked least lately
is dropped for a new one, so that memory is bounded: MAX_BYTES a version.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from control_plane.statistics.histogram import BUCKETS, bucket_of, quantiles_ms
from control_plane.types.version import VersionKey

STEP_S, STEPS = 5.0, 12
WINDOW_S = STEP_S * STEPS
MAX_VERSIONS = 2000
MAX_BYTES = 6144
# What a step adds up.
_OK, _ERRORS, _HITS, _BATCH, _QUEUE_MS, _INFERENCE_MS = range(6)


class _Step:
    """What ended in STEP_S seconds; `number` says in which. `totals` counts answers by their time,
    up to as many as fit.
    """

    __slots__ = ("number", "sums", "totals")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sums = array("d", bytes(8 * 6))
        self.totals = array("H", bytes(2 * BUCKETS))


@dataclass(frozen=True, slots=True)
class Figures:
    """The requests of one version within the window. Times are of those that were answered: means,
    and quantiles of the total. hit_ratio: of all, those for which a worker had the model. `steps`:
    requests a second in each step, oldest first.
    """

    key: VersionKey
    requests_per_s: float
    errors_per_s: float
    p50_ms: float
    p99_ms: float
    queue_ms: float
    inference_ms: float
    batch_size: float
    hit_ratio: float
    steps: tuple[float, ...]


class RequestRates:
    """now: seconds of a clock that only goes on."""

    def __init__(self) -> None:
        self._of: OrderedDict[VersionKey, list[_Step]] = OrderedDict()

    def answered(
        self,
        key: VersionKey,
        hit: bool,
        total_ms: float,
        queue_ms: float,
        inference_ms: float,
        batch: int,
        now: float,
    ) -> None:
        step = self._step(key, now)
        sums, totals = step.sums, step.totals
        sums[_OK] += 1
        sums[_HITS] += hit
        sums[_BATCH] += batch
        sums[_QUEUE_MS] += queue_ms
        sums[_INFERENCE_MS] += inference_ms
        bucket = bucket_of(total_ms)
        if totals[bucket] < 0xFFFF:
            totals[bucket] += 1

    def failed(self, key: VersionKey, hit: bool, now: float) -> None:
        sums = self._step(key, now).sums
        sums[_ERRORS] += 1
        sums[_HITS] += hit

    def _step(self, key: VersionKey, now: float) -> _Step:
        ring = self._of.get(key)
        if ring is None:
            if len(self._of) >= MAX_VERSIONS:
                self._of.popitem(last=False)
            ring = self._of[key] = []
        number = int(now / STEP_S)
        if ring and ring[-1].number == number:
            return ring[-1]
        self._of.move_to_end(key)
        ring.append(_Step(number))
        del ring[:-STEPS]
        return ring[-1]

    def figures(self, now: float) -> tuple[Figures, ...]:
        """Of every version that was asked within the window, the busiest first."""
        latest = int(now / STEP_S)
        keys: list[VersionKey] = []
        firsts: list[int] = []
        steps: list[_Step] = []
        for key, ring in self._of.items():
            recent = [step for step in ring if latest - STEPS < step.number <= latest]
            if recent:
                keys.append(key)
                firsts.append(len(steps))
                steps += recent
        if not keys:
            return ()
        # The newest step has begun only.
        span_s = WINDOW_S - STEP_S + max(0.1, now - latest * STEP_S)
        told = _figures(keys, firsts, steps, latest, span_s)
        return tuple(sorted(told, key=lambda one: (-one.requests_per_s, one.key)))


def _figures(
    keys: Sequence[VersionKey],
    firsts: Sequence[int],
    steps: Sequence[_Step],
    latest: int,
    span_s: float,
) -> Iterator[Figures]:
    """All at once, since there may be thousands: `firsts` says where the steps of each begin."""
    sums = np.frombuffer(b"".join([step.sums for step in steps]), np.float64).reshape(-1, 6)
    totals = np.frombuffer(b"".join([step.totals for step in steps]), np.uint16)
    counts = np.add.reduceat(totals.reshape(-1, BUCKETS), firsts, axis=0, dtype=np.int64)
    ended = np.zeros((len(keys), STEPS))
    of = np.repeat(np.arange(len(keys)), np.diff([*firsts, len(steps)]))
    ended[of, [step.number - latest - 1 for step in steps]] = sums[:, _OK] + sums[:, _ERRORS]
    added = np.add.reduceat(sums, firsts, axis=0)
    answers, requests = added[:, _OK], added[:, _OK] + added[:, _ERRORS]
    means = added / np.maximum(1, answers)[:, None]
    columns = (
        requests / span_s,
        added[:, _ERRORS] / span_s,
        quantiles_ms(counts, 0.5),
        quantiles_ms(counts, 0.99),
        means[:, _QUEUE_MS],
        means[:, _INFERENCE_MS],
        means[:, _BATCH],
        added[:, _HITS] / requests,
    )
    table = np.column_stack(columns).tolist()
    for key, told, line in zip(keys, table, (ended / STEP_S).tolist(), strict=True):
        rate, errors, p50, p99, queue, inference, batch, hits = told
        yield Figures(key, rate, errors, p50, p99, queue, inference, batch, hits, tuple(line))
