"""What the answers of each version were."""

from control_plane.alerts.model_counts import METRICS, ModelCounts
from control_plane.types.version import VersionKey

A, B, C = (VersionKey(name, 1) for name in "abc")


def test_ends_misses_and_inference_are_counted() -> None:
    counts = ModelCounts()
    counts.ended(A, "OK", hit=False, inference_ms=20.0, results=2)
    counts.ended(A, "OK", hit=True, inference_ms=40.0, results=0)
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


def test_only_what_found_something_can_go_blind() -> None:
    counts = ModelCounts()

    def empty() -> float:
        return counts.readings()["yolopool_model_empty_in_row", (("model", "a@1"),)]

    for _ in range(5):
        counts.ended(A, "OK", hit=True)
    assert empty() == 0
    counts.ended(A, "OK", hit=True, results=1)
    for _ in range(5):
        counts.ended(A, "OK", hit=True)
    counts.ended(A, "INFERENCE_FAILED", hit=True)  # says nothing of what it sees
    assert empty() == 5
    counts.ended(A, "OK", hit=True, results=1)
    assert empty() == 0


def test_the_newest_versions_are_kept_and_deleted_ones_go() -> None:
    counts = ModelCounts(max_versions=2)
    for key in (A, B, A, C):
        counts.ended(key, "OK", hit=True)
    models = {dict(labels)["model"] for _, labels in counts.readings()}
    assert models == {"a@1", "c@1"}
    counts.keep_only({C})
    assert {dict(labels)["model"] for _, labels in counts.readings()} == {"c@1"}
