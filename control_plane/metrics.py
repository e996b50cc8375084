"""Every metric of the control plane, in base units.

The model is no label, since there may be thousands of models: the request log names it.
"""

from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from control_plane.alerts.history import Readings, Series
from control_plane.types.worker import Ledger, LoadReport, WorkerInfo, WorkerState
from yolopool.server import logs
from yolopool.v1 import detection_pb2
from yolopool.vocabulary import ReplicaState

_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LOAD_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# Tenants with a label of their own.
MAX_TENANTS = 200
STAGES = ("route", "load_wait", "queue", "decode", "preprocess", "inference", "postprocess")
LEDGER_TERMS = (
    "budget", "context", "weights", "workspace", "graph_pool", "backend_private",
    "load_transient", "measured", "assignable", "host", "foreign", "drift",
)  # fmt: skip


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
    """Counters are kept here; gauges of the fleet are set from the view at each scrape."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)

        self.requests = counter(
            "yolopool_requests", "Detect calls by outcome: OK or an error reason", ["outcome"]
        )
        self.request_seconds = histogram(
            "yolopool_request_seconds",
            "Detect calls that were answered, from arrival to answer",
            buckets=_SECONDS,
        )
        self.stage_seconds = histogram(
            "yolopool_stage_seconds", "Time of a Detect call by stage", ["stage"], buckets=_SECONDS
        )
        self.batch_size = histogram(
            "yolopool_batch_size", "Images in the pass that ran a request", buckets=_BATCH_SIZES
        )
        self.cache = counter(
            "yolopool_model_requests",
            "Detect calls by whether a worker had the model: hit or miss",
            ["result"],
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

        self.replicas = gauge("yolopool_replicas", "Replicas by state", ["state"])
        self.workers = gauge("yolopool_workers", "Workers by state", ["state"])
        self.crash_looping = gauge(
            "yolopool_workers_crash_looping", "Workers whose processes end soon after they start"
        )
        self.worker_exits = counter("yolopool_worker_exits", "Worker processes that crashed")
        self.registry_available = gauge(
            "yolopool_registry_available", "1 while the store answers, else 0"
        )
        self.is_reconciler = gauge(
            "yolopool_reconciler", "1 while this control plane is the leader, else 0"
        )

        self._events = counter(
            "yolopool_events",
            "Events that this control plane recorded, by kind; of rollouts also by reason",
            ["kind", "reason"],
        )

        self.queue = gauge("yolopool_worker_outstanding", "Open requests at a worker", ["worker"])
        self.swaps = gauge(
            "yolopool_worker_swaps",
            "Copies to the device of the versions that a worker holds",
            ["worker"],
        )
        self.passes = gauge(
            "yolopool_worker_passes",
            "Passes that a worker process ran for requests since it started",
            ["worker"],
        )
        self.images = gauge(
            "yolopool_worker_images",
            "Images in the passes of a worker process; divided by its passes: the mean batch",
            ["worker"],
        )
        self.ledger_bytes = gauge(
            "yolopool_ledger_bytes", "Ledger of a device by term", ["worker", "term"]
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
                "yolopool_tenant_gb_hours",
                "Weights of a tenant's models on devices, GB times hours; counted by the leader",
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
        self._stages = [(f"{stage}_ms", self.stage_seconds.labels(stage=stage)) for stage in STAGES]

    def watch_certificate(self, expires_unix_s: Callable[[], float]) -> None:
        """For a process with a certificate; asked at each scrape."""
        gauge = Gauge(
            "yolopool_certificate_expires_timestamp_seconds",
            "When this process's certificate runs out, Unix time; 0: its file can't be read",
            registry=self._registry,
        )
        gauge.set_function(expires_unix_s)

    def watch_models(self, readings: Callable[[], Readings]) -> None:
        """Series of models, asked for at each scrape."""
        self._registry.register(_ModelSeries(readings))

    def begin(self, series: Iterable[Series]) -> None:
        """Counters that begin at 0, so that the first of what they count is an increase."""
        known = {"yolopool_requests_total": self.requests, "yolopool_events_total": self._events}
        for metric, labels in series:
            if metric in known:
                given = {name: "" for name in known[metric]._labelnames}
                known[metric].labels(**{**given, **dict(labels)})

    def event_recorded(self, kind: str, reason: str) -> None:
        self._events.labels(kind=kind, reason=reason if kind == "ROLLOUT" else "").inc()

    def readings(self, names: Collection[str]) -> Readings:
        """Present values of the series of some metrics; gauges of the fleet as last set."""
        families = self._registry.restricted_registry(names).collect()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
            if sample.name in names
        }

    def request_ended(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self.requests.labels(outcome=outcome).inc()

    def request_answered(self, answer: detection_pb2.DetectResponse) -> None:
        timing = answer.timing
        for name, histogram in self._stages:
            histogram.observe(getattr(timing, name) / 1000)
        self.request_seconds.observe(timing.total_ms / 1000)
        self.batch_size.observe(answer.batch_size)

    def load_ended(self, outcome: str, seconds: float) -> None:
        self.loads.labels(outcome=outcome).inc()
        if outcome == "OK":
            self.loads_total += 1
            self.load_seconds.observe(seconds)

    def tenants_used(self, used: Mapping[str, Used], tenants: Collection[str]) -> None:
        """Adds what tenants used; of those that are set, the first MAX_TENANTS have a
        label of their own.
        """
        for name, usage in used.items():
            for measure, metric in self._of_tenants.items():
                metric.labels(tenant=self._tenant_label(name, tenants)).inc(getattr(usage, measure))

    def _tenant_label(self, name: str, tenants: Collection[str]) -> str:
        if not name:
            return "(none)"
        if name in tenants and len(self._tenants) < MAX_TENANTS:
            self._tenants.add(name)
        return name if name in self._tenants else "(other)"

    def families(self) -> Iterable[Metric]:
        """All metrics; gauges of the fleet as last set."""
        return self._registry.collect()

    def released(self, cause: str) -> None:
        self.releases_total += 1
        self.releases.labels(cause=cause).inc()

    def text(
        self,
        workers: Mapping[str, WorkerInfo],
        loads: Mapping[str, LoadReport],
        registry_available: bool,
        is_leader: bool,
        crash_looping: int = 0,
    ) -> bytes:
        """All metrics in Prometheus' text format, with the fleet as it is now."""
        self.look(workers, loads, registry_available, is_leader, crash_looping)
        return generate_latest(self._registry)

    def look(
        self,
        workers: Mapping[str, WorkerInfo],
        loads: Mapping[str, LoadReport],
        registry_available: bool,
        is_leader: bool,
        crash_looping: int = 0,
    ) -> None:
        """Sets the gauges of the fleet."""
        dropped = logs.dropped_lines()
        self.log_lines_dropped.inc(dropped - self._lines_dropped)
        self._lines_dropped = dropped
        self.registry_available.set(registry_available)
        self.is_reconciler.set(is_leader)
        self.crash_looping.set(crash_looping)
        self.queue.clear()
        self.ledger_bytes.clear()
        for gauge in (self.swaps, self.passes, self.images):
            gauge.clear()
        here = [worker for worker in workers.values() if worker.state is not WorkerState.LOST]
        for worker in here:
            report = loads.get(worker.id, worker.load)
            self.queue.labels(worker=worker.id).set(report.outstanding)
            self.passes.labels(worker=worker.id).set(report.passes_total)
            self.images.labels(worker=worker.id).set(report.images_total)
            self._set_ledger(worker.id, worker.ledger)
            swaps = sum(replica.swaps_total for replica in worker.replicas.values())
            self.swaps.labels(worker=worker.id).set(swaps)
        states = Tally(replica.state for worker in here for replica in worker.replicas.values())
        for replica_state in ReplicaState:
            self.replicas.labels(state=replica_state).set(states[replica_state])
        worker_states = Tally(worker.state for worker in workers.values())
        for worker_state in WorkerState:
            self.workers.labels(state=worker_state).set(worker_states[worker_state])

    def _set_ledger(self, worker: str, ledger: Ledger) -> None:
        for term in LEDGER_TERMS:
            self.ledger_bytes.labels(worker=worker, term=term).set(getattr(ledger, f"{term}_bytes"))


