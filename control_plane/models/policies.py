"""Sets a version's labels, how it is kept on devices, where it may run, and how it is batched."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from control_plane.store.registry import Registry
from control_plane.types.desired import Want, WantSource
from control_plane.types.policy import BatchingConfig, Placement, Residency, ResidencyMode
from control_plane.types.version import ModelVersion, VersionKey, VersionState
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import VersionNotFound
from yolopool.server.clock import Clock


class Policies:
    """Every method returns the version as it is then. Raises VersionNotFound if it was deleted."""

    def __init__(self, registry: Registry, view: View, refresh: Refresh, clock: Clock) -> None:
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock

    async def set_residency(self, key: VersionKey, residency: Residency) -> ModelVersion:
        want = self._view.desired.want(key)
        ready = self._view.desired.versions[key].state is VersionState.READY
        if want is not None and ready and want.pinned and not residency.pins:
            # Any mode that does not pin ends a pin, whether a load or a hot standby set it. The
            # replicas stay until their memory is needed. The want is written first, so that the
            # version is wanted at every moment.
            now = self._clock.unix()
            await self._registry.want(
                Want(key, want.replicas, False, WantSource.ADMIN, since_unix_s=now)
            )
        version = _existing(key, await self._registry.set_residency(key, residency))
        await self._refresh()
        self._view.ask_again(key)
        return version

    async def end_standby(self, version: ModelVersion) -> ModelVersion:
        """Before an unload: as a hot standby the version would be loaded again at once."""
        residency = version.given.residency
        if not residency.pins:
            return version
        normal = replace(residency, mode=ResidencyMode.NORMAL)
        return await self.set_residency(version.key, normal)

    async def set_placement(self, key: VersionKey, placement: Placement) -> ModelVersion:
        version = _existing(key, await self._registry.set_placement(key, placement))
        await self._refresh()
        self._view.ask_again(key)
        return version

    async def set_labels(
        self, key: VersionKey, put: Mapping[str, str], drop: Collection[str]
    ) -> ModelVersion:
        version = _existing(key, await self._registry.set_labels(key, put, drop))
        await self._refresh()
        return version

    async def set_batching(
        self, key: VersionKey, device_kind: str, batching: BatchingConfig | None
    ) -> ModelVersion:
        """None: as the workers of this kind were started."""
        version = _existing(key, await self._registry.set_batching(key, device_kind, batching))
        await self._refresh()
        return version


def _existing(key: VersionKey, version: ModelVersion | None) -> ModelVersion:
    if version is None:
        raise VersionNotFound(f"{key} does not exist any more")
    return version
