"""Pre-loads the models of `--load`: wants and pins each of them once, as soon as it is READY."""

import structlog

from control_plane.store.registry import DesiredState
from control_plane.types.desired import Want, WantSource
from control_plane.view.reflector import Refresh
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable, YolopoolError
from yolopool.names import ModelRef, parse_ref
from yolopool.server.clock import Clock

log = structlog.get_logger()

RETRY_S = 5.0


class Preloader:
    """`references`: as callers name models. It waits for a model that does not exist yet."""

    def __init__(
        self,
        references: tuple[str, ...],
        registry: DesiredState,
        view: View,
        refresh: Refresh,
        clock: Clock,
    ) -> None:
        self._left = list(dict.fromkeys(parse_ref(reference) for reference in references))
        self._registry = registry
        self._view = view
        self._refresh = refresh
        self._clock = clock
        self._logged: set[tuple[ModelRef, str]] = set()

    async def run(self) -> None:
        """Ends when each model was wanted; later changes to the want are left alone."""
        while self._left:
            seen = self._view.waiters.changes
            if self._view.is_loaded:
                await self.step()
            await self._view.waiters.after(seen, RETRY_S)

    async def step(self) -> None:
        for ref in list(self._left):
            try:
                await self._want(ref)
                self._left.remove(ref)
            except RegistryUnavailable:
                return
            except YolopoolError as error:
                if (ref, error.reason) not in self._logged:
                    self._logged.add((ref, error.reason))
                    log.info("a model to pre-load is not ready", model=str(ref), why=error.message)

    async def _want(self, ref: ModelRef) -> None:
        self._view.catalogue.ready(ref)
        for key in [version.key for version in self._view.catalogue.meant(ref)]:
            old = self._view.desired.want(key)
            replicas = old.replicas if old is not None else 1
            want = Want(key, replicas, True, WantSource.ADMIN, self._clock.unix())
            if await self._registry.want(want) is not None:
                await self._refresh()
                log.info("a model is pre-loaded", version=str(key))
