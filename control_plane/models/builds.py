"""Builds of a version: rows of their own beside it, and which of them serves it where.

A build is registered, imported, placed and asked for like any version, by the name
`model+backend-precision-device_kind`; serving a version by it hands its pack over.
"""

from dataclasses import replace

from control_plane.clock import Clock
from control_plane.store.artifacts import FolderArtifacts
from control_plane.store.registry import Registry
from control_plane.types.version import (
    Drift,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionState,
    builds_of,
)
from control_plane.view.view import View
from yolopool.errors import ArtifactNotFound, InvalidOption, VersionNotFound
from yolopool.names import ModelRef, build_name
from yolopool.vocabulary import INT8, PRECISIONS, TORCH


class Builds:
    """`build` and `serve` raise what BuildModel and SetVariant say."""

    def __init__(
        self, registry: Registry, view: View, artifacts: FolderArtifacts, clock: Clock
    ) -> None:
        self._registry = registry
        self._view = view
        self._artifacts = artifacts
        self._clock = clock

    async def build(
        self, ref: ModelRef, backend: str, precision: str, device_kind: str, calibration: str = ""
    ) -> ModelVersion:
        """The row of a build: as it was made now, or before."""
        version = self._view.catalogue.ready(ref)
        check_build(version, backend, precision, device_kind, calibration)
        if calibration and not self._artifacts.has(calibration):
            raise ArtifactNotFound(f"artifact {calibration} is not in the store: upload it first")
        row = row_of(version, backend, precision, device_kind, calibration, self._clock.unix())
        made = await self._registry.add_build(row)
        if made is None:
            raise VersionNotFound(f"{version.key} does not exist any more")
        self._view.put_version(made)
        return made

    async def serve(
        self,
        ref: ModelRef,
        device_kind: str,
        variant: str,
        drift: Drift | None,
        unchecked: bool = False,
    ) -> ModelVersion:
        """The version, which this build (backend/precision; empty: none) serves from now on: in
        reduced precision where it was compared, and with `unchecked` everywhere.
        """
        version = self._view.catalogue.find(ref)
        _check_version(version)
        served = self._served(version, device_kind, variant) if variant else None
        if served is not None:
            served = replace(served, unchecked=unchecked)
            served = served.compared(drift) if drift is not None else served
        now = await self._registry.set_served(version.key, device_kind, served)
        if now is None:
            raise VersionNotFound(f"{version.key} does not exist any more")
        # What could not be loaded was of another build: it is tried at once.
        self._view.ask_again(version.key)
        self._view.put_version(now)
        return now

    def of(self, key: VersionKey) -> tuple[ModelVersion, ...]:
        """The builds of a version, by name."""
        versions = self._view.desired.versions
        return tuple(row for one in builds_of(key) if (row := versions.get(one)) is not None)

    def serving(self, row: ModelVersion) -> VersionKey | None:
        """The version that this build serves now, if it is one and does."""
        of = row.given.build_of
        version = self._view.desired.versions.get(of) if of is not None else None
        if version is None:
            return None
        kinds = row.given.served.items()
        now = version.given.served
        serves = any(kind in now and now[kind].variant == one.variant for kind, one in kinds)
        return of if serves else None

    def _served(self, version: ModelVersion, device_kind: str, variant: str) -> ServedBuild:
        """A build that is READY, with the checks on record of the same pack."""
        backend, _, precision = variant.partition("/")
        name = build_name(version.key.model, backend, precision, device_kind)
        row = self._view.desired.versions.get(VersionKey(name, version.key.number))
        if row is None:
            raise InvalidOption(
                f"{version.key} has no build {variant!r} for {device_kind}: make it first "
                "(BuildModel, or `yolopool models build`)"
            )
        ready = self._view.catalogue.ready(ModelRef(name, version.key.number))
        build = replace(ready.given.served[device_kind], pack=ready.pack)
        before = version.given.served.get(device_kind)
        same = before is not None and (before.variant, before.pack) == (variant, build.pack)
        return replace(build, checks=before.checks) if before is not None and same else build


def check_build(
    version: ModelVersion, backend: str, precision: str, device_kind: str, calibration: str
) -> None:
    """Raises InvalidOption where no such build can be made of the version."""
    _check_version(version)
    backends = PRECISIONS.get(device_kind)
    if backends is None:
        kinds = ", ".join(PRECISIONS)
        raise InvalidOption(f"device_kind {device_kind!r} is not built for: one of {kinds}")
    precisions = backends.get(backend)
    if precisions is None:
        raise InvalidOption(
            f"backend {backend!r} is not for {device_kind}: one of {', '.join(backends)}"
        )
    if precision not in precisions:
        raise InvalidOption(
            f"{backend} on {device_kind} computes in {', '.join(precisions)}, not {precision!r}"
        )
    if backend == TORCH and version.pack is not None and version.pack.backend:
        raise InvalidOption(f"{version.key} is an ONNX graph: torch does not run it")
    if (precision == INT8) != bool(calibration):
        raise InvalidOption(
            "int8 needs calibration: some hundred images like those that will be asked about"
            if precision == INT8
            else "calibration is of int8 alone: leave it out"
        )


def _check_version(version: ModelVersion) -> None:
    if version.given.build_of is not None:
        raise InvalidOption(f"{version.key} is a build itself: name {version.given.build_of}")


def row_of(
    version: ModelVersion,
    backend: str,
    precision: str,
    device_kind: str,
    calibration: str,
    now: float,
) -> ModelVersion:
    """A build that is to be made; READY at once where the version's own pack is what it takes."""
    pack = _own_pack(version, backend, precision)
    name = build_name(version.key.model, backend, precision, device_kind)
    return ModelVersion(
        VersionKey(name, version.key.number),
        VersionState.READY if pack is not None else VersionState.UPLOADED,
        version.artifact,
        version.settings,
        now,
        version.source_name,
        pack=pack,
        asked=version.settings,
        given=ServingSpec(
            architecture_yaml=version.given.architecture_yaml,
            class_names=version.given.class_names,
            placement=version.given.placement,
            batching=version.given.batching,
            served={device_kind: ServedBuild(backend, precision)},
            build_of=version.key,
            calibration=calibration,
        ),
    )


def _own_pack(version: ModelVersion, backend: str, precision: str) -> Pack | None:
    """A model of torch computes in any precision; a graph in the one that it was made for."""
    pack = version.pack
    if pack is None or (pack.backend or TORCH) != backend:
        return None
    return pack if not pack.backend or (pack.precision or "fp32") == precision else None
