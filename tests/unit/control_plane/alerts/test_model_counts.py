"""What the answers of each version were."""

import pytest

from control_plane.alerts import model_counts
from control_plane.alerts.model_counts import METRICS, OTHER, Answer, ModelCounts, label_of
from control_plane.types.version import VersionKey

A, B, C, D = (VersionKey(name, 1) for name in "abcd")
ALL = {A, B, C, D}


def answer(inference_ms: float = 0.0, results: int = 0, batch: int = 1) -> Answer:
    return Answer(inference_ms / 1000, (0, 0, 0, 0, 0, inference_ms / 1000, 0), batch, results)


def test_ends_misses_and_inference_are_counted() -> None:
    counts = ModelCounts()
    counts.ended(A, "OK", False, answer(20.0, 2))
    counts.ended(A, "OK", True, answer(40.0, 0, batch=4))
    for outcome in ("INFERENCE_FAILED", "ANSWER_NOT_FINITE", "DEADLINE_EXCEEDED", "CANCELLED"):
        counts.ended(A, outcome, hit=True)
    found = {name: value for (name, labels), value in counts.readings().items() if len(labels) == 1}
    assert found == {
        "yolopool_model_misses_total": 1, "yolopool_model_inference_seconds_sum": 0.06,
        "yolopool_model_inference_seconds_count": 2, "yolopool_model_not_finite_total": 1,
        "yolopool_model_empty_in_row": 1,
    }  # fmt: skip
    ends = {dict(labels)["end"]: value for (_, labels), value in counts.readings().items()
            if len(labels) == 2}  # fmt: skip
    assert ends == {"answered": 2, "failed": 2, "late": 1, "other": 1}
    assert {name for name, _ in counts.readings()} == METRICS
    ((_, count),) = counts.each()
    # Rejected, cancelled, by the pool's fault, otherwise: DEADLINE_EXCEEDED is none of the others.
    assert count.refusals == [0, 1, 2, 1]
    assert count.buckets == [0, 0, 1, 1, *[0] * 7]
    assert (count.results, count.passes) == (2, 1.25)


def test_only_what_found_something_can_go_blind() -> None:
    counts = ModelCounts()

    def empty() -> float:
        return counts.readings()["yolopool_model_empty_in_row", (("model", "a@1"),)]

    for _ in range(5):
        counts.ended(A, "OK", True, answer())
    assert empty() == 0
    counts.ended(A, "OK", True, answer(results=1))
    for _ in range(5):
        counts.ended(A, "OK", True, answer())
    counts.ended(A, "INFERENCE_FAILED", hit=True)  # says nothing of what it sees
    assert empty() == 5
    counts.ended(A, "OK", True, answer(results=1))
    assert empty() == 0


def totals(counts: ModelCounts) -> dict[str, int]:
    return {label_of(key): sum(count.ends) for key, count in counts.each()}


def ask(counts: ModelCounts, **times: int) -> None:
    for name, asked in times.items():
        for _ in range(asked):
            counts.ended(VersionKey(name, 1), "OK", True, answer())


def test_beyond_the_bound_versions_count_together_until_one_is_asked_far_more() -> None:
    counts = ModelCounts(max_versions=2)
    counts.look(ALL, (), 0.0)
    ask(counts, a=5, b=2, c=3, d=1)
    assert totals(counts) == {"a@1": 5, "b@1": 2, OTHER: 4}
    counts.look(ALL, (), 30.0)
    assert totals(counts) == {"a@1": 5, "b@1": 2, OTHER: 4}
    counts.look(ALL, (), 60.0)  # c was not asked twice as often as b
    assert totals(counts) == {"a@1": 5, "b@1": 2, OTHER: 4}
    ask(counts, a=5, b=2, c=5, d=4)
    counts.look(ALL, (), 120.0)  # c takes the place of b, and begins anew; OTHER never shrinks
    assert totals(counts) == {"a@1": 10, "c@1": 0, OTHER: 13}
    ask(counts, a=1, c=1, b=1)
    assert totals(counts) == {"a@1": 11, "c@1": 1, OTHER: 14}
    assert ("yolopool_model_empty_in_row", (("model", OTHER),)) not in counts.readings()


def test_deleted_versions_go_and_those_that_workers_hold_begin_at_zero() -> None:
    counts = ModelCounts(max_versions=2)
    ask(counts, a=1, b=1)
    counts.look({B, C, D}, (D, A, C), 0.0)
    assert totals(counts) == {"b@1": 1, "d@1": 0}


def test_what_is_watched_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_counts, "MAX_WATCHED", 3)
    counts = ModelCounts(max_versions=1)
    ask(counts, a=1)
    for number in range(50):
        counts.ended(VersionKey("m", number), "OK", True, answer())
    assert totals(counts) == {"a@1": 1, OTHER: 50}
    assert len(counts._watched) == 3
