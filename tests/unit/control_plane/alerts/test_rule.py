"""A row of the table."""

from dataclasses import replace

from control_plane.alerts.rule import measured, threshold_for
from control_plane.alerts.table import BY_NAME, RULES, counters_begun, metrics_read
from control_plane.types.alerts.alert_setting import Threshold

SLOW = BY_NAME["YolopoolInferenceSlow"]


def test_values_for_people() -> None:
    for value, unit, told in (
        (0.123, "ratio", "12.3 %"), (0.9, "ratio", "90 %"), (0.2, "s", "200 ms"),
        (604_800, "s", "604800 s"), (11.0, "count", "11"),
    ):  # fmt: skip
        assert measured(value, unit) == told


def test_a_sentence_names_the_threshold_that_counts() -> None:
    assert SLOW.told("a@1") == "inference of a@1 takes more than 100 ms in the mean"
    assert SLOW.told("a@1", 0.4) == "inference of a@1 takes more than 400 ms in the mean"
    odd = SLOW.told("{threshold}", 0.4)  # whatever a model is called
    assert odd == "inference of {threshold} takes more than 400 ms in the mean"


def test_the_longest_pattern_counts() -> None:
    given = [Threshold(SLOW.name, pattern, value) for pattern, value in (("*", 1.0), ("a*", 2.0))]
    found = threshold_for(given, SLOW.name, "a@1")
    assert found is not None
    assert found.value == 2.0
    assert threshold_for(given, "Other", "a@1") is None


def test_an_expression_with_a_least_count() -> None:
    late = BY_NAME["YolopoolModelLate"]
    assert late.promql().startswith("(sum by (model) (rate(yolopool_model_ended_total{end=")
    assert late.promql().endswith("(increase(yolopool_model_ended_total[5m])) >= 20")
    assert late.window_s == 300.0
    assert BY_NAME["YolopoolNoWorker"].promql() == 'yolopool_workers{state="READY"} < 1'
    assert replace(SLOW, threshold=0.25).promql().endswith("> 0.25")


def test_names_are_there_once_and_counters_named_by_value_begin_at_nothing() -> None:
    assert len(BY_NAME) == len(RULES)
    assert {name for name, _ in counters_begun()} <= metrics_read()
    rolled = (("kind", "ROLLOUT"), ("reason", "ROLLED_BACK"))
    assert ("yolopool_events_total", rolled) in counters_begun()
