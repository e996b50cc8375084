"""The table of alerts: the rules of Prometheus are written from it (`make alerts`), and the pool
evaluates it by itself. docs/operations.md has a section for each. Pure.

Thresholds suit a small fleet; `yolopool alerts threshold` sets others for models and workers.
"""

from control_plane.alerts.expressions import (
    Difference,
    Expression,
    Increase,
    Left,
    Over,
    Ratio,
    Select,
)
from control_plane.alerts.rule import AlertRule

CRITICAL, WARNING = "critical", "warning"
_2_MIN, _5_MIN, _15_MIN = 120.0, 300.0, 900.0

# By the pool's fault.
FAILURES = (
    "NO_WORKER", "WORKER_LOST", "WORKER_SILENT", "DEVICE_HUNG", "LOAD_FAILED", "INFERENCE_FAILED",
    "ANSWER_NOT_FINITE", "INTERNAL", "OUT_OF_MEMORY", "DATA_LOSS", "PACK_NOT_FOUND",
)  # fmt: skip
LATE = ("DEADLINE_EXCEEDED", "DEADLINE_UNMEETABLE")
FULL = ("QUEUE_FULL", "LEDGER_FULL")
QUARANTINED = ("IMAGE_QUARANTINED", "VERSION_QUARANTINED")
# How a request of a model ended, for its own series.
MODEL_ENDS = ("answered", "failed", "late", "other")


def _sum(metric: str, window_s: float, by: tuple[str, ...] = (), **where: object) -> Expression:
    """Per second, over all series."""
    select = Select(metric, tuple((name, _words(value)) for name, value in where.items()))
    return Over("sum", Increase(select, window_s, per_second=True), by)


def _grown(metric: str, window_s: float, by: tuple[str, ...] = (), **where: object) -> Expression:
    select = Select(metric, tuple((name, _words(value)) for name, value in where.items()))
    return Over("sum", Increase(select, window_s), by)


def _words(value: object) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _requests(window_s: float, outcome: tuple[str, ...] = ()) -> Expression:
    where = {"outcome": outcome} if outcome else {}
    return _sum("yolopool_requests_total", window_s, (), **where)


def _of_model(metric: str, window_s: float, **where: str) -> Expression:
    return _sum(f"yolopool_model_{metric}", window_s, ("model",), **where)


def _model_requests(window_s: float) -> tuple[Expression, float]:
    return _grown("yolopool_model_ended_total", window_s, ("model",)), 20


def _largest(metric: str, by: tuple[str, ...] = (), **where: object) -> Expression:
    select = Select(metric, tuple((name, _words(value)) for name, value in where.items()))
    return Over("max", select, by)


def _ledger(term: str) -> Expression:
    return _largest("yolopool_ledger_bytes", ("worker",), term=term)


_READY = Select("yolopool_workers", (("state", ("READY",)),))

