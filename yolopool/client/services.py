"""What both clients share: the services on a channel, how long calls may take, small readings."""

from collections.abc import Iterable
from typing import Any

from yolopool.client import model_records
from yolopool.client.uploads import Progress
from yolopool.v1 import (
    bench_pb2_grpc,
    detection_pb2_grpc,
    events_pb2_grpc,
    explain_pb2_grpc,
    fleet_pb2_grpc,
    model_pb2_grpc,
    schedule_pb2_grpc,
    types_pb2,
)

DETECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 10.0
CHANGE_TIMEOUT_S = 120.0
UPLOAD_TIMEOUT_S = 600.0
DRAIN_TIMEOUT_S = 600.0
BENCH_TIMEOUT_S = 600.0
UPLOAD_ATTEMPTS = 5
POLL_S = 0.2


class Services:
    """The services' stubs on one channel, of either kind."""

    def __init__(self, channel: Any) -> None:
        self.bench: Any = bench_pb2_grpc.BenchServiceStub(channel)
        self.detection: Any = detection_pb2_grpc.DetectionServiceStub(channel)
        self.model: Any = model_pb2_grpc.ModelServiceStub(channel)
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)
        self.events: Any = events_pb2_grpc.EventServiceStub(channel)
        self.explain: Any = explain_pb2_grpc.ExplainServiceStub(channel)
        self.schedule: Any = schedule_pb2_grpc.ScheduleServiceStub(channel)


def is_importing(version: model_records.ModelVersion, progress: Progress | None) -> bool:
    """Whether the import is under way; tells how far it is."""
    if progress is not None:
        progress(version.step or version.state.lower(), version.progress)
    return version.state in ("UPLOADED", "IMPORTING")


def names_of(keys: Iterable[types_pb2.VersionKey]) -> tuple[str, ...]:
    return tuple(f"{key.model}@{key.version}" for key in keys)
