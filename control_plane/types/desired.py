"""The nouns of the control plane: models, wants, workers, replicas, snapshots and plans.

Pure and frozen: what is decided here is data, and every decision carries its reason.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from control_plane.batching import Batching
from yolopool.names import build_name, is_build
from yolopool.server.arrival_rates import NEVER, Arrivals, Rates
from yolopool.vocabulary import PRECISIONS

if TYPE_CHECKING:
    from control_plane.types.schedule import Schedule


class VersionKey(NamedTuple):
    """One immutable version: prints as `team/shapes@3`. A tuple, since plans look up tens of
    thousands.
    """

    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


def builds_of(key: VersionKey) -> tuple[VersionKey, ...]:
    """Keys of all builds that there can be of a version; of a build there are none."""
    if is_build(key.model):
        return ()
    names = (
        build_name(key.model, backend, precision, kind)
        for kind, backends in PRECISIONS.items()
        for backend, precisions in backends.items()
        for precision in precisions
    )
    return tuple(VersionKey(name, key.number) for name in sorted(names))


@dataclass(frozen=True, slots=True, order=True)
class FencingToken:
    """Orders the writers of the fleet; `epoch` is drawn when the store is created."""

    epoch: int
    counter: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}"


@dataclass(frozen=True, slots=True)
class Holder:
    """The control plane that decides: its name in the lease, its token, and host:port of its gRPC
    (empty: not said).
    """

    name: str
    token: FencingToken
    address: str = ""


class VersionState(StrEnum):
    UPLOADED = "UPLOADED"  # waits for an importer
    IMPORTING = "IMPORTING"  # an importer holds its lease
    READY = "READY"  # can be loaded
    FAILED = "FAILED"  # reason says why; terminal


class ReplicaState(StrEnum):
    ASSIGNED = "ASSIGNED"  # accepted; bytes are on their way
    WARM = "WARM"  # beside the device: its worker brings it there in turn
    HOT = "HOT"  # on the device and warmed up
    RELEASING = "RELEASING"  # waits for its last tickets
    FAILED = "FAILED"  # the load failed


# It takes requests.
LOADED = frozenset({ReplicaState.WARM, ReplicaState.HOT})


class WorkerState(StrEnum):
    STARTING = "STARTING"  # joined, device not ready
    READY = "READY"  # takes work
    DRAINING = "DRAINING"  # finishes what it has
    LOST = "LOST"  # its lease ran out, or its supervisor said that it ended
    HUNG = "HUNG"  # its device hangs: the process ends


class HeadMode(StrEnum):
    ONE_TO_MANY = "one-to-many"  # candidates, to be suppressed by NMS
    END_TO_END = "end-to-end"  # final boxes


class ResidencyMode(StrEnum):
    NORMAL = "normal"  # released when its room is worth more to others
    HOT_STANDBY = "hot-standby"  # always loaded and pinned
    ON_DEMAND = "on-demand"  # released when idle


class Priority(StrEnum):
    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


class ShapePolicy(StrEnum):
    RECT = "rect"  # smallest rectangle of whole strides
    SQUARE = "square"  # always the full square


class OutputLayout(StrEnum):
    """Of an ONNX file: as types.proto has them."""

    OBJECTNESS = "objectness"
    PLAIN = "plain"
    END_TO_END = "end-to-end"
    PAIR = "pair"


@dataclass(frozen=True, slots=True)
class VersionSettings:
    """Semantics of a version; None or 0: not said, filled by the import."""

    image_size: int = 0
    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    shape_policy: ShapePolicy | None = None
    head_mode: HeadMode | None = None
    output_layout: OutputLayout | None = None
    # Sizes that a request may ask for beside image_size.
    image_sizes: tuple[int, ...] = ()

    @property
    def largest_image(self) -> int:
        """Longest side that memory is kept for; 0: not said."""
        return max(self.image_size, *self.image_sizes, 0)


# Of a version that is kept on demand only, where nothing else is said.
IDLE_RELEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Residency:
    """How a version is kept; `cpu_fallback`: on a CPU where every accelerator failed to load it."""

    mode: ResidencyMode = ResidencyMode.NORMAL
    idle_release_s: float = IDLE_RELEASE_S
    cpu_fallback: bool = False

    @property
    def pins(self) -> bool:
        """Whether the version is wanted and pinned by this alone."""
        return self.mode is ResidencyMode.HOT_STANDBY


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version may run (workers of `pool` with all `labels`), on at most how many workers
    (0: as many as there are), and how much it matters beside others.
    """

    pool: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas: int = 0
    priority: Priority = Priority.NORMAL

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a worker with these labels may hold the version."""
        if self.pool and labels.get(POOL) != self.pool:
            return False
        return all(labels.get(name) == value for name, value in self.labels.items())

    @property
    def says(self) -> str:
        """What it asks of a worker, for people; empty: nothing."""
        asked = {**({POOL: self.pool} if self.pool else {}), **self.labels}
        return ", ".join(f"{name}={value}" for name, value in sorted(asked.items()))


# The label that names a worker's pool.
POOL = "pool"


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the answers of one build were from another's, as types.proto has it."""

    exact: str = ""
    images: int = 0
    objects: int = 0
    matched: int = 0
    extra: int = 0
    largest_px: float = 0.0
    largest_confidence: float = 0.0
    exact_map50: float | None = None
    exact_map50_95: float | None = None
    map50: float | None = None
    map50_95: float | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """The build that serves a version on one kind of device. `pack` None: the version's own;
    `drift` None: it was not compared.
    """

    backend: str
    precision: str
    pack: "Pack | None" = None
    drift: Drift | None = None

    @property
    def variant(self) -> str:
        return f"{self.backend}/{self.precision}"


