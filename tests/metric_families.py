"""Every metric that a control plane may tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from control_plane.alerts.model_counts import ModelCounts
from control_plane.metrics.exposition import Metrics
from control_plane.types.command import Assign
from control_plane.types.version import VersionKey
from tests.unit.control_plane.metrics.looks import fleet

# What the names of a metric's series end with.
ENDS: Mapping[str, Sequence[str]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
    "unknown": ("",),
}


@dataclass(frozen=True)
class Used:
    """What a tenant used."""

    images: int = 1
    refused: int = 1
    bytes: int = 1
    device_s: float = 1.0
    gb_hours: float = 1.0


def all_families() -> Sequence[Metric]:
    """Also those that are told by a flag, or of a process with a certificate."""
    metrics = Metrics()
    metrics.watch(fleet, ModelCounts(), triton=True)
    metrics.watch_certificate(lambda: 0.0)
    metrics.request_ended("OK")
    metrics.retried("OK")
    metrics.load_ended("OK", 1.0)
    metrics.released("EVICTED")
    metrics.planned(1.0, [Assign("w1", VersionKey("a", 1), False, "it fits")])
    metrics.event_recorded("ALIAS", "")
    metrics.tenants_used({"t": Used()}, ["t"])
    return metrics.families()


def labels_of(family: Metric) -> set[str]:
    """Of its series, without that of a histogram's buckets."""
    named = getattr(family, "_labelnames", None)
    return set(named if named is not None else family.samples[0].labels) - {"le"}
