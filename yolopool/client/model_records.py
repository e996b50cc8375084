"""Models, versions and their settings as frozen records for callers.

Each record has a function that reads it from its message; `dataclasses.asdict` gives its JSON.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from yolopool.client.gates.gate_records import (
    Gate,
    Validation,
    gate_of,
    state_of,
    validation_of,
)
from yolopool.client.metadata.registered import Registered, registered_of
from yolopool.v1 import model_pb2, types_pb2


def enum_word(enum: type, value: int, prefix: str) -> str:
    name: str = enum.Name(value)  # type: ignore[attr-defined] # protobuf's enum wrapper
    return name.removeprefix(prefix)


@dataclass(frozen=True, slots=True)
class Adaption:
    """How a worker runs a version that has a p99 goal: the largest batch and the delay that it
    adapted, and the p99 that it measured when it decided last (0: not yet).
    """

    max_batch: int
    max_delay_ms: float
    p99_ms: float
    is_out_of_reach: bool


@dataclass(frozen=True, slots=True)
class Replica:
    """A version that is assigned to a worker."""

    model: str
    worker: str
    device: str
    state: str
    variant: str
    pinned: bool
    weights_bytes: int
    workspace_bytes: int
    outstanding: int
    requests_total: int
    loads_total: int
    inference_ms: float
    load_ms: float
    swaps_total: int
    swap_ms: float
    reason: str
    message: str
    adaption: Adaption | None = None


@dataclass(frozen=True, slots=True)
class Residency:
    """How a version is kept once loaded; `mode` is normal, hot-standby or on-demand."""

    mode: str
    idle_release_s: float
    cpu_fallback: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a version may run: on workers of `pool` that have all `labels`, on at most
    `max_replicas` of them (0: no limit). `priority` is interactive, normal or bulk.
    """

    pool: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    max_replicas: int = 0
    priority: str = "normal"


@dataclass(frozen=True, slots=True)
class Batching:
    """How a version's images are batched on one kind of device.

    `max_batch` is the most images in a pass (0: as the worker was started). A batch is cut to the
    largest of `preferred_sizes` that the queue fills. The first image of a batch that is not full
    waits at most `max_delay_ms`. `queue_capacity` is the most requests queued at one worker (0: its
    own limit). `fixed` runs exactly `max_batch` images, padded with grey ones. `p99_goal_ms` is
    what 99 of 100 requests shall take at their worker (0: no goal): it adapts batch and delay.
    """

    max_batch: int = 0
    preferred_sizes: tuple[int, ...] = ()
    max_delay_ms: float = 0.0
    queue_capacity: int = 0
    fixed: bool = False
    p99_goal_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a build's results differ from those of the exact build (`exact`, backend/precision).

    On `images` images the exact build found `objects`; the build found `matched` of them again
    (same class, overlap of at least one half) and `extra` others. `largest_px` and
    `largest_confidence` are the largest differences of a side and of a confidence. The mean
    average precisions are COCO's and need labels. `compute_class` is that of the devices it was
    measured on; empty if it is not known.
    """

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
    exact: str = ""
    compute_class: str = ""

    @property
    def map_loss(self) -> float | None:
        """The loss of mAP50-95; None without labels."""
        if self.map50_95 is None or self.exact_map50_95 is None:
            return None
        return self.exact_map50_95 - self.map50_95


@dataclass(frozen=True, slots=True)
class ServedVariant:
    """The build (backend/precision) that serves a version on one kind of device.

    `drift` None: it was not compared with the exact build. In reduced precision it serves on the
    compute classes that it was `checked_on`; if `unchecked`, on all.
    """

    variant: str
    pack: str
    drift: Drift | None
    checked_on: tuple[str, ...] = ()
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version: what was registered, what is wanted of it, and where it is loaded.

    `name` is name@version; `state` is UPLOADED, IMPORTING, READY or FAILED. `image_height` and
    `image_width` are the most that an image is letterboxed to: a square of `image_size`, unless the
    version has a rectangle. `served` is the build
    that serves it, by kind of device; `builds` are all its builds. If it is a build itself,
    `build_of` names its version. `training` is what the file says about its training; `metadata`
    are the texts it was registered with, in answers of `model` alone. `validation`: how it did on
    the images of its model's gate; `gate_state`: PENDING, PASSED or FAILED, empty without a gate.
    `uri`: where the pool fetched its file, if nobody uploaded it.
    """

    name: str
    number: int
    state: str
    progress: float
    step: str
    reason: str
    message: str
    task: str
    class_names: tuple[str, ...]
    architecture: str
    image_size: int
    image_sizes: tuple[int, ...]
    image_height: int
    image_width: int
    confidence: float
    iou: float
    max_detections: int
    shape_policy: str
    head_mode: str
    weights_bytes: int
    parameters: int
    gflops: float
    artifact_bytes: int
    pack_bytes: int
    pack: str
    residency: Residency
    placement: Placement
    batching: Mapping[str, Batching]
    wanted_replicas: int
    pinned: bool
    replicas: tuple[Replica, ...]
    waiting_reason: str
    warnings: tuple[str, ...]
    artifact: str
    source_name: str
    created_unix_s: float
    served: Mapping[str, ServedVariant] = field(default_factory=dict)
    builds: "tuple[ModelVersion, ...]" = ()
    build_of: str = ""
    tried: tuple[str, ...] = ()
    training: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    signer: str = ""
    signed_comment: str = ""
    validation: Validation | None = None
    gate_state: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    registered: Registered = Registered()  # noqa: RUF009 - frozen
    uri: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Model:
    """A model with its versions, newest first. `default_version` 0: no version is READY."""

    name: str
    default_version: int
    versions: tuple[ModelVersion, ...]
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Changeover:
    """What a changeover did: the versions it loaded, and the names@versions it released."""

    prepared: tuple[ModelVersion, ...]
    released: tuple[str, ...]


