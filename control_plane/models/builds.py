"""Builds of a version for other backends and precisions, and which build serves it where.

A build is a version of its own, named `model+backend-precision-device_kind`: it is registered,
imported, placed and called like any other. To serve a version by a build is to give it the build's
pack.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from control_plane.store.files.artifacts import FolderArtifacts
from control_plane.store.registry import DesiredState
from control_plane.types.version import (
    DeviceVariant,
    Drift,
    ModelVersion,
    Pack,
    ServedBuild,
    ServingSpec,
    VersionKey,
    VersionState,
    builds_of,
)
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import ArtifactNotFound, InvalidOption, VersionNotFound
from yolopool.names import ModelRef, build_name
from yolopool.server.clock import Clock
from yolopool.vocabulary import INT8, PRECISIONS, TORCH, can_compute


class Builds:
    """`build` and `serve` raise what the protos say of BuildModel and SetVariant."""

    def __init__(
        self,
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        artifacts: FolderArtifacts,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._artifacts = artifacts
        self._clock = clock

    async def build(
        self, ref: ModelRef, backend: str, precision: str, device_kind: str, calibration: str = ""
    ) -> ModelVersion:
        """The build, new or as an earlier call made it."""
        version = self._view.catalogue.ready(ref)
        check_build(version, backend, precision, device_kind, calibration)
        if calibration and not self._artifacts.touch(calibration):
            raise ArtifactNotFound(f"artifact {calibration} is not in the store: upload it first")
        pack = own_pack(version, backend, precision)
        if pack is not None and not await asyncio.to_thread(self._artifacts.is_whole, pack.digest):
            pack = None  # an import mends it
        now = self._clock.unix()
        build = build_of(version, backend, precision, device_kind, calibration, pack, now)
        added = await self._registry.add_build(build)
        if added is None:
            raise VersionNotFound(f"{version.key} does not exist any more")
        await self._refresh()
        return added

    async def serve(
        self,
        ref: ModelRef,
        device_kind: str,
        variant: str,
        drift: Drift | None,
        unchecked: bool = False,
    ) -> ModelVersion:
        """Serves a version by a build (`variant`: backend/precision; empty: by none of them): in
        reduced precision where it was compared, with `unchecked` on every compute class that can
        run it.
        """
        version = self._view.catalogue.find(ref)
        _check_version(version)
        served = self._served(version, device_kind, variant) if variant else None
        if served is not None:
            workers = self._view.workers.values()
            check_runs(served, device_kind, [worker.build for worker in workers])
            served = replace(served, unchecked=unchecked)
        updated = await self._registry.set_served(version.key, device_kind, served, drift)
        if updated is None:
            raise VersionNotFound(f"{version.key} does not exist any more")
        await self._refresh()
        # An earlier failure to load was another build's: the back-off does not hold for this one.
        self._view.ask_again(version.key)
        return updated

    def of(self, key: VersionKey) -> tuple[ModelVersion, ...]:
        """The builds of a version, sorted by name."""
        versions = self._view.desired.versions
        keys = builds_of(key)
        return tuple(build for of in keys if (build := versions.get(of)) is not None)

    def serving(self, build: ModelVersion) -> VersionKey | None:
        """The version that this build serves now; None also if it is no build."""
        of = build.given.build_of
        version = self._view.desired.versions.get(of) if of is not None else None
        if version is None:
            return None
        served = version.given.served
        serves = any(
            kind in served and served[kind].variant == own.variant
            for kind, own in build.given.served.items()
        )
        return of if serves else None

    def _served(self, version: ModelVersion, device_kind: str, variant: str) -> ServedBuild:
        """A build that is READY."""
        backend, _, precision = variant.partition("/")
        name = build_name(version.key.model, backend, precision, device_kind)
        if VersionKey(name, version.key.number) not in self._view.desired.versions:
            raise InvalidOption(
                f"{version.key} has no build {variant!r} for {device_kind}: make it first "
                "(BuildModel, or `yolopool models build`)"
            )
        ready = self._view.catalogue.ready(ModelRef(name, version.key.number))
        return ServedBuild(backend, precision, ready.pack)


def check_runs(served: ServedBuild, device_kind: str, workers: Iterable[DeviceVariant]) -> None:
    """Raises InvalidOption if there are workers of this kind, and none can run the build."""
    classes = {worker.compute_class for worker in workers if worker.device_kind == device_kind}
    if classes and not any(can_compute(served.variant, found) for found in classes):
        raise InvalidOption(
            f"no {device_kind} worker of the pool computes {served.variant} (they are "
            f"{', '.join(sorted(classes))}), so nothing was changed: serve it by another build, or "
            "add workers whose processor does"
        )


def check_build(
    version: ModelVersion, backend: str, precision: str, device_kind: str, calibration: str
) -> None:
    """Raises InvalidOption if the version can't be built so."""
    _check_version(version)
    backends = PRECISIONS.get(device_kind)
    if backends is None:
        kinds = ", ".join(PRECISIONS)
        raise InvalidOption(f"device_kind {device_kind!r} has no builds: give one of {kinds}")
    precisions = backends.get(backend)
    if precisions is None:
        raise InvalidOption(
            f"backend {backend!r} does not run on {device_kind}: give one of {', '.join(backends)}"
        )
    if precision not in precisions:
        raise InvalidOption(
            f"{backend} on {device_kind} computes in {', '.join(precisions)}, not {precision!r}"
        )
    if backend == TORCH and version.pack is not None and version.pack.backend:
        raise InvalidOption(f"{version.key} is an ONNX graph: torch does not run it")
    if (precision == INT8) != bool(calibration):
        raise InvalidOption(
            "int8 needs calibration: upload some hundred images like those of later requests"
            if precision == INT8
            else "only int8 takes calibration: leave it out"
        )


def _check_version(version: ModelVersion) -> None:
    if version.given.build_of is not None:
        raise InvalidOption(f"{version.key} is a build: name its version {version.given.build_of}")


def build_of(
    version: ModelVersion,
    backend: str,
    precision: str,
    device_kind: str,
    calibration: str,
    pack: Pack | None,
    now: float,
) -> ModelVersion:
    """A build to import; it is READY at once with a pack, which is the version's own."""
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
            renamed=version.given.renamed,
            placement=version.given.placement,
            batching=version.given.batching,
            served={device_kind: ServedBuild(backend, precision)},
            build_of=version.key,
            calibration=calibration,
            signature=version.given.signature,
            signer=version.given.signer,
        ),
    )


def own_pack(version: ModelVersion, backend: str, precision: str) -> Pack | None:
    """The version's pack, if this build can use it.

    A torch pack runs in any precision, a graph only in the precision it was made for.
    """
    pack = version.pack
    if pack is None or (pack.backend or TORCH) != backend:
        return None
    return pack if not pack.backend or (pack.precision or "fp32") == precision else None
