"""Keeps the view's desired state fresh: reads it anew after every change of the store."""

import asyncio

import structlog

from control_plane.registry import Registry
from control_plane.view import View
from yolopool.errors import RegistryUnavailable

log = structlog.get_logger()
RETRY_S = 0.5


class Watch:
    """Goes on for ever; while the store is away the view keeps what it had."""

    def __init__(self, registry: Registry, view: View) -> None:
        self._registry = registry
        self._view = view

    async def run(self) -> None:
        while True:
            try:
                await self._registry.open()
                async for _ in self._registry.changes():
                    await self._read()
            except RegistryUnavailable as error:
                self._lost(error)
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        desired = await self._registry.desired()
        if desired.cluster != self._view.desired.cluster:  # the first look, or an emptied store
            self._view.footprints.take(await self._registry.footprints())
        self._view.take_desired(desired)
        if not self._view.registry_available:
            self._view.registry_available = True
            log.info("registry available", cluster=self._view.desired.cluster)

    def _lost(self, error: RegistryUnavailable) -> None:
        if self._view.registry_available:
            self._view.registry_available = False
            log.error("registry lost: serving goes on, changes are refused", message=str(error))
