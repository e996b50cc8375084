"""Every metric of the control plane, in base units; docs/metrics.md lists them.

Series are bounded (MAX_SERIES): models, workers and tenants beyond a bound share one or have none,
and reasons that this release does not know are one.
"""

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from control_plane.alerts.history import Readings, Series
from control_plane.alerts.model_counts import TIERS, Answer, ModelCounts
from control_plane.metrics.answer_series import AnswerSeries
from control_plane.metrics.fleet_look import FleetLook
from control_plane.metrics.fleet_series import FleetSeries
from control_plane.metrics.model_series import ModelSeries
from control_plane.metrics.triton_series import TritonSeries
from control_plane.metrics.worker_series import WorkerSeries
from control_plane.types.command import (
    Assign,
    Blocked,
    Command,
    DropWant,
    KeepPrefetched,
    Release,
)
from yolopool.error_table import known_reason
from yolopool.server import logs

# When a series began says nothing that Prometheus does not know, and doubles their number.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

# At most so many series of one control plane, whatever is registered, joined and asked.
MAX_SERIES = 45_000
_LOAD_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_WORDS = {
    Assign: "assign",
    Release: "release",
    DropWant: "drop_want",
    KeepPrefetched: "keep_prefetched",
}
_IN_BASE_UNITS = {"gb_hours": 1e9 * 3600}
# Tenants with a label of their own.
MAX_TENANTS = 200
_AGE_SECONDS = (1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0)
_PLAN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# A release for one of these is no eviction.
_ORDERED = ("UNWANTED", "MOVED", "STRANDED")


