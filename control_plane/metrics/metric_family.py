"""What a metric is called, what it means and which labels its series have. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from control_plane.alerts.model_counts import Exemplar as Shown

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


class Counted(NamedTuple):
    """A histogram: how many were up to each of `bounds` and beyond, and a request of each."""

    counts: Sequence[int]
    bounds: Sequence[float]
    shown: Sequence[Shown | None]

    def buckets(self) -> list[tuple[str, float, Exemplar | None]]:
        """As the library takes them: each with all below it."""
        up_to, found = 0, []
        for bound, count, one in zip(
            (*self.bounds, float("inf")), self.counts, self.shown, strict=True
        ):
            up_to += count
            shown = None if one is None else Exemplar({one.label: one.id}, one.seconds, one.unix_s)
            le: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
            found.append((le, float(up_to), shown))
        return found


class Told(Metric):
    """A metric whose samples are made when they are first read: there may be tens of thousands, and
    the thread that reads them need not be the one that looked. `rows`: labels and what is told.
    """

    def __init__(self, family: Family) -> None:
        self.labels = family.labels
        self.rows: list[tuple[Any, ...]] = []
        self._family = family
        self._samples: list[Sample] = []
        super().__init__(family.name, family.help, family.kind)

    @property
    def samples(self) -> list[Sample]:
        if self.rows:
            rows, self.rows = self.rows, []
            metric: Any = self._family.new()
            for labels, value, *total in rows:
                told = value.buckets() if isinstance(value, Counted) else value
                metric.add_metric(labels, told, *total)
            self._samples = metric.samples
        return self._samples

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        self._samples = samples


class Found:
    """The series of some families at one moment."""

    def __init__(self, families: Iterable[Family]) -> None:
        self.metrics = {family.name: Told(family) for family in families}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """None is not known: there is no series then."""
        if value is not None:
            self.metrics[name].rows.append((labels, float(value)))

    def add_sum(self, name: str, count: int, total: float, *labels: str) -> None:
        """Of a summary."""
        self.metrics[name].rows.append((labels, count, total))

    def add_buckets(self, name: str, counted: Counted, total: float, *labels: str) -> None:
        """Of a histogram."""
        self.metrics[name].rows.append((labels, counted, total))