@dataclass(frozen=True, slots=True)
class Given:
    """What a registration gives beside file and settings: how and where the version is kept and,
    of a file of weights alone, the YAML text of its architecture and its class names.

    `served` are builds by kind of device. A row that is itself a build (of the version `build_of`)
    has one, and runs on that kind alone; `calibration` is the SHA-256 of the images it is made by.
    """

    residency: Residency = Residency()
    architecture_yaml: str = ""
    class_names: tuple[str, ...] = ()
    placement: Placement = Placement()
    # By kind of device; none: the workers' own.
    batching: Mapping[str, Batching] = field(default_factory=dict)
    served: Mapping[str, Served] = field(default_factory=dict)
    build_of: VersionKey | None = None
    calibration: str = ""

    def runs_on(self, device_kind: str) -> bool:
        """Whether a worker on such a device can make anything of it."""
        return self.build_of is None or device_kind in self.served

    def served_by(self, device_kind: str, served: Served | None) -> "Given":
        """With another build on a kind of device; None: what its workers make of the version."""
        others = {kind: one for kind, one in self.served.items() if kind != device_kind}
        more = {device_kind: served} if served is not None else {}
        return replace(self, served={**others, **more})

    def batched(self, device_kind: str, batching: Batching | None) -> "Given":
        """With another batching on a kind of device; None: the workers' own."""
        others = {kind: one for kind, one in self.batching.items() if kind != device_kind}
        more = {device_kind: batching} if batching is not None else {}
        return replace(self, batching={**others, **more})


