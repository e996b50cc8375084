"""What the answers of each version were, in counters that only grow, and how many in a row found
nothing. Pure; the router calls `ended` once a request.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from control_plane.alerts.history import Series
from control_plane.alerts.table import FAILURES, LATE, MODEL_ENDS
from control_plane.types.version import VersionKey

# Versions that have series of their own: those with the newest requests.
MAX_VERSIONS = 200

_ENDS = {"OK": 0, **dict.fromkeys(FAILURES, 1), **dict.fromkeys(LATE, 2)}
_OTHER = 3
METRICS = frozenset(
    f"yolopool_model_{name}"
    for name in (
        "ended_total", "misses_total", "inference_seconds_sum", "inference_seconds_count",
        "not_finite_total", "empty_in_row",
    )
)  # fmt: skip
_NOT_FINITE = "ANSWER_NOT_FINITE"


@dataclass(slots=True)
class _Count:
    ends: list[int]
    misses: int = 0
    inference_s: float = 0.0
    not_finite: int = 0
    # It found something once, so that finding nothing says something.
    has_found: bool = False
    empty_in_row: int = 0


class ModelCounts:
    def __init__(self, max_versions: int = MAX_VERSIONS) -> None:
        self._max_versions = max_versions
        self._counts: OrderedDict[VersionKey, _Count] = OrderedDict()

    def ended(
        self, key: VersionKey, outcome: str, hit: bool, inference_ms: float = 0.0, results: int = 0
    ) -> None:
        """A request ended: OK with so many results, or with an error's reason."""
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count([0] * len(MODEL_ENDS))
            if len(self._counts) > self._max_versions:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(key)
        count.ends[_ENDS.get(outcome, _OTHER)] += 1
        if not hit:
            count.misses += 1
        if outcome != "OK":
            if outcome == _NOT_FINITE:
                count.not_finite += 1
            return
        count.inference_s += inference_ms / 1000
        if results:
            count.has_found, count.empty_in_row = True, 0
        elif count.has_found:
            count.empty_in_row += 1

    def keep_only(self, versions: Collection[VersionKey]) -> None:
        """Forgets the versions that were deleted."""
        for key in [key for key in self._counts if key not in versions]:
            del self._counts[key]

    def readings(self) -> dict[Series, float]:
        """The series of all versions, by the label `model`: name@number."""
        found: dict[Series, float] = {}
        for key, count in self._counts.items():
            model = ("model", str(key))
            for end, ended in zip(MODEL_ENDS, count.ends, strict=True):
                found["yolopool_model_ended_total", (("end", end), model)] = ended
            alone = (model,)
            found["yolopool_model_misses_total", alone] = count.misses
            found["yolopool_model_inference_seconds_sum", alone] = count.inference_s
            found["yolopool_model_inference_seconds_count", alone] = count.ends[0]
            found["yolopool_model_not_finite_total", alone] = count.not_finite
            found["yolopool_model_empty_in_row", alone] = count.empty_in_row
        return found
