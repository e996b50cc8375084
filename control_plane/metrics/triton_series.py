"""The names by which dashboards and perf_analyzer read a Triton server, with the figures of our own
series. Times are microseconds in all. Told with --triton-metrics alone.
"""

from collections.abc import Callable, Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from control_plane.alerts.model_counts import REFUSALS, STAGES, ModelCount, ModelCounts, label_of
from control_plane.metrics.fleet_look import FleetLook
from control_plane.metrics.metric_family import Family, Found
from control_plane.metrics.model_series import held_by_label
from control_plane.types.version import VersionKey

_MODEL, _GPU = ("model", "version"), ("gpu_uuid",)
# Triton's counters have no `_total`, so they can't be told as counters.
FAMILIES = (
    Family("unknown", "nv_inference_request_success", "Requests that were answered", _MODEL),
    Family(
        "unknown", "nv_inference_request_failure", "Requests that failed", (*_MODEL, "reason")
    ),
    Family("unknown", "nv_inference_count", "Images of requests that were answered", _MODEL),
    Family("unknown", "nv_inference_exec_count", "Passes that ran them", _MODEL),
    Family("unknown", "nv_inference_request_duration_us", "Time of requests in all", _MODEL),
    Family("unknown", "nv_inference_queue_duration_us", "Time of waiting, also for loads", _MODEL),
    Family(
        "unknown", "nv_inference_compute_input_duration_us", "Time of preparing images", _MODEL
    ),
    Family("unknown", "nv_inference_compute_infer_duration_us", "Time of inference", _MODEL),
    Family("unknown", "nv_inference_compute_output_duration_us", "Time of postprocessing", _MODEL),
    Family("gauge", "nv_inference_pending_request_count", "Requests that are open", _MODEL),
    Family("gauge", "nv_gpu_utilization", "Part of the time in which a GPU works", _GPU),
    Family("gauge", "nv_gpu_memory_total_bytes", "Memory of a GPU", _GPU),
    Family("gauge", "nv_gpu_memory_used_bytes", "Memory of a GPU that is not free", _GPU),
    Family("gauge", "nv_gpu_power_usage", "Power that a GPU takes, watts", _GPU),
    Family("gauge", "nv_gpu_power_limit", "Power that a GPU may take, watts", _GPU),
    Family("unknown", "nv_energy_consumption", "Energy that a GPU took, joules", _GPU),
)  # fmt: skip
_DURATIONS = {
    "queue": ("load_wait", "queue"),
    "compute_input": ("decode", "preprocess"),
    "compute_infer": ("inference",),
    "compute_output": ("postprocess",),
}


class TritonSeries(Collector):
    def __init__(self, counts: ModelCounts, look: Callable[[], FleetLook]) -> None:
        self._counts = counts
        self._look = look

    def describe(self) -> Iterable[Metric]:
        return [family.new() for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        look, found = self._look(), Found(FAMILIES)
        counts = list(self._counts.each())
        held = held_by_label(look, {key for key, _ in counts})
        for key, count in counts:
            _add(found, key, count)
            pending = held[label_of(key)].outstanding if label_of(key) in held else 0
            found.add("nv_inference_pending_request_count", pending, *_labels(key))
        _add_gpus(found, look)
        return found.metrics.values()


def _labels(key: VersionKey | None) -> tuple[str, str]:
    return (label_of(None), "") if key is None else (key.model, str(key.number))


def _add(found: Found, key: VersionKey | None, count: ModelCount) -> None:
    labels, answered = _labels(key), count.ends[0]
    found.add("nv_inference_request_success", answered, *labels)
    for reason, refused in zip(REFUSALS, count.refusals, strict=True):
        found.add("nv_inference_request_failure", refused, *labels, reason)
    found.add("nv_inference_count", answered, *labels)
    found.add("nv_inference_exec_count", count.passes, *labels)
    found.add("nv_inference_request_duration_us", count.total_s * 1e6, *labels)
    for name, stages in _DURATIONS.items():
        seconds = sum(count.stages_s[STAGES.index(stage)] for stage in stages)
        found.add(f"nv_inference_{name}_duration_us", seconds * 1e6, *labels)


def _add_gpus(found: Found, look: FleetLook) -> None:
    told = set()
    for worker in look.labelled():
        kind, _, uuid = worker.device.partition(":")
        device = worker.figures.device if worker.figures is not None else None
        # Several workers may share one, as the old and the new process of a restart.
        if kind != "cuda" or device is None or uuid in told:
            continue
        told.add(uuid)
        found.add("nv_gpu_utilization", device.utilisation, uuid)
        if device.memory_total_bytes is not None:
            used = max(0, device.memory_total_bytes - device.free_bytes)
            found.add("nv_gpu_memory_total_bytes", device.memory_total_bytes, uuid)
            found.add("nv_gpu_memory_used_bytes", used, uuid)
        found.add("nv_gpu_power_usage", device.power_w, uuid)
        found.add("nv_gpu_power_limit", device.power_limit_w, uuid)
        found.add("nv_energy_consumption", device.energy_j, uuid)
