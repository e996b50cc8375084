"""What the answers of each version were, in counters that only grow, and how many in a row found
nothing. Pure; the router calls `ended` once a request.

MAX_VERSIONS versions have counters of their own: the first that come, until one that has none is
asked far more than one that has some. All others count together, as OTHER.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from control_plane.alerts.history import Series
from control_plane.alerts.table import FAILURES, FULL, LATE, MODEL_ENDS
from control_plane.types.version import VersionKey

MAX_VERSIONS = 200
OTHER = "other"
# Versions without counters that are watched, how often they are compared with those that have some,
# and how much more one must be asked to take the place of another.
MAX_WATCHED, COMPARED_EVERY_S, FACTOR = 2000, 60.0, 2
STAGES = ("route", "load_wait", "queue", "decode", "preprocess", "inference", "postprocess")
INFERENCE = STAGES.index("inference")
TIERS = ("device", "host", "store")
BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_ENDS = {"OK": 0, **dict.fromkeys(FAILURES, 1), **dict.fromkeys(LATE, 2)}
_OTHER_END = 3
# Why a request was not answered, in Triton's words.
REFUSALS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
_REFUSALS = {
    **dict.fromkeys((*FULL, "DEADLINE_UNMEETABLE"), 0),
    "CANCELLED": 1,
    **dict.fromkeys(FAILURES, 2),
}
METRICS = frozenset(
    f"yolopool_model_{name}"
    for name in (
        "ended_total", "misses_total", "inference_seconds_sum", "inference_seconds_count",
        "not_finite_total", "empty_in_row",
    )
)  # fmt: skip
_NOT_FINITE = "ANSWER_NOT_FINITE"


class Exemplar(NamedTuple):
    """One request that a bucket counted: its id or its trace's by the name of the label."""

    label: str
    id: str
    seconds: float
    unix_s: float


class Answer(NamedTuple):
    """What is counted of an answer. stages_s: by STAGES. `results`: how many it has. `tier`: index
    in TIERS of where its version was; None: its worker does not say.
    """

    total_s: float
    stages_s: Sequence[float]
    batch_size: int
    results: int
    tier: int | None = None
    exemplar: tuple[str, str] | None = None
    unix_s: float = 0.0


class ModelCount:
    """`buckets`: answers by total time, up to BOUNDS_S and beyond; `exemplars`: the last of each.
    `passes`: a pass that images shared counts for each by its part. `asked`: requests since the
    last comparison. `refusals`: by REFUSALS.
    """

    __slots__ = (
        "asked", "buckets", "empty_in_row", "ends", "exemplars", "has_found", "misses",
        "not_finite", "passes", "refusals", "results", "stages_s", "tiers", "total_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.asked = self.misses = self.not_finite = self.results = 0
        self.passes = self.total_s = 0.0
        self.ends = [0] * len(MODEL_ENDS)
        self.refusals = [0] * len(REFUSALS)
        self.stages_s = [0.0] * len(STAGES)
        self.tiers = [0] * len(TIERS)
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.exemplars: list[Exemplar | None] = [None] * len(self.buckets)
        # It found something once, so that finding nothing says something.
        self.has_found = False
        self.empty_in_row = 0

    def add(self, answer: Answer) -> None:
        total_s, sums = answer.total_s, self.stages_s
        for index, seconds in enumerate(answer.stages_s):
            sums[index] += seconds
        self.total_s += total_s
        self.passes += 1.0 / (answer.batch_size or 1)
        self.results += answer.results
        if answer.tier is not None:
            self.tiers[answer.tier] += 1
        bucket = bisect_left(BOUNDS_S, total_s)
        self.buckets[bucket] += 1
        if answer.exemplar is not None:
            self.exemplars[bucket] = Exemplar(*answer.exemplar, total_s, answer.unix_s)
        if answer.results:
            self.has_found, self.empty_in_row = True, 0
        elif self.has_found:
            self.empty_in_row += 1


class ModelCounts:
    def __init__(self, max_versions: int = MAX_VERSIONS) -> None:
        self._max_versions = max_versions
        self._counts: dict[VersionKey, ModelCount] = {}
        self._other = ModelCount()
        # Requests since the last comparison of versions that have no counters of their own.
        self._watched: Counter[VersionKey] = Counter()
        self._compared_s: float | None = None

    def ended(self, key: VersionKey, outcome: str, hit: bool, answer: Answer | None = None) -> None:
        """A request ended: OK with its answer, or with an error's reason."""
        count = self._counts.get(key) or self._new(key)
        count.asked += 1
        count.ends[_ENDS.get(outcome, _OTHER_END)] += 1
        if not hit:
            count.misses += 1
        if answer is not None:
            count.add(answer)
            return
        count.refusals[_REFUSALS.get(outcome, 3)] += 1
        if outcome == _NOT_FINITE:
            count.not_finite += 1

    def _new(self, key: VersionKey) -> ModelCount:
        if len(self._counts) < self._max_versions:
            count = self._counts[key] = ModelCount()
            return count
        if key in self._watched or len(self._watched) < MAX_WATCHED:
            self._watched[key] += 1
        return self._other

    def look(
        self, versions: Collection[VersionKey], held: Iterable[VersionKey], now: float
    ) -> None:
        """Forgets the versions that were deleted, begins counters of those that workers hold where
        there is room, and now and then gives those of one to another. now: monotonic seconds.
        """
        for known in (self._counts, self._watched):
            for key in [key for key in known if key not in versions]:
                del known[key]
        for key in held:
            if len(self._counts) >= self._max_versions:
                break
            if key in versions and key not in self._counts:
                self._counts[key] = ModelCount()
        if self._compared_s is None or now - self._compared_s >= COMPARED_EVERY_S:
            self._compared_s = now
            self._compare()

    def _compare(self) -> None:
        """What has counters and what has none: the busiest have some. The counters of one that
        loses its place end; what another did without is OTHER's.
        """
        idlest = sorted(self._counts, key=lambda key: self._counts[key].asked)
        for loser, (winner, asked) in zip(idlest, self._watched.most_common(), strict=False):
            if asked <= FACTOR * self._counts[loser].asked:
                break
            del self._counts[loser]
            self._counts[winner] = ModelCount()
        self._watched.clear()
        for count in self._counts.values():
            count.asked = 0

    def each(self) -> Iterator[tuple[VersionKey | None, ModelCount]]:
        """All counts; None: of all versions that have none of their own, if any was asked."""
        yield from self._counts.items()
        if any(self._other.ends):
            yield None, self._other

    def readings(self) -> dict[Series, float]:
        """METRICS of all versions, by the label `model`: name@number."""
        found: dict[Series, float] = {}
        for key, count in self.each():
            model = ("model", label_of(key))
            for end, ended in zip(MODEL_ENDS, count.ends, strict=True):
                found["yolopool_model_ended_total", (("end", end), model)] = ended
            alone = (model,)
            found["yolopool_model_misses_total", alone] = count.misses
            found["yolopool_model_inference_seconds_sum", alone] = count.stages_s[INFERENCE]
            found["yolopool_model_inference_seconds_count", alone] = count.ends[0]
            found["yolopool_model_not_finite_total", alone] = count.not_finite
            if key is not None:
                found["yolopool_model_empty_in_row", alone] = count.empty_in_row
        return found


def label_of(key: VersionKey | None) -> str:
    """name@number, which no other version has."""
    return OTHER if key is None else str(key)