class Used(Protocol):
    """What a tenant used."""

    @property
    def images(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def device_s(self) -> float: ...
    @property
    def gb_hours(self) -> float: ...


class Metrics:
    """Counters are kept here; what is there now is asked for at each scrape, once it is watched."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        self.requests = counter(
            "yolopool_requests", "Detect calls by outcome: OK or an error reason", ["outcome"]
        )
        self._answers = AnswerSeries()
        registry.register(self._answers)
        self.cache = counter(
            "yolopool_model_requests",
            "Detect calls by whether a worker had the model: hit or miss",
            ["result"],
        )
        self._tiers = counter(
            "yolopool_tier_requests",
            "Answers by where their model was: device, host, or store (no worker had it)",
            ["tier"],
        )
        self.retries = counter(
            "yolopool_retries",
            "Detect calls sent to another worker, by the error of the one before",
            ["reason"],
        )
        self.in_flight = gauge("yolopool_requests_in_flight", "Detect calls not yet answered")
        self.streams = gauge("yolopool_streams", "Open DetectStreams")
        self.frames_dropped = counter(
            "yolopool_stream_frames_dropped", "Frames of streams that a newer one replaced"
        )

        self.loads = counter("yolopool_loads", "Loads by outcome", ["outcome"])
        self.load_seconds = histogram(
            "yolopool_load_seconds", "Loads, from the decision to HOT", buckets=_LOAD_SECONDS
        )
        self.releases = counter("yolopool_releases", "Releases by cause", ["cause"])
        self.release_age = histogram(
            "yolopool_release_age_seconds",
            "What a worker released for lack of room or use: how long it had not been used",
            buckets=_AGE_SECONDS,
        )
        self.plan_seconds = histogram(
            "yolopool_plan_seconds", "What a plan of the leader took", buckets=_PLAN_SECONDS
        )
        self._commands = counter("yolopool_commands", "Commands of plans by kind", ["command"])

        self.worker_exits = counter("yolopool_worker_exits", "Worker processes that crashed")
        self._events = counter(
            "yolopool_events",
            "Events that this control plane recorded, by kind; of rollouts also by reason",
            ["kind", "reason"],
        )

        tenant = partial(counter, labelnames=["tenant"])
        self._of_tenants = {
            "images": tenant("yolopool_tenant_images", "Images of a tenant that were let in"),
            "refused": tenant("yolopool_tenant_refused", "Images refused for a tenant's limit"),
            "bytes": tenant("yolopool_tenant_bytes", "Bytes of a tenant's images, as they came"),
            "device_s": tenant(
                "yolopool_tenant_device_seconds", "Device time that ran a tenant's images"
            ),
            "gb_hours": tenant(
                "yolopool_tenant_byte_seconds",
                "Weights of a tenant's models on devices, bytes times seconds; told by the leader",
            ),
        }

        self.log_lines_dropped = counter(
            "yolopool_log_lines_dropped",
            "Lines of this control plane's log that could not be written: a full disk, no reader",
        )

        self._tenants: set[str] = set()
        self.outcomes: Tally[str] = Tally()
        self._lines_dropped = 0
        self.loads_total = 0
        self.releases_total = 0
        self._ok = self.requests.labels(outcome="OK")
        self._of_tiers = [self._tiers.labels(tier=tier) for tier in TIERS]
        self._hit, self._miss = (self.cache.labels(result=one) for one in ("hit", "miss"))

    def watch(
        self, look: Callable[[], FleetLook], counts: ModelCounts, triton: bool = False
    ) -> None:
        """Series of the fleet, of workers and of models, as they are at each scrape. `triton`: the
        same by the names of a Triton server, too.
        """
        series: list[Collector] = [
            FleetSeries(look),
            WorkerSeries(look),
            ModelSeries(counts, look),
        ]
        if triton:
            series.append(TritonSeries(counts, look))
        for one in series:
            self._registry.register(one)

    def watch_certificate(self, expires_unix_s: Callable[[], float]) -> None:
        """For a process with a certificate; asked at each scrape."""
        gauge = Gauge(
            "yolopool_certificate_expires_timestamp_seconds",
            "When this process's certificate runs out, Unix time; 0: its file can't be read",
            registry=self._registry,
        )
        gauge.set_function(expires_unix_s)

    def begin(self, series: Iterable[Series]) -> None:
        """Counters that begin at 0, so that the first of what they count is an increase."""
        known = {
            "yolopool_requests_total": self.requests,
            "yolopool_events_total": self._events,
            "yolopool_retries_total": self.retries,
        }
        for metric, labels in series:
            if metric in known:
                given = {name: "" for name in known[metric]._labelnames}
                known[metric].labels(**{**given, **dict(labels)})

    def event_recorded(self, kind: str, reason: str) -> None:
        self._events.labels(kind=kind, reason=reason if kind == "ROLLOUT" else "").inc()

    def readings(self, names: Collection[str]) -> Readings:
        """Present values of the series of some metrics."""
        self._count_dropped_lines()
        families = self._registry.restricted_registry(names).collect()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
            if sample.name in names
        }

    def request_ended(self, outcome: str) -> None:
        outcome = known_reason(outcome)
        self.outcomes[outcome] += 1
        self.requests.labels(outcome=outcome).inc()

    def request_answered(self, answer: Answer) -> None:
        """Ended with OK."""
        self.outcomes["OK"] += 1
        self._ok.inc()
        self._answers.add(answer)
        if answer.tier is not None:
            self._of_tiers[answer.tier].inc()

    def looked_up(self, hit: bool) -> None:
        """Whether a worker had the model of a request."""
        (self._hit if hit else self._miss).inc()

    def retried(self, reason: str) -> None:
        self.retries.labels(reason=known_reason(reason)).inc()

    def planned(self, seconds: float, commands: Sequence[Command]) -> None:
        """The leader made a plan that is carried out."""
        self.plan_seconds.observe(seconds)
        for command in commands:
            if not isinstance(command, Blocked):
                self._commands.labels(command=_word(command)).inc()

    def load_ended(self, outcome: str, seconds: float) -> None:
        self.loads.labels(outcome=known_reason(outcome)).inc()
        if outcome == "OK":
            self.loads_total += 1
            self.load_seconds.observe(seconds)

    def tenants_used(self, used: Mapping[str, Used], tenants: Collection[str]) -> None:
        """Adds what tenants used; of those that are set, the first MAX_TENANTS have a label of
        their own. Those that were deleted have no series any more.
        """
        for gone in [name for name in self._tenants if name not in tenants]:
            self._tenants.discard(gone)
            for metric in self._of_tenants.values():
                metric.remove(gone)
        for name, usage in used.items():
            for measure, metric in self._of_tenants.items():
                amount = getattr(usage, measure) * _IN_BASE_UNITS.get(measure, 1)
                metric.labels(tenant=self._tenant_label(name, tenants)).inc(amount)

    def _tenant_label(self, name: str, tenants: Collection[str]) -> str:
        if not name:
            return "(none)"
        if name in tenants and len(self._tenants) < MAX_TENANTS:
            self._tenants.add(name)
        return name if name in self._tenants else "(other)"

    def released(self, cause: str, unused_s: float | None = None) -> None:
        """unused_s: for how long it had not been used; None: it is not known."""
        self.releases_total += 1
        self.releases.labels(cause=cause).inc()
        if unused_s is not None and cause not in _ORDERED:
            self.release_age.observe(unused_s)

    def families(self) -> list[Metric]:
        """All metrics, with the fleet as it is now."""
        self._count_dropped_lines()
        return list(self._registry.collect())

    def _count_dropped_lines(self) -> None:
        dropped = logs.dropped_lines()
        self.log_lines_dropped.inc(dropped - self._lines_dropped)
        self._lines_dropped = dropped


def text_of(families: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Metrics in the format that a scraper asks for by the field Accept, and the format's name:
    OpenMetrics has exemplars, Prometheus' own text has none.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(families)), content_type


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _word(command: Command) -> str:
    if isinstance(command, Assign) and command.prefetch:
        return "prefetch"
    return _WORDS[type(command)]