RULES = (
    # --- the three that people ask for first -------------------------------------------------
    AlertRule(
        "YolopoolInferenceSlow", WARNING,
        Ratio(
            _of_model("inference_seconds_sum", _5_MIN), _of_model("inference_seconds_count", _5_MIN)
        ),
        0.1, _2_MIN, "inference of {subject} takes more than {threshold} in the mean",
        about="model", unit="s",
    ),
    AlertRule(
        "YolopoolDeviceMemory", WARNING, Ratio(_ledger("measured"), _ledger("budget")),
        0.9, _5_MIN, "{subject} uses more than {threshold} of its device's memory",
        about="worker", unit="ratio",
    ),
    AlertRule(
        "YolopoolQueueLong", WARNING, _largest("yolopool_worker_outstanding", ("worker",)),
        10, _2_MIN, "more than {threshold} requests wait at {subject}", about="worker",
    ),
    # --- answers -----------------------------------------------------------------------------
    AlertRule(
        "YolopoolControlPlaneDown", CRITICAL, Select("up", (("job", ("yolopool",)),)),
        1, 60, "{subject} does not answer", about="instance", below=True,
    ),
    AlertRule(
        "YolopoolNoWorker", CRITICAL, _READY,
        1, 60, "{subject} knows no worker that takes requests", about="instance", below=True,
    ),
    AlertRule(
        "YolopoolDetectFails", CRITICAL,
        Ratio(_requests(_5_MIN, outcome=FAILURES), _requests(_5_MIN)),
        0.01, _2_MIN, "more than {threshold} of Detects fail by the pool's fault", unit="ratio",
    ),
    AlertRule(
        "YolopoolModelFails", CRITICAL,
        Ratio(_of_model("ended_total", _5_MIN, end="failed"), _of_model("ended_total", _5_MIN)),
        0.05, _2_MIN, "more than {threshold} of {subject}'s Detects fail by the pool's fault",
        about="model", unit="ratio", least=_model_requests(_5_MIN),
    ),
    AlertRule(
        "YolopoolTooLate", WARNING,
        Ratio(_requests(_5_MIN, outcome=LATE), _requests(_5_MIN)),
        0.01, _5_MIN, "more than {threshold} of Detects are not answered in time", unit="ratio",
    ),
    AlertRule(
        "YolopoolModelLate", WARNING,
        Ratio(_of_model("ended_total", _5_MIN, end="late"), _of_model("ended_total", _5_MIN)),
        0.05, _5_MIN, "more than {threshold} of {subject}'s Detects are not answered in time",
        about="model", unit="ratio", least=_model_requests(_5_MIN),
    ),
    AlertRule(
        "YolopoolQueuesFull", WARNING,
        Ratio(_requests(_5_MIN, outcome=FULL), _requests(_5_MIN)),
        0.01, _5_MIN, "more than {threshold} of Detects find no room", unit="ratio",
    ),
    AlertRule(
        "YolopoolRetries", WARNING,
        Ratio(_sum("yolopool_retries_total", _5_MIN), _requests(_5_MIN)),
        0.05, _5_MIN, "more than {threshold} of Detects need a second worker", unit="ratio",
    ),
    AlertRule(
        "YolopoolAnswersNotFinite", CRITICAL,
        _grown("yolopool_model_not_finite_total", _15_MIN, ("model",)),
        0, 0, "{subject} gave answers that are not finite: its weights or its precision are broken",
        about="model",
    ),
    AlertRule(
        "YolopoolBlind", WARNING, _largest("yolopool_model_empty_in_row", ("model",)),
        1000, 0, "{subject} found things before, and found nothing on the last {threshold} images",
        about="model",
    ),
    AlertRule(
        "YolopoolProbeFails", CRITICAL,
        _grown("yolopool_events_total", _15_MIN, kind="PROBE_FAILED"),
        0, 0, "a model answered the picture that is kept with it otherwise than before, and was "
        "loaded again",
    ),
    # --- control planes ----------------------------------------------------------------------
    AlertRule(
        "YolopoolRegistryAway", CRITICAL, Select("yolopool_registry_available"),
        1, 60, "{subject} can't use Redis: nothing can be changed or loaded",
        about="instance", below=True,
    ),
    AlertRule(
        "YolopoolNoLeader", CRITICAL, _largest("yolopool_reconciler"),
        1, 60, "no control plane leads: nothing is loaded or moved", below=True,
    ),
    AlertRule(
        "YolopoolTwoLeaders", CRITICAL, Over("sum", Select("yolopool_reconciler")),
        1, 60, "two control planes lead: they are not on one Redis", built_in=False,
    ),
    AlertRule(
        "YolopoolLeaseFlaps", WARNING, _grown("yolopool_events_total", _15_MIN, kind="TAKEOVER"),
        3, 0, "the lead changed more than {threshold} times in a quarter of an hour",
    ),
    AlertRule(
        "YolopoolViewsDiffer", WARNING,
        Difference(Over("max", _READY), Over("min", _READY)),
        0, _2_MIN, "control planes do not see the same workers",
    ),
    # --- workers and loads -------------------------------------------------------------------
    AlertRule(
        "YolopoolWorkerLost", WARNING, _largest("yolopool_workers", state="LOST"),
        0, 60, "a worker stopped sending heartbeats",
    ),
    AlertRule(
        "YolopoolCrashLoop", CRITICAL, _largest("yolopool_workers_crash_looping"),
        0, 60, "a worker's processes end soon after they start",
    ),
    AlertRule(
        "YolopoolWorkersCrash", WARNING,
        Over("max", Increase(Select("yolopool_worker_exits_total"), _15_MIN)),
        2, 0, "worker processes crashed several times in a quarter of an hour",
    ),
    AlertRule(
        "YolopoolQuarantine", WARNING,
        _grown("yolopool_requests_total", _15_MIN, outcome=QUARANTINED),
        0, 0, "an image or a version that ended workers is refused",
    ),
    AlertRule(
        "YolopoolLoadsFail", WARNING,
        Over("sum", Increase(Select("yolopool_loads_total", but=(("outcome", ("OK",)),)), _15_MIN)),
        3, 0, "loads failed several times in a quarter of an hour",
    ),
    AlertRule(
        "YolopoolColdStarts", WARNING,
        Ratio(_of_model("misses_total", _15_MIN), _of_model("ended_total", _15_MIN)),
        0.2, _5_MIN, "more than {threshold} of {subject}'s Detects wait for a load",
        about="model", unit="ratio", least=_model_requests(_15_MIN),
    ),
    AlertRule(
        "YolopoolThrashing", WARNING,
        Ratio(
            _sum("yolopool_model_requests_total", _15_MIN, result="miss"),
            _sum("yolopool_model_requests_total", _15_MIN),
        ),
        0.2, _15_MIN, "more than {threshold} of Detects wait for a load: not all models in use fit",
        unit="ratio", least=(_grown("yolopool_model_requests_total", _15_MIN), 20),
    ),
    AlertRule(
        "YolopoolMemoryDrift", WARNING, Ratio(_ledger("drift"), _ledger("budget")),
        0.1, _15_MIN, "{subject} uses memory that its ledger does not explain",
        about="worker", unit="ratio",
    ),
    AlertRule(
        "YolopoolRolledBack", WARNING,
        _grown("yolopool_events_total", _15_MIN, kind="ROLLOUT", reason="ROLLED_BACK"),
        0, 0, "a rollout went back: its candidate answers worse, or otherwise",
    ),
    # --- the control plane itself ------------------------------------------------------------
    AlertRule(
        "YolopoolLogLinesDropped", WARNING,
        Increase(Select("yolopool_log_lines_dropped_total"), _5_MIN),
        0, 0, "{subject} can't write its log", about="instance",
    ),
    AlertRule(
        "YolopoolCertificateExpires", WARNING,
        Left(Select("yolopool_certificate_expires_timestamp_seconds")),
        7 * 86_400, 0, "the certificate of {subject} runs out within a week",
        about="instance", unit="s", below=True,
    ),
)  # fmt: skip

BY_NAME = {rule.name: rule for rule in RULES}


def metrics_read() -> frozenset[str]:
    """Names of the metrics that the rules read."""
    return frozenset(select.metric for rule in RULES for select in rule.selects())


def counters_begun() -> frozenset[tuple[str, tuple[tuple[str, str], ...]]]:
    """Series of counters that rules name by value: begun at 0, so that the first is an increase."""
    return frozenset(
        (select.metric, tuple(zip((name for name, _ in select.where), values, strict=True)))
        for rule in RULES
        for select in rule.selects()
        if select.metric.endswith("_total") and select.where
        for values in _products([values for _, values in select.where])
    )


def _products(values: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for words in values:
        found = [(*one, word) for one in found for word in words]
    return found
