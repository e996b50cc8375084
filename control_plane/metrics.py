"""Every metric of the control plane, in base units.

The model is no label, since there may be thousands of models: the request log names it.
"""

from collections import Counter as Tally
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.types.worker import Ledger, LoadReport, WorkerInfo, WorkerState
from yolopool.v1 import detection_pb2
from yolopool.vocabulary import ReplicaState

_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_LOAD_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STAGES = ("route", "load_wait", "queue", "decode", "preprocess", "inference", "postprocess")
LEDGER_TERMS = (
    "budget", "context", "weights", "workspace", "graph_pool", "backend_private",
    "load_transient", "measured", "assignable", "host", "foreign", "drift",
)  # fmt: skip


class Metrics:
    """Counters are kept here; gauges of the fleet are set from the view at each scrape."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "yolopool_requests",
            "Detect calls by outcome: OK or an error reason",
            ["outcome"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "yolopool_request_seconds",
            "Detect calls that were answered, from arrival to answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "yolopool_stage_seconds",
            "Time of a Detect call by stage",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "yolopool_batch_size",
            "Images in the pass that ran a request",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.cache = Counter(
            "yolopool_model_requests",
            "Detect calls by whether a worker had the model: hit or miss",
            ["result"],
            registry=registry,
        )
        self.retries = Counter(
            "yolopool_retries",
            "Detect calls sent to another worker, by the error of the one before",
            ["reason"],
            registry=registry,
        )
        self.loads = Counter("yolopool_loads", "Loads by outcome", ["outcome"], registry=registry)
        self.load_seconds = Histogram(
            "yolopool_load_seconds",
            "Loads, from the decision to HOT",
            buckets=_LOAD_SECONDS,
            registry=registry,
        )
        self.releases = Counter(
            "yolopool_releases", "Releases by cause", ["cause"], registry=registry
        )
        self.in_flight = Gauge(
            "yolopool_requests_in_flight", "Detect calls not yet answered", registry=registry
        )
        self.queue = Gauge(
            "yolopool_worker_outstanding",
            "Open requests at a worker",
            ["worker"],
            registry=registry,
        )
        self.replicas = Gauge(
            "yolopool_replicas", "Replicas by state", ["state"], registry=registry
        )
        self.workers = Gauge("yolopool_workers", "Workers by state", ["state"], registry=registry)
        self.crash_looping = Gauge(
            "yolopool_workers_crash_looping",
            "Workers whose processes end soon after they start",
            registry=registry,
        )
        self.worker_exits = Counter(
            "yolopool_worker_exits", "Worker processes that crashed", registry=registry
        )
        self.swaps = Gauge(
            "yolopool_worker_swaps",
            "Copies to the device of the versions that a worker holds",
            ["worker"],
            registry=registry,
        )
        self.passes = Gauge(
            "yolopool_worker_passes",
            "Passes that a worker process ran for requests since it started",
            ["worker"],
            registry=registry,
        )
        self.images = Gauge(
            "yolopool_worker_images",
            "Images in the passes of a worker process; divided by its passes: the mean batch",
            ["worker"],
            registry=registry,
        )
        self.ledger_bytes = Gauge(
            "yolopool_ledger_bytes",
            "Ledger of a device by term",
            ["worker", "term"],
            registry=registry,
        )
        self.registry_available = Gauge(
            "yolopool_registry_available", "1 while the store answers, else 0", registry=registry
        )
        self.is_reconciler = Gauge(
            "yolopool_reconciler",
            "1 while this control plane is the leader, else 0",
            registry=registry,
        )
        self.outcomes: Tally[str] = Tally()
        self.loads_total = 0
        self.releases_total = 0
        self._stages = [(f"{stage}_ms", self.stage_seconds.labels(stage=stage)) for stage in STAGES]

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
        return generate_latest(self._registry)

    def _set_ledger(self, worker: str, ledger: Ledger) -> None:
        for term in LEDGER_TERMS:
            self.ledger_bytes.labels(worker=worker, term=term).set(getattr(ledger, f"{term}_bytes"))