@dataclass(frozen=True, slots=True)
class Pack:
    """What the registry keeps of an imported, load-ready form."""

    digest: str
    architecture: str
    task: str
    class_names: tuple[str, ...]
    weights_bytes: int
    activation_bytes_per_megapixel: int
    parameters: int
    warnings: tuple[str, ...] = ()
    gflops: float = 0.0
    artifact_bytes: int = 0
    pack_bytes: int = 0
    # Of a graph, which computes in a precision of its own; empty: torch.
    backend: str = ""
    precision: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version as registered, with the state of its import.

    `settings` are resolved by the import; `asked` is what was said at registration.
    """

    key: VersionKey
    state: VersionState
    artifact: str
    settings: VersionSettings
    created_unix_s: float
    source_name: str = ""
    progress: float = 0.0
    step: str = ""
    reason: str = ""
    message: str = ""
    pack: Pack | None = None
    asked: VersionSettings | None = None
    given: Given = Given()

    def made_by(self, build: "Build") -> "tuple[Pack | None, Build]":
        """The pack that a worker which makes `build` of most versions is given of this one, and
        what it is to make of it.
        """
        served = self.given.served.get(build.device_kind)
        if served is None:
            return self.pack, build
        return served.pack or self.pack, Build(served.variant, build.device_kind)

    def is_made_otherwise(self, replica: "Replica", build: "Build") -> bool:
        """Whether a replica on such a worker is of another pack or precision than is served."""
        pack, wanted = self.made_by(build)
        if pack is None or not replica.pack:
            return False
        if replica.pack != pack.digest:
            return True
        return not pack.backend and replica.precision not in ("", wanted.precision)

    def stands_for(self, build: "ModelVersion") -> bool:
        """Whether this row of a build is what another of its name is to become."""
        same = self.given.calibration == build.given.calibration
        return same and self.state is not VersionState.FAILED

    @property
    def off_standby(self) -> "ModelVersion":
        """Kept as normal if it was a hot standby, else as it is."""
        residency = self.given.residency
        if not residency.pins:
            return self
        normal = replace(residency, mode=ResidencyMode.NORMAL)
        return replace(self, given=replace(self.given, residency=normal))


class WantSource(StrEnum):
    ADMIN = "ADMIN"  # someone asked for it by LoadModel
    MISS = "MISS"  # a Detect found it nowhere
    PREFETCH = "PREFETCH"  # nobody yet, but likely soon: beside a device, where there is room


@dataclass(frozen=True, slots=True)
class Want:
    """Desired state of one version: on so many workers, since when, and for whom."""

    key: VersionKey
    replicas: int
    pinned: bool
    source: WantSource
    since_unix_s: float

    def following(self, old: "Want | None") -> "Want":
        """What is wanted once this is asked for, where `old` was before. A miss never lowers or
        unpins, and a prefetch changes nothing that anybody asked for.
        """
        if old is None:
            return self
        if self.source is WantSource.PREFETCH:
            return old
        if old.source is WantSource.PREFETCH:
            return self
        if self.source is WantSource.MISS:
            replicas = max(old.replicas, self.replicas)
            return replace(old, replicas=replicas, pinned=old.pinned or self.pinned)
        return replace(self, since_unix_s=old.since_unix_s)


@dataclass(frozen=True, slots=True)
class Desired:
    """All desired state at one revision of the store."""

    revision: int
    cluster: str
    versions: Mapping[VersionKey, ModelVersion]
    wants: Mapping[VersionKey, Want]
    # Workers that are to drain once their models are elsewhere: id -> incarnation.
    cordons: Mapping[str, str] = field(default_factory=dict)
    schedules: Mapping[str, "Schedule"] = field(default_factory=dict)
    # The highest number that each name ever had: a deleted one is not given again.
    numbers: Mapping[str, int] = field(default_factory=dict)
    # Drawn with the revision: a store that lost its last writes counts the same numbers again.
    mark: str = ""

    def is_cordoned(self, worker: "WorkerInfo") -> bool:
        """A new process of the same id is not."""
        return self.cordons.get(worker.id) == worker.incarnation

    def want(self, key: VersionKey) -> Want | None:
        """What is wanted of a version: asked for, or since it is kept as a hot standby."""
        want, version = self.wants.get(key), self.versions.get(key)
        if version is None or not version.given.residency.pins:
            return want
        if want is None:
            since = version.created_unix_s
            return Want(key, 1, pinned=True, source=WantSource.ADMIN, since_unix_s=since)
        return replace(want, pinned=True)

    def all_wants(self) -> dict[VersionKey, Want]:
        """`want` of every version of which something is wanted."""
        standby = [key for key, one in self.versions.items() if one.given.residency.pins]
        found = {key: self.want(key) for key in standby}
        return {**self.wants, **{key: want for key, want in found.items() if want is not None}}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Memory account of a device in bytes, as its worker reports it."""

    budget_bytes: int
    context_bytes: int = 0
    weights_bytes: int = 0
    workspace_bytes: int = 0
    graph_pool_bytes: int = 0
    backend_private_bytes: int = 0
    load_transient_bytes: int = 0
    measured_bytes: int = 0
    # As in types.proto: the tier beneath the device, and what is not the ledger's.
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


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes a replica takes on a device, and ms (0: not known) that bringing it there from host
    memory takes, and from the artifact store to host memory.
    """

    weights_bytes: int
    workspace_bytes: int
    private_bytes: int = 0
    max_batch: int = 0
    swap_ms: float = 0.0
    fetch_ms: float = 0.0

    @property
    def kept_bytes(self) -> int:
        """While it is on the device, whether it runs or not."""
        return self.weights_bytes + self.private_bytes

    @property
    def device_bytes(self) -> int:
        """While it runs, alone on the device."""
        return self.kept_bytes + self.workspace_bytes

    def differs(self, other: "Footprint | None") -> bool:
        """Whether the other is missing or more than a hundredth (times: a half) away."""
        if other is None or self.max_batch != other.max_batch:
            return True
        sizes = (
            (self.weights_bytes, other.weights_bytes),
            (self.workspace_bytes, other.workspace_bytes),
            (self.private_bytes, other.private_bytes),
        )
        times = ((self.swap_ms, other.swap_ms), (self.fetch_ms, other.fetch_ms))
        return any(abs(new - old) > 0.01 * old for new, old in sizes) or any(
            abs(new - old) > 0.5 * old for new, old in times
        )


# The variant that workers of a kind make where they say none.
VARIANTS = {"cpu": "torch/fp32", "cuda": "torch/fp32", "sim": "simulated/fp32"}


class Build(NamedTuple):
    """What a worker makes of a version: where these are equal, so are footprints."""

    variant: str  # backend/precision
    device_kind: str

    @property
    def precision(self) -> str:
        return self.variant.partition("/")[2]

    @classmethod
    def usual(cls, device_kind: str) -> "Build":
        return cls(VARIANTS.get(device_kind, ""), device_kind)


@dataclass(frozen=True, slots=True, order=True)
class FootprintKey:
    """What footprints are kept by: a pack (its digest), a variant, and a kind of device."""

    pack: str
    variant: str  # backend/precision
    device_kind: str

    @classmethod
    def of(cls, pack: str, build: Build) -> "FootprintKey":
        return cls(pack, *build)


@dataclass(frozen=True, slots=True)
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
    rates: Rates = NEVER
    queue_ms: float = 0.0
    busy: float = 0.0
    hot_since_unix_s: float = 0.0
    hits_total: int = 0
    batching: Batching | None = None

    @property
    def precision(self) -> str:
        return self.variant.partition("/")[2]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a worker said last of its queue."""

    outstanding: int = 0
    queue_capacity: int = 0
    estimated_wait_ms: float = 0.0
    sequence: int = 0
    passes_total: int = 0
    images_total: int = 0


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process, its lease and its inventory."""

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
    # Where its Infer calls go, in turns; empty: to `address`.
    io_addresses: tuple[str, ...] = ()
    # backend/precision, as it says itself.
    variant: str = ""

    @property
    def build(self) -> Build:
        """What it makes of a version."""
        return (
            Build(self.variant, self.device_kind) if self.variant else Build.usual(self.device_kind)
        )

    def is_live(self, now: float) -> bool:
        """Whether it may be given work at monotonic time `now` (seconds)."""
        return self.state is WorkerState.READY and now < self.lease_until_s


@dataclass(slots=True)
class Tickets:
    """Calls of this process to one replica, ahead of what its worker reports.

    `foreign` are tickets of others: what the worker reported beyond our own calls at the time.
    """

    outstanding: int = 0
    foreign: int = 0
    last_used_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a plan may look at. `failures` are loads that failed: when a retry is allowed;
    `footprints` are what workers measured; `unix_s` is the time of day that uses are told in.
    `tickets` are by worker and version; `departed` are arrivals of versions where they are held no
    more (monotonic); `unloaded` are versions that someone wanted nowhere; `closing` are those
    whose wants wait until a release is done.
    """

    desired: Desired
    workers: Mapping[str, WorkerInfo]
    failures: Mapping[tuple[str, VersionKey], "LoadFailure"] = field(default_factory=dict)
    footprints: Mapping[FootprintKey, Footprint] = field(default_factory=dict)
    unix_s: float = 0.0
    tickets: Mapping[tuple[str, VersionKey], Tickets] = field(default_factory=dict)
    departed: Mapping[VersionKey, Arrivals] = field(default_factory=dict)
    unloaded: Collection[VersionKey] = ()
    # Since when (Unix seconds) a version has waited for room, however young its want is.
    waiting: Mapping[VersionKey, float] = field(default_factory=dict)
    closing: Collection[VersionKey] = ()


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A load that failed on a worker: not tried again there before `retry_at_s` (monotonic)."""

    reason: str
    message: str
    retry_at_s: float
