"""What a metric is called, what it means and which labels its series have. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.samples import Exemplar

_KINDS: Mapping[str, type[Metric]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
    "summary": SummaryMetricFamily,
    "unknown": UnknownMetricFamily,
}


class Family(NamedTuple):
    """The name of a counter has no `_total`: its series have."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def new(self) -> Metric:
        """Without series yet."""
        return _KINDS[self.kind](self.name, self.help, labels=self.labels)  # type: ignore[call-arg]


class Found:
    """The series of some families at one moment."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.metrics = {family.name: family.new() for family in families}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """None is not known: there is no series then."""
        if value is not None:
            self.metrics[name].add_metric(labels, float(value))  # type: ignore[attr-defined]

    def add_sum(self, name: str, count: int, total: float, *labels: str) -> None:
        """Of a summary."""
        self.metrics[name].add_metric(labels, count, total)  # type: ignore[attr-defined]

    def add_buckets(
        self,
        name: str,
        buckets: Sequence[tuple[str, float, Exemplar | None]],
        total: float,
        *labels: str,
    ) -> None:
        """Of a histogram: each bucket with all below it."""
        self.metrics[name].add_metric(labels, buckets, total)  # type: ignore[attr-defined]