def replica_of(message: types_pb2.Replica, worker: str, device: str) -> Replica:
    variant, version = message.variant, message.version
    return Replica(
        model=f"{version.model}@{version.version}",
        worker=worker,
        device=device,
        state=enum_word(types_pb2.ReplicaState, message.state, "REPLICA_STATE_"),
        variant=f"{variant.backend}/{variant.precision}/{variant.device_kind}",
        pinned=message.pinned,
        weights_bytes=message.weights_bytes,
        workspace_bytes=message.workspace_bytes,
        outstanding=message.outstanding,
        requests_total=message.requests_total,
        loads_total=message.loads_total,
        inference_ms=message.inference_ms,
        load_ms=message.load_ms,
        swaps_total=message.swaps_total,
        swap_ms=message.footprint.swap_ms,
        reason=message.reason,
        message=message.message,
        adaption=_adaption_of(message.adaption) if message.HasField("adaption") else None,
    )


def _adaption_of(message: types_pb2.Adaption) -> Adaption:
    return Adaption(
        message.max_batch, message.max_delay_ms, message.p99_ms, message.is_out_of_reach
    )


def residency_of(message: types_pb2.Residency) -> Residency:
    mode = enum_word(types_pb2.ResidencyMode, message.mode, "RESIDENCY_MODE_")
    words = "normal" if mode == "UNSPECIFIED" else mode.lower().replace("_", "-")
    return Residency(words, message.idle_release_s, message.cpu_fallback)


def placement_of(message: types_pb2.Placement) -> Placement:
    priority = enum_word(types_pb2.Priority, message.priority, "PRIORITY_").lower()
    return Placement(
        message.pool,
        dict(message.labels),
        message.max_replicas,
        "normal" if priority == "unspecified" else priority,
    )


def batching_of(message: types_pb2.Batching) -> Batching:
    return Batching(
        message.max_batch,
        tuple(message.preferred_sizes),
        message.max_delay_ms,
        message.queue_capacity,
        message.fixed,
        message.p99_goal_ms,
    )


