"""Fleets as metrics look at them."""

from typing import Any

from control_plane.metrics.exposition import Metrics, text_of
from control_plane.metrics.fleet_look import FleetLook
from control_plane.types.worker import WorkerInfo
from tests.unit.control_plane.fleets import NOW


def fleet(*workers: WorkerInfo, **changed: Any) -> FleetLook:
    """A look at these workers, whose versions are all that there are."""
    held = {key for worker in workers for key in worker.replicas}
    given: dict[str, Any] = {
        "now": NOW,
        "workers": {worker.id: worker for worker in workers},
        "loads": {},
        "versions": held,
        "models": len(held),
        "held": held,
        "waits": {},
        "registry_available": True,
        "leads": True,
        "lease_left_s": 1.0,
        "commands": 0,
        "crash_looping": 0,
    }
    return FleetLook(**{**given, **changed})


def shown(metrics: Metrics, accept: str = "") -> str:
    """What a scraper gets."""
    return text_of(metrics.families(), accept)[0].decode()


def series_of(metrics: Metrics) -> dict[str, float]:
    """Values by name and labels, as a line of text has them."""
    lines = [line for line in shown(metrics).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
