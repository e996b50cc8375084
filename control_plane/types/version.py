"""A version of a model: its key, state, settings, pack and the variants it is built in. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from control_plane.types.compute_class import EXACT_PRECISION, computes_alike
from control_plane.types.policy import BatchingConfig, Placement, Residency, ResidencyMode
from yolopool.names import build_name, is_build
from yolopool.vocabulary import (
    PRECISIONS,
    VARIANTS,
    HeadMode,
    OutputLayout,
    ShapePolicy,
)


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


class VersionState(StrEnum):
    UPLOADED = "UPLOADED"  # waits for an importer
    IMPORTING = "IMPORTING"  # an importer holds its lease
    READY = "READY"  # can be loaded
    FAILED = "FAILED"  # reason says why; terminal


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
    compute_class: str = ""


@dataclass(frozen=True, slots=True)
class ServedBuild:
    """The build that serves a version on one kind of device. `pack` None: the version's own;
    `drift` is of the last comparison, None: it was not compared. `checks` has comparisons by the
    compute class that they ran on; `unchecked`: it serves on others too.
    """

    backend: str
    precision: str
    pack: "Pack | None" = None
    drift: Drift | None = None
    checks: Mapping[str, Drift] = field(default_factory=dict)
    unchecked: bool = False

    def serves_on(self, compute_class: str) -> bool:
        """Whether it was compared on such devices, or on those that compute alike."""
        return (
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

    @property
    def variant(self) -> str:
        return f"{self.backend}/{self.precision}"


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """What a registration gives beside file and settings: how and where the version is kept and,
    of a file of weights alone, the YAML text of its architecture and its class names.

    `served` are builds by kind of device. A row that is itself a build (of the version `build_of`)
    has one, and runs on that kind alone; `calibration` is the SHA-256 of the images it is made by.
    """

    residency: Residency = field(default_factory=Residency)
    architecture_yaml: str = ""
    class_names: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    # By kind of device; none: the workers' own.
    batching: Mapping[str, BatchingConfig] = field(default_factory=dict)
    served: Mapping[str, ServedBuild] = field(default_factory=dict)
    build_of: VersionKey | None = None
    calibration: str = ""

    def runs_on(self, device_kind: str) -> bool:
        """Whether a worker on such a device can make anything of it."""
        return self.build_of is None or device_kind in self.served

    def served_by(self, device_kind: str, served: ServedBuild | None) -> "ServingSpec":
        """With another build on a kind of device; None: what its workers make of the version."""
        others = {kind: one for kind, one in self.served.items() if kind != device_kind}
        more = {device_kind: served} if served is not None else {}
        return replace(self, served={**others, **more})

    def batched(self, device_kind: str, batching: BatchingConfig | None) -> "ServingSpec":
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
    given: ServingSpec = ServingSpec()

    def made_by(self, build: "DeviceVariant") -> "tuple[Pack | None, DeviceVariant]":
        """The pack that a worker which makes `build` of most versions is given of this one, and
        what it is to make of it.
        """
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


class DeviceVariant(NamedTuple):
    """What a worker makes of a version: where these are equal, so are footprints."""

    variant: str  # backend/precision
    device_kind: str
    compute_class: str = ""  # empty: not known

    @property
    def precision(self) -> str:
        return self.variant.partition("/")[2]

    @classmethod
    def usual(cls, device_kind: str) -> "DeviceVariant":
        return cls(VARIANTS.get(device_kind, ""), device_kind)