class _ModelSeries(Collector):
    """Series of models as they are counted elsewhere, so that those of a deleted one are gone."""

    def __init__(self, readings: Callable[[], Readings]) -> None:
        self._readings = readings

    def collect(self) -> Iterable[Metric]:
        ended = CounterMetricFamily(
            "yolopool_model_ended",
            "Detect calls of a version by how they ended: answered, late, other, or failed by the "
            "pool's fault",
            labels=["model", "end"],
        )
        misses = CounterMetricFamily(
            "yolopool_model_misses",
            "Detect calls of a version that no worker had",
            labels=["model"],
        )
        inference = SummaryMetricFamily(
            "yolopool_model_inference_seconds", "Inference of a version's answers", labels=["model"]
        )
        broken = CounterMetricFamily(
            "yolopool_model_not_finite",
            "Answers of a version that were NaN or infinite",
            labels=["model"],
        )
        empty = GaugeMetricFamily(
            "yolopool_model_empty_in_row",
            "Answers of a version that found nothing since the last that did; 0: none ever did",
            labels=["model"],
        )
        sums: dict[str, list[float]] = {}
        for (name, labels), value in self._readings().items():
            given = dict(labels)
            model = given["model"]
            if name == "yolopool_model_ended_total":
                ended.add_metric([model, given["end"]], value)
            elif name == "yolopool_model_misses_total":
                misses.add_metric([model], value)
            elif name == "yolopool_model_not_finite_total":
                broken.add_metric([model], value)
            elif name == "yolopool_model_empty_in_row":
                empty.add_metric([model], value)
            else:
                sums.setdefault(model, [0.0, 0.0])[name.endswith("_sum")] = value
        for model, (count, total) in sums.items():
            inference.add_metric([model], count_value=int(count), sum_value=total)
        return (ended, misses, inference, broken, empty)
