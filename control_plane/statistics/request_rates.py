"""What the requests of the last minute were, by version: rates, quantiles, waits. Pure.

Kept in steps of STEP_S in a ring of STEPS. Beyond MAX_VERSIONS the one that was asked least lately
is dropped for a new one, so that memory is bounded: some 4 kB a version.
"""

from array import array
from collections import OrderedDict
from dataclasses import dataclass

from control_plane.statistics.histogram import BUCKETS, added, bucket_of, quantile_ms
from control_plane.types.version import VersionKey

STEP_S, STEPS = 5.0, 12
WINDOW_S = STEP_S * STEPS
MAX_VERSIONS = 2000


class _Step:
    """What ended in STEP_S seconds; `number` says in which."""

    __slots__ = (
        "batch", "errors", "hits", "inference_ms", "number", "ok", "queue_ms", "totals",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.ok = self.errors = self.hits = self.batch = 0
        self.queue_ms = self.inference_ms = 0.0
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
        step.ok += 1
        step.hits += hit
        step.batch += batch
        step.queue_ms += queue_ms
        step.inference_ms += inference_ms
        bucket = bucket_of(total_ms)
        if step.totals[bucket] < 0xFFFF:
            step.totals[bucket] += 1

    def failed(self, key: VersionKey, hit: bool, now: float) -> None:
        step = self._step(key, now)
        step.errors += 1
        step.hits += hit

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
        told = []
        for key, ring in self._of.items():
            steps = [step for step in ring if latest - STEPS < step.number <= latest]
            if steps:
                told.append(_figures(key, steps, latest, now))
        return tuple(sorted(told, key=lambda one: (-one.requests_per_s, one.key)))


def _figures(key: VersionKey, steps: list[_Step], latest: int, now: float) -> Figures:
    ok, errors = sum(step.ok for step in steps), sum(step.errors for step in steps)
    # The newest step has begun only.
    span_s = WINDOW_S - STEP_S + max(0.1, now - latest * STEP_S)
    totals = added(step.totals for step in steps)
    by_number = {step.number: (step.ok + step.errors) / STEP_S for step in steps}
    return Figures(
        key,
        (ok + errors) / span_s,
        errors / span_s,
        quantile_ms(totals, 0.5),
        quantile_ms(totals, 0.99),
        sum(step.queue_ms for step in steps) / max(1, ok),
        sum(step.inference_ms for step in steps) / max(1, ok),
        sum(step.batch for step in steps) / max(1, ok),
        sum(step.hits for step in steps) / max(1, ok + errors),
        tuple(by_number.get(number, 0.0) for number in range(latest - STEPS + 1, latest + 1)),
    )
