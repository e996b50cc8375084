"""What a worker measured of its device and its passes, between proto and types."""

from dataclasses import asdict, fields
from typing import Any

from control_plane.types.worker import DeviceStand, Evictions, WorkerFigures
from yolopool.v1 import fleet_pb2, types_pb2

# Names are the same on both sides.
_SUMS = ("busy_s", "estimated_s", "estimated_took_s", "estimated_off_s")
_OPTIONAL = tuple(one.name for one in fields(DeviceStand) if one.default is None)
_KNOWN = tuple(
    one.name for one in fields(DeviceStand) if one.name not in _OPTIONAL and one.name != "throttled"
)


def figures_in(figures: fleet_pb2.WorkerFigures) -> WorkerFigures:
    return WorkerFigures(
        device=stand_in(figures.device) if figures.HasField("device") else None,
        **{name: getattr(figures, name) for name in _SUMS},
        from_device=_evictions_in(figures.from_device),
        from_host=_evictions_in(figures.from_host),
    )


def figures_out(figures: WorkerFigures) -> fleet_pb2.WorkerFigures:
    device = figures.device
    return fleet_pb2.WorkerFigures(
        device=types_pb2.DeviceStand(**asdict(device)) if device is not None else None,
        **{name: getattr(figures, name) for name in _SUMS},
        from_device=fleet_pb2.Evictions(**asdict(figures.from_device)),
        from_host=fleet_pb2.Evictions(**asdict(figures.from_host)),
    )


def stand_in(stand: types_pb2.DeviceStand) -> DeviceStand:
    told: Any = stand  # fields by name
    return DeviceStand(
        **{name: getattr(stand, name) for name in _KNOWN},
        **{name: getattr(stand, name) for name in _OPTIONAL if told.HasField(name)},
        throttled=tuple(stand.throttled),
    )


def _evictions_in(evictions: fleet_pb2.Evictions) -> Evictions:
    return Evictions(evictions.total, evictions.unused_s)
