"""Workers, fleets and bench points as frozen records for callers."""

from dataclasses import dataclass

from yolopool.client.model_records import Replica, enum_word, replica_of
from yolopool.v1 import bench_pb2, fleet_pb2, model_pb2, types_pb2


@dataclass(frozen=True, slots=True)
class Ledger:
    """The memory ledger of a device, in bytes."""

    budget_bytes: int
    used_bytes: int
    context_bytes: int
    weights_bytes: int
    workspace_bytes: int
    load_transient_bytes: int
    measured_bytes: int
    assignable_bytes: int
    host_bytes: int
    foreign_bytes: int
    drift_bytes: int
    max_hot: int


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How the last process of a worker ended.

    `in_a_row` processes ended by themselves without running for a minute. `last_output` is the end
    of what the last one wrote to stderr.
    """

    ended: str
    last_output: str
    in_a_row: int
    ran_s: float
    restart_in_s: float
    unix_s: float


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process; `state` is STARTING, READY, DRAINING, LOST, HUNG or CRASH_LOOPING.

    `cordoned`: its models are being loaded elsewhere, then it drains. `last_exit` is how the
    process before it ended, if that was recent.
    """

    id: str
    incarnation: str
    address: str
    device: str
    device_kind: str
    device_name: str
    state: str
    lease_left_s: float
    ledger: Ledger
    outstanding: int
    queue_capacity: int
    replicas: tuple[Replica, ...]
    labels: dict[str, str]
    release: str
    replaces_because: str
    cordoned: bool
    last_exit: WorkerExit | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """Totals of the whole pool."""

    cluster: str
    release: str
    control_plane: str
    reconciler: str
    registry_available: bool
    models: int
    versions: int
    workers_ready: int
    workers: int
    importers: int
    replicas_hot: int
    outstanding: int
    budget_bytes: int
    used_bytes: int
    requests_total: int
    errors_total: int
    loads_total: int
    releases_total: int
    workers_crash_looping: int


@dataclass(frozen=True, slots=True)
class VersionStatistics:
    """The requests of the last minute for one version, `model` as name@version, of those that came
    to the control plane that was asked. Times in ms: quantiles of the total, means of the others.
    hit_ratio: 0..1, for which a worker had the model. `steps`: requests a second every 5 s.
    """

    model: str
    requests_per_s: float
    errors_per_s: float
    p50_ms: float
    p99_ms: float
    queue_ms: float
    inference_ms: float
    batch_size: float
    hit_ratio: float
    steps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BenchPoint:
    """Passes of one batch size on images of one shape; `model` is name@version.

    Times are milliseconds of a pass. A point with a `reason` was left out. A point that is not
    `done` is still being measured, or its sweep was cut.
    """

    model: str
    worker: str
    device_kind: str
    device_name: str
    precision: str
    height: int
    width: int
    batch: int
    passes: int
    p50_ms: float
    p99_ms: float
    images_per_s: float
    copy_ms: float
    forward_ms: float
    nms_ms: float
    workspace_bytes: int
    boxes: float
    busy: float
    reason: str
    message: str
    done: bool

    @property
    def shape(self) -> str:
        """WIDTHxHEIGHT, as the command line takes it."""
        return f"{self.width}x{self.height}"


def bench_point_of(message: bench_pb2.BenchModelResponse) -> BenchPoint:
    point = message.point
    return BenchPoint(
        model=f"{message.version.model}@{message.version.version}",
        worker=message.worker,
        device_kind=message.device_kind,
        device_name=message.device_name,
        precision=message.variant.precision,
        height=point.shape.height,
        width=point.shape.width,
        batch=point.batch,
        passes=point.passes,
        p50_ms=point.p50_ms,
        p99_ms=point.p99_ms,
        images_per_s=point.images_per_s,
        copy_ms=point.copy_ms,
        forward_ms=point.forward_ms,
        nms_ms=point.nms_ms,
        workspace_bytes=point.workspace_bytes,
        boxes=point.boxes,
        busy=point.busy,
        reason=point.reason,
        message=point.message,
        done=point.done,
    )


def ledger_of(message: types_pb2.Ledger) -> Ledger:
    used = (
        message.context_bytes
        + message.weights_bytes
        + message.workspace_bytes
        + message.graph_pool_bytes
        + message.backend_private_bytes
        + message.load_transient_bytes
    )
    return Ledger(
        budget_bytes=message.budget_bytes,
        used_bytes=used,
        context_bytes=message.context_bytes,
        weights_bytes=message.weights_bytes,
        workspace_bytes=message.workspace_bytes,
        load_transient_bytes=message.load_transient_bytes,
        measured_bytes=message.measured_bytes,
        assignable_bytes=message.assignable_bytes,
        host_bytes=message.host_bytes,
        foreign_bytes=message.foreign_bytes,
        drift_bytes=message.drift_bytes,
        max_hot=message.max_hot,
    )


def worker_of(message: fleet_pb2.Worker) -> Worker:
    return Worker(
        id=message.id,
        incarnation=message.incarnation,
        address=message.address,
        device=message.device,
        device_kind=message.device_kind,
        device_name=message.device_name,
        state=enum_word(fleet_pb2.WorkerState, message.state, "WORKER_STATE_"),
        lease_left_s=message.lease_left_s,
        ledger=ledger_of(message.ledger),
        outstanding=message.load.outstanding,
        queue_capacity=message.load.queue_capacity,
        replicas=tuple(replica_of(r, message.id, message.device) for r in message.replicas),
        labels=dict(message.labels),
        release=message.release,
        replaces_because=message.replaces_because,
        cordoned=message.cordoned,
        last_exit=_exit_of(message.last_exit) if message.HasField("last_exit") else None,
    )


def _exit_of(message: fleet_pb2.WorkerExit) -> WorkerExit:
    return WorkerExit(**{name: getattr(message, name) for name in WorkerExit.__slots__})


def fleet_of(message: fleet_pb2.GetFleetResponse) -> Fleet:
    return Fleet(**{name: getattr(message, name) for name in Fleet.__slots__})


def statistics_of(message: fleet_pb2.GetStatisticsResponse) -> tuple[VersionStatistics, ...]:
    return tuple(
        VersionStatistics(
            f"{one.version.model}@{one.version.version}",
            one.requests_per_s,
            one.errors_per_s,
            one.p50_ms,
            one.p99_ms,
            one.queue_ms,
            one.inference_ms,
            one.batch_size,
            one.hit_ratio,
            tuple(one.steps),
        )
        for one in message.versions
    )


def workers_of(message: fleet_pb2.ListWorkersResponse) -> tuple[Worker, ...]:
    return tuple(worker_of(worker) for worker in message.workers)


@dataclass(frozen=True, slots=True)
class UnusedFile:
    """A file of the artifact store that no version uses; `kind` is artifact, pack, upload or
    leftover, `name` its digest or path. It may be removed in `keep_s` seconds.
    """

    kind: str
    name: str
    size_bytes: int
    unused_s: float
    keep_s: float
    removed: bool


def unused_files_of(message: model_pb2.SweepStoreResponse) -> tuple[UnusedFile, ...]:
    return tuple(
        UnusedFile(file.kind, file.name, file.size_bytes, file.unused_s, file.keep_s, file.removed)
        for file in message.files
    )
