"""Series of the fleet as a whole, of who leads it, and of the store."""

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from control_plane.metrics.desired_workers import desired_workers
from control_plane.metrics.fleet_look import MAX_WORKERS, FleetLook
from control_plane.metrics.metric_family import Family, Found
from control_plane.types.worker import WorkerState
from yolopool import __version__
from yolopool.error_table import known_reason
from yolopool.vocabulary import ReplicaState

FAMILIES = (
    Family("gauge", "yolopool_replicas", "Replicas by state", ("state",)),
    Family("gauge", "yolopool_workers", "Workers by state", ("state",)),
    Family(
        "gauge", "yolopool_workers_crash_looping",
        "Workers whose processes end soon after they start",
    ),
    Family(
        "gauge", "yolopool_workers_without_series",
        "Workers beyond those that have series of their own",
    ),
    Family(
        "gauge", "yolopool_desired_workers",
        "Workers that the present load asks for: for an autoscaler", ("device_kind",),
    ),
    Family("gauge", "yolopool_models", "Models that are registered"),
    Family("gauge", "yolopool_versions", "Versions that are registered, with their builds"),
    Family(
        "gauge", "yolopool_versions_waiting",
        "Versions that the newest plan could not place, by the reason; told by the leader",
        ("reason",),
    ),
    Family("gauge", "yolopool_registry_available", "1 while the store answers, else 0"),
    Family("gauge", "yolopool_reconciler", "1 while this control plane is the leader, else 0"),
    Family(
        "gauge", "yolopool_lease_left_seconds",
        "Until the leader's lease ends; 0: this control plane does not lead",
    ),
    Family("gauge", "yolopool_commands_in_flight", "Loads and releases under way at workers"),
    Family(
        "gauge", "yolopool_build_info", "1, with the release of this control plane", ("release",)
    ),
)  # fmt: skip


class FleetSeries(Collector):
    def __init__(self, look: Callable[[], FleetLook]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        return [family.new() for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        look, found = self._look(), Found(FAMILIES)
        here = look.here
        replicas = Counter(one.state for worker in here for one in worker.replicas.values())
        for replica_state in ReplicaState:
            found.add("yolopool_replicas", replicas[replica_state], replica_state)
        workers = Counter(worker.state for worker in look.workers.values())
        for worker_state in WorkerState:
            found.add("yolopool_workers", workers[worker_state], worker_state)
        found.add("yolopool_workers_crash_looping", look.crash_looping)
        found.add("yolopool_workers_without_series", max(0, len(here) - MAX_WORKERS))
        for kind, wanted in desired_workers(look).items():
            found.add("yolopool_desired_workers", wanted, kind)
        found.add("yolopool_models", look.models)
        found.add("yolopool_versions", len(look.versions))
        waiting = Counter(known_reason(wait.reason) for wait in look.waits.values())
        for reason in sorted({"LEDGER_FULL", *waiting}):
            found.add("yolopool_versions_waiting", waiting[reason], reason)
        found.add("yolopool_registry_available", look.registry_available)
        found.add("yolopool_reconciler", look.leads)
        found.add("yolopool_lease_left_seconds", look.lease_left_s)
        found.add("yolopool_commands_in_flight", look.commands)
        found.add("yolopool_build_info", 1, __version__)
        return found.metrics.values()
