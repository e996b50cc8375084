"""Every metric of the control plane, in one place; base units, and labels of bounded number.

Models are no label: there may be thousands, and the request log names them.
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
    """Counts what happens; the state of the fleet is read from the view at each scrape."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter(
            "yolopool_requests",
            "Detect calls by outcome: OK or an error reason",
            ["outcome"],
            registry=own,
        )
        self.request_seconds = Histogram(
            "yolopool_request_seconds",
            "Whole Detect calls that were answered",
            buckets=_SECONDS,
            registry=own,
        )
        self.stage_seconds = Histogram(
            "yolopool_stage_seconds",
            "Where the time of a Detect went",
            ["stage"],
            buckets=_SECONDS,
            registry=own,
        )
        self.batch_size = Histogram(
            "yolopool_batch_size",
            "Images that shared a pass, by request",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=own,
        )
        self.cache = Counter(
            "yolopool_model_requests",
            "Detect calls by whether the model was loaded",
            ["result"],
            registry=own,
        )
        self.retries = Counter(
            "yolopool_retries",
            "Detect calls sent to a second worker, by the first's refusal",
            ["reason"],
            registry=own,
        )
        self.loads = Counter("yolopool_loads", "Loads by outcome", ["outcome"], registry=own)
        self.load_seconds = Histogram(
            "yolopool_load_seconds",
            "Loads from decision to HOT",
            buckets=_LOAD_SECONDS,
            registry=own,
        )
        self.releases = Counter("yolopool_releases", "Releases by cause", ["cause"], registry=own)
        self.in_flight = Gauge(
            "yolopool_requests_in_flight", "Detect calls not yet answered", registry=own
        )
        self.queue = Gauge(
            "yolopool_worker_outstanding", "Tickets at a worker", ["worker"], registry=own
        )
        self.replicas = Gauge("yolopool_replicas", "Replicas by state", ["state"], registry=own)
        self.workers = Gauge("yolopool_workers", "Workers by state", ["state"], registry=own)
        self.crash_looping = Gauge(
            "yolopool_workers_crash_looping",
            "Workers whose processes end soon after they begin",
            registry=own,
        )
        self.worker_exits = Counter(
            "yolopool_worker_exits", "Worker processes that ended by themselves", registry=own
        )
        self.swaps = Gauge(
            "yolopool_worker_swaps",
            "How often the versions that a worker holds were brought to its device",
            ["worker"],
            registry=own,
        )
        self.passes = Gauge(
            "yolopool_worker_passes",
            "Passes that a worker process ran for requests since it began",
            ["worker"],
            registry=own,
        )
        self.images = Gauge(
            "yolopool_worker_images",
            "Images in the passes of a worker process: by its passes, the mean batch",
            ["worker"],
            registry=own,
        )
        self.ledger_bytes = Gauge(
            "yolopool_ledger_bytes",
            "Memory account of a device by term",
            ["worker", "term"],
            registry=own,
        )
        self.registry_available = Gauge(
            "yolopool_registry_available", "1 while the store answers, else 0", registry=own
        )
        self.is_reconciler = Gauge(
            "yolopool_reconciler", "1 while this process decides, else 0", registry=own
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
        is_reconciler: bool,
        crash_looping: int = 0,
    ) -> bytes:
        """All of it in Prometheus' text format, with the fleet as it is now."""
        self.registry_available.set(registry_available)
        self.is_reconciler.set(is_reconciler)
        self.crash_looping.set(crash_looping)
        self.queue.clear()
        self.ledger_bytes.clear()
        for gauge in (self.swaps, self.passes, self.images):
            gauge.clear()
        here = [w for w in workers.values() if w.state is not WorkerState.LOST]
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
        lives = Tally(worker.state for worker in workers.values())
        for worker_state in WorkerState:
            self.workers.labels(state=worker_state).set(lives[worker_state])
        return generate_latest(self._registry)

    def _set_ledger(self, worker: str, ledger: Ledger) -> None:
        for term in LEDGER_TERMS:
            self.ledger_bytes.labels(worker=worker, term=term).set(getattr(ledger, f"{term}_bytes"))
