"""A worker as it reports itself: state, ledger, replicas, load and exits. Pure and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.types.footprint import Footprint
from control_plane.types.policy import BatchingConfig
from control_plane.types.version import DeviceVariant, ModelVersion, VersionKey
from yolopool.frozen import frozen
from yolopool.server.arrival_rates import NO_ARRIVALS, ArrivalRates
from yolopool.vocabulary import ReplicaState

# This many exits in a row are a crash loop.
LOOP = 3
_MAX_LINE_CHARS = 200

# States in which a replica takes requests.
LOADED = frozenset({ReplicaState.WARM, ReplicaState.HOT})


class WorkerState(StrEnum):
    STARTING = "STARTING"  # joined, device not ready
    READY = "READY"  # takes work
    DRAINING = "DRAINING"  # ends open requests, takes no new work
    LOST = "LOST"  # its lease ran out, or its supervisor reported its exit
    HUNG = "HUNG"  # its device hangs: the process will exit


@frozen
class Ledger:
    """The memory account of a device in bytes, as its worker reports it."""

    budget_bytes: int
    context_bytes: int = 0
    weights_bytes: int = 0
    workspace_bytes: int = 0
    graph_pool_bytes: int = 0
    backend_private_bytes: int = 0
    load_transient_bytes: int = 0
    measured_bytes: int = 0
    # As in types.proto: host memory beneath the device, and memory outside the ledger.
    assignable_bytes: int = 0
    host_bytes: int = 0
    foreign_bytes: int = 0
    drift_bytes: int = 0
    max_hot: int = 0

    @property
    def used_bytes(self) -> int:
        return (
            self.context_bytes
            + self.weights_bytes
            + self.workspace_bytes
            + self.graph_pool_bytes
            + self.backend_private_bytes
            + self.load_transient_bytes
        )


@frozen
class Adaption:
    """What a worker runs a version with for its p99 goal; see types.proto."""

    max_batch: int = 0
    max_delay_ms: float = 0.0
    p99_ms: float = 0.0
    is_out_of_reach: bool = False


@frozen
class Replica:
    """A version on a worker, as the worker reports it."""

    key: VersionKey
    state: ReplicaState
    weights_bytes: int
    workspace_bytes: int
    pinned: bool = False
    outstanding: int = 0
    last_used_unix_s: float = 0.0
    requests_total: int = 0
    loads_total: int = 0
    inference_ms: float = 0.0
    load_ms: float = 0.0
    reason: str = ""
    message: str = ""
    variant: str = ""
    pack: str = ""
    footprint: Footprint | None = None
    swaps_total: int = 0
    rates: ArrivalRates = NO_ARRIVALS
    queue_ms: float = 0.0
    busy: float = 0.0
    hot_since_unix_s: float = 0.0
    hits_total: int = 0
    batching: BatchingConfig | None = None
    self_test: str = ""
    adaption: Adaption | None = None

    @property
    def precision(self) -> str:
        return self.variant.partition("/")[2]

    def is_outdated(self, version: ModelVersion, build: DeviceVariant) -> bool:
        """Whether it was loaded from another pack, or in another precision, than serves `version`
        now on such a worker.
        """
        pack, wanted = version.made_by(build)
        if pack is None or not self.pack:
            return False
        if self.pack != pack.digest:
            return True
        return not pack.backend and self.precision not in ("", wanted.precision)


# A version on a worker: the id of the worker, and the version.
ReplicaKey = tuple[str, VersionKey]


@frozen
class LoadReport:
    """The last report of a worker about its queue."""

    outstanding: int = 0
    queue_capacity: int = 0
    estimated_wait_ms: float = 0.0
    sequence: int = 0
    passes_total: int = 0
    images_total: int = 0


@frozen
class DeviceStand:
    """A device at one look; see types.proto. None: it does not say."""

    used_bytes: int = 0
    free_bytes: int = 0
    utilisation: float = 0.0
    temperature_c: float | None = None
    clock_ratio: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    host_load: float | None = None
    xid_errors: int | None = None
    memory_total_bytes: int | None = None
    last_xid: int = 0
    throttled: tuple[str, ...] = ()


@frozen
class Evictions:
    """How many there were, and how long before each it had been used last, in all."""

    total: int = 0
    unused_s: float = 0.0


@frozen
class WorkerFigures:
    """What a worker measured since its process began; see fleet.proto."""

    device: DeviceStand | None = None
    busy_s: float = 0.0
    estimated_s: float = 0.0
    estimated_took_s: float = 0.0
    estimated_off_s: float = 0.0
    from_device: Evictions = Evictions()
    from_host: Evictions = Evictions()


@frozen
class WorkerInfo:
    """A worker process, its lease and its replicas."""

    id: str
    incarnation: str
    address: str
    device: str
    device_kind: str
    state: WorkerState
    lease_until_s: float  # on the control plane's monotonic clock
    ledger: Ledger
    load: LoadReport = LoadReport()
    replicas: Mapping[VersionKey, Replica] = field(default_factory=dict)
    device_name: str = ""
    joined_unix_s: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    replaces_because: str = ""
    # Infer calls go to these in turn; empty: to `address`.
    io_addresses: tuple[str, ...] = ()
    # backend/precision, as reported; empty: the default of the kind of device.
    variant: str = ""
    # What its device multiplies with; empty: it does not say.
    compute_class: str = ""
    # None: of an earlier release.
    figures: WorkerFigures | None = None

    @property
    def build(self) -> DeviceVariant:
        """Its default variant."""
        usual = DeviceVariant.usual(self.device_kind)
        return usual._replace(
            variant=self.variant or usual.variant, compute_class=self.compute_class
        )

    def is_here(self, now: float) -> bool:
        """Whether its process, as far as is known, is there at monotonic time `now` (seconds)."""
        return self.state is not WorkerState.LOST and now < self.lease_until_s

    def is_live(self, now: float) -> bool:
        """Whether it takes work at monotonic time `now` (seconds)."""
        return self.state is WorkerState.READY and now < self.lease_until_s


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How the last process of a worker ended, and when it is restarted; see fleet.proto."""

    worker: str
    device: str
    device_kind: str
    ended: str
    last_output: str
    in_a_row: int
    ran_s: float
    restart_in_s: float
    unix_s: float

    @property
    def is_loop(self) -> bool:
        return self.in_a_row >= LOOP

    @property
    def last_line(self) -> str:
        """One line about the exit: the last line with an error, else the last line."""
        lines = [line.strip() for line in self.last_output.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        return next(reversed(errors or lines), "no output")[:_MAX_LINE_CHARS]

    def __str__(self) -> str:
        return (
            f"{self.ended} after {self.ran_s:.1f} s, {self.in_a_row} in a row; it is restarted "
            f"in {self.restart_in_s:g} s: {self.last_line}"
        )
