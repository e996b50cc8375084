"""Metrics as prometheus_client has them, in the form in which OTLP sends them. Needs the extra
`otel`.

A counter is a monotonic sum, a histogram and a summary are histograms, and all else are gauges.
Names are those of /metrics without the endings that Prometheus adds.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from prometheus_client import core

CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1", "celsius": "Cel", "watts": "W"}
_NS = 1_000_000_000
Labels = tuple[tuple[str, str], ...]


def points_of(families: Iterable[core.Metric], began_s: float, now_s: float) -> tuple[Metric, ...]:
    """began_s: of counters that do not say since when they count. Unix seconds."""
    return tuple(_metric(family, began_s, now_s) for family in families if family.samples)


def _metric(family: core.Metric, began_s: float, now_s: float) -> Metric:
    unit = _UNITS.get(family.name.removesuffix("_total").rpartition("_")[2], "")
    return Metric(family.name, family.documentation, unit, _data(family, began_s, now_s))


def _data(family: core.Metric, began_s: float, now_s: float) -> Sum | Gauge | Histogram:
    at = _ns(now_s)
    since = {
        _labels(sample.labels): sample.value
        for sample in family.samples
        if sample.name == f"{family.name}_created"
    }

    def begin(labels: Labels) -> int:
        return _ns(since.get(labels, began_s))

    if family.type in ("histogram", "summary"):
        return Histogram(
            [
                _distribution(labels, parts, begin(labels), at)
                for labels, parts in _parts(family).items()
            ],
            CUMULATIVE,
        )
    is_counter = family.type == "counter"
    values = [one for one in family.samples if not (is_counter and one.name.endswith("_created"))]
    points = [
        NumberDataPoint(
            dict(one.labels), begin(_labels(one.labels)) if is_counter else 0, at, one.value
        )
        for one in values
    ]
    return Sum(points, CUMULATIVE, is_monotonic=True) if is_counter else Gauge(points)


def _parts(family: core.Metric) -> dict[Labels, dict[str, float]]:
    """By series: its count, its sum, and by the bound of each bucket how many are not above."""
    found: dict[Labels, dict[str, float]] = {}
    for sample in family.samples:
        part = sample.name.removeprefix(f"{family.name}_")
        if part == "created" or "quantile" in sample.labels:
            continue
        bound = sample.labels.get("le", "")
        labels = _labels({name: of for name, of in sample.labels.items() if name != "le"})
        found.setdefault(labels, {})[bound or part] = sample.value
    return found


def _distribution(
    labels: Labels, parts: Mapping[str, float], begin: int, at: int
) -> HistogramDataPoint:
    bounds = sorted(float(name) for name in parts if name not in ("count", "sum", "+Inf"))
    below = [parts[text] for text in sorted(parts.keys() - {"count", "sum", "+Inf"}, key=float)]
    counts = [int(more - less) for less, more in pairwise([0.0, *below, parts["count"]])]
    unknown: Any = None  # the least and the largest
    return HistogramDataPoint(
        attributes=dict(labels),
        start_time_unix_nano=begin,
        time_unix_nano=at,
        count=int(parts["count"]),
        sum=parts["sum"],
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=unknown,
        max=unknown,
    )


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))


def _ns(unix_s: float) -> int:
    return int(unix_s * _NS)
