"""A version of a model: its key, state, settings, pack and builds. Pure and frozen."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from control_plane.types.policy import (
    BatchingConfig,
    Placement,
    Residency,
    ResidencyMode,
    Validation,
)
from control_plane.types.sources.source import Source
from yolopool.labels import check_labels
from yolopool.names import build_name, is_build
from yolopool.vocabulary import (
    EXACT_PRECISION,
    PRECISIONS,
    VARIANTS,
    HeadMode,
    OutputLayout,
    ShapePolicy,
    can_compute,
    computes_alike,
)


class VersionKey(NamedTuple):
    """One immutable version, printed as `team/shapes@3`. A tuple, since a plan looks up tens of
    thousands.
    """

    model: str
    number: int

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


def builds_of(key: VersionKey) -> tuple[VersionKey, ...]:
    """Keys of all builds that a version can have; a build has none."""
    if is_build(key.model):
        return ()
    names = (
        build_name(key.model, backend, precision, kind)
        for kind, backends in PRECISIONS.items()
        for backend, precisions in backends.items()
        for precision in precisions
    )
    return tuple(VersionKey(name, key.number) for name in sorted(names))


class VersionState(StrEnum):
    UPLOADED = "UPLOADED"  # its file is being fetched, or waits for an importer
    IMPORTING = "IMPORTING"  # an importer holds its lease
    READY = "READY"  # can be loaded
    FAILED = "FAILED"  # reason says why; terminal


@dataclass(frozen=True, slots=True)
class VersionSettings:
    """How a version computes its answers; None or 0: the import fills it in."""

    image_size: int = 0
    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    shape_policy: ShapePolicy | None = None
    head_mode: HeadMode | None = None
    output_layout: OutputLayout | None = None
    # Further sizes that a request may ask for.
    image_sizes: tuple[int, ...] = ()
    # A rectangle in place of a square of image_size, its longer side: both or none.
    image_height: int = 0
    image_width: int = 0

    @property
    def largest_image(self) -> int:
        """The longest side that memory is reserved for; 0: not known yet."""
        return max(self.image_size, *self.image_sizes, 0)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the answers of one build are from those of another; see types.proto."""

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
    compute_class: str = ""


