"""Series of versions: of those that are asked most, and of all others together. What was deleted
has none any more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from control_plane.alerts.model_counts import (
    BOUNDS_S,
    INFERENCE,
    STAGES,
    TIERS,
    ModelCount,
    ModelCounts,
    label_of,
)
from control_plane.alerts.table import MODEL_ENDS
from control_plane.metrics.answer_series import told
from control_plane.metrics.fleet_look import FleetLook
from control_plane.metrics.metric_family import Family, Found
from control_plane.types.version import VersionKey

_MODEL = ("model",)
FAMILIES = (
    Family(
        "counter", "yolopool_model_ended",
        "Detect calls of a version by how they ended: answered, late, other, or failed by the "
        "pool's fault", ("model", "end"),
    ),
    Family(
        "counter", "yolopool_model_misses", "Detect calls of a version that no worker had", _MODEL
    ),
    Family(
        "counter", "yolopool_model_tier_requests",
        "Answers of a version by where it was: device, host, or store (no worker had it)",
        ("model", "tier"),
    ),
    Family(
        "histogram", "yolopool_model_request_seconds",
        "Detect calls of a version that were answered, from arrival to answer", _MODEL,
    ),
    Family(
        "counter", "yolopool_model_stage_seconds", "Time of a version's answers by stage",
        ("model", "stage"),
    ),
    Family(
        "summary", "yolopool_model_inference_seconds", "Inference of a version's answers", _MODEL
    ),
    Family(
        "counter", "yolopool_model_passes",
        "Passes of a version's answers; one that images shared counts for each by its part", _MODEL,
    ),
    Family("counter", "yolopool_model_results", "Objects in a version's answers", _MODEL),
    Family(
        "counter", "yolopool_model_not_finite",
        "Answers of a version that were NaN or infinite", _MODEL,
    ),
    Family(
        "gauge", "yolopool_model_empty_in_row",
        "Answers of a version that found nothing since the last that did; 0: none ever did", _MODEL,
    ),
    Family(
        "gauge", "yolopool_model_replicas", "Replicas of a version by state", ("model", "state")
    ),
    Family("gauge", "yolopool_model_outstanding", "Open requests of a version at workers", _MODEL),
    Family(
        "gauge", "yolopool_model_weights_bytes", "Weights of a version on devices, all replicas",
        _MODEL,
    ),
    Family(
        "gauge", "yolopool_model_busy_ratio",
        "Devices that work for a version: 1 is one device all the time", _MODEL,
    ),
)  # fmt: skip


@dataclass(slots=True)
class Held:
    """What workers hold of a version, or of several."""

    states: dict[str, int] = field(default_factory=dict)
    outstanding: int = 0
    weights_bytes: int = 0
    busy: float = 0.0


def held_by_label(look: FleetLook, labelled: set[VersionKey | None]) -> dict[str, Held]:
    """By the label of a version, or of those that have none of their own."""
    found: dict[str, Held] = {}
    for worker in look.here:
        for key, replica in worker.replicas.items():
            held = found.setdefault(label_of(key if key in labelled else None), Held())
            held.states[replica.state] = held.states.get(replica.state, 0) + 1
            held.outstanding += replica.outstanding
            if replica.state == "HOT":
                held.weights_bytes += replica.weights_bytes
            held.busy += replica.busy
    return found


class ModelSeries(Collector):
    def __init__(self, counts: ModelCounts, look: Callable[[], FleetLook]) -> None:
        self._counts = counts
        self._look = look

    def describe(self) -> Iterable[Metric]:
        return [family.new() for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        look, found = self._look(), Found(FAMILIES)
        self._counts.look(look.versions, look.held, look.now)
        counts = list(self._counts.each())
        for key, count in counts:
            label = label_of(key)
            _add_ends(found, label, count)
            _add_answers(found, label, count)
            if key is not None:
                found.add("yolopool_model_empty_in_row", count.empty_in_row, label)
        for label, held in held_by_label(look, {key for key, _ in counts}).items():
            for state, replicas in held.states.items():
                found.add("yolopool_model_replicas", replicas, label, state)
            found.add("yolopool_model_outstanding", held.outstanding, label)
            found.add("yolopool_model_weights_bytes", held.weights_bytes, label)
            found.add("yolopool_model_busy_ratio", held.busy, label)
        return found.metrics.values()


def _add_ends(found: Found, label: str, count: ModelCount) -> None:
    for end, ended in zip(MODEL_ENDS, count.ends, strict=True):
        found.add("yolopool_model_ended", ended, label, end)
    found.add("yolopool_model_misses", count.misses, label)
    found.add("yolopool_model_not_finite", count.not_finite, label)


def _add_answers(found: Found, label: str, count: ModelCount) -> None:
    for tier, answered in zip(TIERS, count.tiers, strict=True):
        found.add("yolopool_model_tier_requests", answered, label, tier)
    for stage, seconds in zip(STAGES, count.stages_s, strict=True):
        found.add("yolopool_model_stage_seconds", seconds, label, stage)
    found.add_sum(
        "yolopool_model_inference_seconds", count.ends[0], count.stages_s[INFERENCE], label
    )
    found.add("yolopool_model_passes", count.passes, label)
    found.add("yolopool_model_results", count.results, label)
    buckets = told(count.buckets, BOUNDS_S, count.exemplars)
    found.add_buckets("yolopool_model_request_seconds", buckets, count.total_s, label)
