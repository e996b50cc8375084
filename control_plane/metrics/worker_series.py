"""Series of each worker and its device, as it told them with its last heartbeat.

Every control plane tells of all workers: ask for the maximum over instances, not for the sum.
"""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from control_plane.metrics.fleet_look import FleetLook
from control_plane.metrics.metric_family import Family, Found
from control_plane.types.worker import DeviceStand, Ledger, WorkerFigures, WorkerInfo

LEDGER_TERMS = (
    "budget", "context", "weights", "workspace", "graph_pool", "backend_private",
    "load_transient", "measured", "assignable", "host", "foreign", "drift",
)  # fmt: skip
THROTTLES = ("thermal", "power", "slowdown", "sync")
_WORKER = ("worker",)
FAMILIES = (
    Family(
        "gauge", "yolopool_worker_info", "1, with what a worker is",
        ("worker", "device", "device_kind", "device_name", "release", "variant"),
    ),
    Family("gauge", "yolopool_worker_lease_left_seconds", "Until a worker counts as lost", _WORKER),
    Family("gauge", "yolopool_worker_outstanding", "Open requests at a worker", _WORKER),
    Family(
        "gauge", "yolopool_worker_wait_seconds",
        "When a request that came now would begin at a worker, as it estimates", _WORKER,
    ),
    Family(
        "gauge", "yolopool_worker_swaps",
        "Copies to the device of the versions that a worker holds", _WORKER,
    ),
    Family(
        "counter", "yolopool_worker_passes",
        "Passes that a worker process ran for requests since it started", _WORKER,
    ),
    Family(
        "counter", "yolopool_worker_images",
        "Images in the passes of a worker process; divided by its passes: the mean batch", _WORKER,
    ),
    Family("counter", "yolopool_worker_busy_seconds", "Time of a worker's passes", _WORKER),
    Family(
        "counter", "yolopool_worker_estimated_seconds",
        "What passes were expected to take, of those that an estimate was made of", _WORKER,
    ),
    Family(
        "counter", "yolopool_worker_estimated_took_seconds", "What the same passes took", _WORKER
    ),
    Family(
        "counter", "yolopool_worker_estimated_off_seconds",
        "By how much the two differ, pass by pass", _WORKER,
    ),
    Family(
        "summary", "yolopool_eviction_age_seconds",
        "What left the device, or host memory, for others: how long it had not been used",
        ("worker", "tier"),
    ),
    Family("gauge", "yolopool_ledger_bytes", "Ledger of a device by term", ("worker", "term")),
    Family(
        "gauge", "yolopool_device_utilisation_ratio",
        "Part of the time in which a device works: a GPU's own figure, else that of its passes",
        _WORKER,
    ),
    Family(
        "gauge", "yolopool_device_memory_bytes",
        "Memory of a device: used by its worker, and free for it", ("worker", "state"),
    ),
    Family("gauge", "yolopool_device_temperature_celsius", "Temperature of a GPU", _WORKER),
    Family("gauge", "yolopool_device_power_watts", "Power that a GPU takes", _WORKER),
    Family("gauge", "yolopool_device_power_limit_watts", "Power that a GPU may take", _WORKER),
    Family("counter", "yolopool_device_energy_joules", "Energy that a GPU took", _WORKER),
    Family(
        "gauge", "yolopool_device_clock_ratio",
        "Clock of a GPU's multiprocessors, as a part of the highest", _WORKER,
    ),
    Family(
        "gauge", "yolopool_device_throttled", "1 while clocks of a GPU are held down, by the cause",
        ("worker", "cause"),
    ),
    Family(
        "counter", "yolopool_device_xid_errors",
        "Xid errors that the driver told of a GPU since its worker started", _WORKER,
    ),
    Family("gauge", "yolopool_device_last_xid", "Number of the last Xid error; 0: none", _WORKER),
    Family(
        "gauge", "yolopool_worker_host_load",
        "Threads that run or want to, for each core of a worker's host", _WORKER,
    ),
)  # fmt: skip


class WorkerSeries(Collector):
    def __init__(self, look: Callable[[], FleetLook]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        return [family.new() for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        look, found = self._look(), Found(FAMILIES)
        for worker in look.labelled():
            _add_worker(found, worker, look)
            _add_ledger(found, worker.id, worker.ledger)
            if worker.figures is not None:
                _add_figures(found, worker.id, worker.figures)
                if worker.figures.device is not None:
                    _add_device(found, worker.id, worker.figures.device)
        return found.metrics.values()


def _add_worker(found: Found, worker: WorkerInfo, look: FleetLook) -> None:
    id_, load = worker.id, look.load(worker)
    found.add(
        "yolopool_worker_info", 1, id_, worker.device, worker.device_kind, worker.device_name,
        worker.release, worker.build.variant,
    )  # fmt: skip
    found.add("yolopool_worker_lease_left_seconds", worker.lease_until_s - look.now, id_)
    found.add("yolopool_worker_outstanding", load.outstanding, id_)
    found.add("yolopool_worker_wait_seconds", load.estimated_wait_ms / 1000, id_)
    swaps = sum(replica.swaps_total for replica in worker.replicas.values())
    found.add("yolopool_worker_swaps", swaps, id_)
    found.add("yolopool_worker_passes", load.passes_total, id_)
    found.add("yolopool_worker_images", load.images_total, id_)


def _add_ledger(found: Found, worker: str, ledger: Ledger) -> None:
    for term in LEDGER_TERMS:
        found.add("yolopool_ledger_bytes", getattr(ledger, f"{term}_bytes"), worker, term)


def _add_figures(found: Found, worker: str, figures: WorkerFigures) -> None:
    found.add("yolopool_worker_busy_seconds", figures.busy_s, worker)
    found.add("yolopool_worker_estimated_seconds", figures.estimated_s, worker)
    found.add("yolopool_worker_estimated_took_seconds", figures.estimated_took_s, worker)
    found.add("yolopool_worker_estimated_off_seconds", figures.estimated_off_s, worker)
    for tier, evictions in (("device", figures.from_device), ("host", figures.from_host)):
        found.add_sum(
            "yolopool_eviction_age_seconds", evictions.total, evictions.unused_s, worker, tier
        )


def _add_device(found: Found, worker: str, device: DeviceStand) -> None:
    found.add("yolopool_device_utilisation_ratio", device.utilisation, worker)
    found.add("yolopool_device_memory_bytes", device.used_bytes, worker, "used")
    found.add("yolopool_device_memory_bytes", device.free_bytes, worker, "free")
    found.add("yolopool_device_temperature_celsius", device.temperature_c, worker)
    found.add("yolopool_device_power_watts", device.power_w, worker)
    found.add("yolopool_device_power_limit_watts", device.power_limit_w, worker)
    found.add("yolopool_device_energy_joules", device.energy_j, worker)
    found.add("yolopool_device_clock_ratio", device.clock_ratio, worker)
    if device.clock_ratio is not None:
        for cause in THROTTLES:
            found.add("yolopool_device_throttled", cause in device.throttled, worker, cause)
    if device.xid_errors is not None:
        found.add("yolopool_device_xid_errors", device.xid_errors, worker)
        found.add("yolopool_device_last_xid", device.last_xid, worker)
    found.add("yolopool_worker_host_load", device.host_load, worker)