@dataclass(frozen=True, slots=True)
class ServedBuild:
    """The build that serves a version on one kind of device. `pack` None: the version's own pack;
    `drift` is of the last comparison, None: not compared. `checks` are comparisons by the compute
    class that they ran on; an `unchecked` build serves on every class.
    """

    backend: str
    precision: str
    pack: "Pack | None" = None
    drift: Drift | None = None
    checks: Mapping[str, Drift] = field(default_factory=dict)
    unchecked: bool = False

    @property
    def serves_nowhere(self) -> bool:
        """Whether it was compared on no known class, as what a release set that knew none."""
        return not (self.unchecked or self.precision == EXACT_PRECISION or self.checks)

    def serves_on(self, compute_class: str) -> bool:
        """Whether such devices can run it, and it was compared on them or on those that compute
        alike.
        """
        return can_compute(self.variant, compute_class) and (
            self.unchecked
            or self.precision == EXACT_PRECISION
            or any(
                computes_alike(self.precision, checked, compute_class) for checked in self.checks
            )
        )

    def drift_on(self, compute_class: str) -> Drift | None:
        """How far its answers from such a device are from the exact ones, if that was compared."""
        if self.precision == EXACT_PRECISION:
            return self.checks.get(compute_class, self.drift)
        return self.checks.get(compute_class)

    def compared(self, drift: Drift) -> "ServedBuild":
        """With one more comparison, which counts where its compute class is known."""
        found = {drift.compute_class: drift} if drift.compute_class else {}
        return replace(self, drift=drift, checks={**self.checks, **found})

    def recalling(self, earlier: "ServedBuild | None") -> "ServedBuild":
        """With the comparisons on record of an earlier one, if that is the same build and pack."""
        if earlier is None or (earlier.variant, earlier.pack) != (self.variant, self.pack):
            return self
        drift = self.drift if self.drift is not None else earlier.drift
        return replace(self, drift=drift, checks={**earlier.checks, **self.checks})

    @property
    def variant(self) -> str:
        return f"{self.backend}/{self.precision}"


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """How a version is to be served: policies and builds; and for a file that has weights only, the
    YAML text of its architecture and its class names. `renamed`: other names for some of a file's
    own classes, by class id; `metadata`: texts by file name, for people. `signature`: text of the
    .minisig of the artifact that was checked, `signer` whose it is; `registered_by`: who called.
    `source`: where the pool fetches the file, if nobody uploads it.

    `served`: builds by kind of device. A row that is itself a build (of the version `build_of`) has
    one entry, which keeps its comparisons, and runs on that kind alone; `calibration` is the
    SHA-256 of its calibration images.
    """

    residency: Residency = field(default_factory=Residency)
    architecture_yaml: str = ""
    class_names: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    # By kind of device; without an entry the worker's default.
    batching: Mapping[str, BatchingConfig] = field(default_factory=dict)
    served: Mapping[str, ServedBuild] = field(default_factory=dict)
    build_of: VersionKey | None = None
    calibration: str = ""
    renamed: Mapping[int, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    signature: str = ""
    signer: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    registered_by: str = ""
    source: Source | None = None

    def runs_on(self, device: "DeviceVariant") -> bool:
        """Whether a worker of this kind and compute class can load it."""
        if self.build_of is None:
            return True
        made = self.served.get(device.device_kind)
        return made is not None and can_compute(made.variant, device.compute_class)

    def served_by(self, device_kind: str, served: ServedBuild | None) -> "ServingSpec":
        """With another build on a kind of device; None: the default variant of its workers."""
        others = {kind: build for kind, build in self.served.items() if kind != device_kind}
        more = {device_kind: served} if served is not None else {}
        return replace(self, served={**others, **more})

    def labelled(self, put: Mapping[str, str], drop: Collection[str]) -> "ServingSpec":
        """With labels set and others taken away. Raises InvalidOption for too many."""
        kept = {name: value for name, value in self.labels.items() if name not in drop}
        return replace(self, labels=check_labels({**kept, **put}))

    def batched(self, device_kind: str, batching: BatchingConfig | None) -> "ServingSpec":
        """With other batching on a kind of device; None: the workers' default."""
        others = {kind: config for kind, config in self.batching.items() if kind != device_kind}
        more = {device_kind: batching} if batching is not None else {}
        return replace(self, batching={**others, **more})


@dataclass(frozen=True, slots=True)
class Pack:
    """The registry's record of an imported, load-ready pack."""

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
    # Of an ONNX graph, whose precision is fixed; empty: torch.
    backend: str = ""
    precision: str = ""
    # Of an ONNX graph: what the import tried on pictures.
    tried: tuple[str, ...] = ()
    # What a checkpoint says about its training.
    training: Mapping[str, str] = field(default_factory=dict)


class Imported(NamedTuple):
    """What an import makes of an artifact: the pack, and the settings resolved."""

    pack: Pack
    settings: VersionSettings


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version as registered, with the state of its import.

    `settings` are resolved by the import; `asked` are those given at registration. `validation`:
    how it did on the images of its model's gate.
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
    given: ServingSpec = ServingSpec()
    validation: Validation | None = None

    @property
    def is_fetching(self) -> bool:
        """Whether its file is not there yet. An earlier release sees an UPLOADED version that no
        importer is given.
        """
        return self.state is VersionState.UPLOADED and not self.artifact

    def made_by(self, build: "DeviceVariant") -> "tuple[Pack | None, DeviceVariant]":
        """The pack and the variant for a worker whose default variant is `build`."""
        served = self.given.served.get(build.device_kind)
        if served is None or self.unchecked_on(build) is not None:
            return self.pack, build
        made = DeviceVariant(served.variant, build.device_kind, build.compute_class)
        return served.pack or self.pack, made

    def unchecked_on(self, build: "DeviceVariant") -> ServedBuild | None:
        """The build that does not serve this version on such devices, though it does on others of
        their kind. A row that is a build itself runs on all of them: else none could be checked.
        """
        served = self.given.served.get(build.device_kind)
        if served is None or self.given.build_of is not None:
            return None
        return None if served.serves_on(build.compute_class) else served

    @property
    def serving_nowhere(self) -> tuple[tuple[str, ServedBuild], ...]:
        """The builds, by kind of device, that were set to serve this version and serve nowhere."""
        served = () if self.given.build_of is not None else self.given.served.items()
        return tuple((kind, build) for kind, build in served if build.serves_nowhere)

    def stands_for(self, build: "ModelVersion") -> bool:
        """Whether this row is the build that `build` asks for, and has not failed."""
        same = self.given.calibration == build.given.calibration
        return same and self.state is not VersionState.FAILED

    @property
    def off_standby(self) -> "ModelVersion":
        """With normal residency if it was a hot standby, else unchanged."""
        residency = self.given.residency
        if not residency.pins:
            return self
        normal = replace(residency, mode=ResidencyMode.NORMAL)
        return replace(self, given=replace(self.given, residency=normal))


class DeviceVariant(NamedTuple):
    """The variant that a worker loads, and its kind of device: both determine the footprint."""

    variant: str  # backend/precision
    device_kind: str
    compute_class: str = ""  # empty: not known

    @property
    def precision(self) -> str:
        return self.variant.partition("/")[2]

    @classmethod
    def usual(cls, device_kind: str) -> "DeviceVariant":
        return cls(VARIANTS.get(device_kind, ""), device_kind)