def drift_of(message: types_pb2.Drift) -> Drift:
    return Drift(**{field.name: value for field, value in message.ListFields()})


def drift_to(drift: Drift) -> types_pb2.Drift:
    return types_pb2.Drift(**{name: getattr(drift, name) for name in Drift.__slots__})


def served_of(message: model_pb2.ServedVariant) -> ServedVariant:
    return ServedVariant(
        variant=f"{message.variant.backend}/{message.variant.precision}",
        pack=message.pack,
        drift=drift_of(message.drift) if message.HasField("drift") else None,
        checked_on=tuple(one.compute_class for one in message.checks),
        unchecked=message.unchecked,
    )


def version_of(message: model_pb2.ModelVersion) -> ModelVersion:
    settings = message.settings
    policy = enum_word(types_pb2.ShapePolicy, settings.shape_policy, "SHAPE_POLICY_")
    head = enum_word(types_pb2.HeadMode, settings.head_mode, "HEAD_MODE_")
    return ModelVersion(
        name=f"{message.version.model}@{message.version.version}",
        number=message.version.version,
        state=enum_word(model_pb2.VersionState, message.state, "VERSION_STATE_"),
        progress=message.progress,
        step=message.step,
        reason=message.reason,
        message=message.message,
        task=message.task,
        class_names=tuple(message.class_names),
        architecture=message.architecture,
        image_size=settings.image_size,
        image_sizes=tuple(settings.image_sizes),
        image_height=settings.image_height or settings.image_size,
        image_width=settings.image_width or settings.image_size,
        confidence=settings.confidence,
        iou=settings.iou,
        max_detections=settings.max_detections,
        shape_policy=policy.lower(),
        head_mode=head.lower().replace("_", "-"),
        weights_bytes=message.weights_bytes,
        parameters=message.parameters,
        gflops=message.gflops,
        artifact_bytes=message.artifact_bytes,
        pack_bytes=message.pack_bytes,
        pack=message.pack,
        residency=residency_of(message.residency),
        placement=placement_of(message.placement),
        batching={kind: batching_of(each) for kind, each in sorted(message.batching.items())},
        wanted_replicas=message.wanted_replicas,
        pinned=message.pinned,
        replicas=tuple(replica_of(p.replica, p.worker, p.device) for p in message.replicas),
        waiting_reason=message.waiting_reason,
        warnings=tuple(message.warnings),
        artifact=message.artifact,
        source_name=message.source_name,
        created_unix_s=message.created_unix_s,
        served={kind: served_of(each) for kind, each in sorted(message.served.items())},
        builds=tuple(version_of(build) for build in message.builds),
        build_of=f"{message.build_of.model}@{message.build_of.version}"
        if message.HasField("build_of")
        else "",
        tried=tuple(message.tried),
        training=dict(sorted(message.training.items())),
        metadata=dict(sorted(message.metadata.items())),
        signer=message.signer,
        signed_comment=message.signed_comment,
        validation=validation_of(message.validation) if message.HasField("validation") else None,
        gate_state=state_of(message.gate_state),
        labels=dict(sorted(message.labels.items())),
        registered=registered_of(message.registered),
        uri=message.uri,
        profile=message.profile,
    )


def changeover_of(message: model_pb2.ChangeoverResponse) -> Changeover:
    return Changeover(
        tuple(version_of(version) for version in message.prepared),
        tuple(f"{key.model}@{key.version}" for key in message.released),
    )


def model_of(message: model_pb2.Model) -> Model:
    versions = tuple(version_of(version) for version in message.versions)
    gate = gate_of(message.gate) if message.HasField("gate") else None
    return Model(message.name, message.default_version, versions, gate)


def models_of(message: model_pb2.ListModelsResponse) -> tuple[Model, ...]:
    return tuple(model_of(model) for model in message.models)


def names_of(keys: Iterable[types_pb2.VersionKey]) -> tuple[str, ...]:
    return tuple(f"{key.model}@{key.version}" for key in keys)
