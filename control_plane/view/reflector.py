"""Keeps the view's desired state fresh: everything once, then what each change touched.

An emptied store is restored from what this process knows of it, or what its last one kept; a new
one is created. A store that holds another cluster is right: nothing is written to it.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from control_plane.store.registry import Registry
from control_plane.types.desired import Desired
from control_plane.view.view import View
from yolopool.errors import RegistryUnavailable

log = structlog.get_logger()
RETRY_S = 0.5
# For others to say that they have a later copy: at once where they run, else once they start too.
OTHERS_S, OTHERS_START_S = 1.0, 3.0


class Copy(Protocol):
    """What the last process of this data directory kept."""

    def read(self) -> Desired | None: ...


class Reflector:
    """Goes on for ever; while the store is away the view keeps what it had. `restored` is told of
    a restoration that was this one's.
    """

    def __init__(
        self,
        registry: Registry,
        view: View,
        copy: Copy | None,
        restored: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._view = view
        self._copy = copy
        self._restored = restored
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        while True:
            try:
                if not await self._registry.open():
                    await self._fill()
                async for _ in self._registry.changes():
                    await self.refresh()
            except RegistryUnavailable as error:
                self._lost(error)
            except Exception:
                # Perhaps a record of a newer release: what is known here stays, and serves.
                log.exception("the registry can't be read")
            await asyncio.sleep(RETRY_S)

    async def refresh(self) -> None:
        """Brings the view to the present revision. Raises RegistryUnavailable."""
        async with self._reading:
            view, changes = self._view, None
            if view.is_loaded:
                changes = await self._registry.desired_since(view.desired)
            elif self._copy is not None:
                await asyncio.to_thread(self._copy.read)  # knows then whose it is
            if changes is None:
                await self._read_all()
            elif changes.revision != view.desired.revision:
                view.take_changes(changes)
            if not view.registry_available:
                view.registry_available = True
                log.info("registry available", cluster=view.desired.cluster)

    async def _read_all(self) -> None:
        view, desired = self._view, await self._registry.desired()
        if view.is_loaded and desired.cluster != view.desired.cluster:
            if desired.revision == 0:
                # One that began anew created it before one that knew better looked.
                await self._restore(view.frozen_desired(), OTHERS_S)
                desired = await self._registry.desired()
            else:
                log.error(
                    "THE STORE IS ANOTHER ONE, AND IS WRITTEN TO: what it holds is right now",
                    was=view.desired.cluster,
                    store=desired.cluster,
                )
        view.footprints.take(await self._registry.footprints())
        view.take_desired(desired)

    async def _fill(self) -> None:
        copy, wait_s = None, OTHERS_START_S
        if self._view.is_loaded:
            copy, wait_s = self._view.frozen_desired(), OTHERS_S
        elif self._copy is not None:
            copy = await asyncio.to_thread(self._copy.read)
        if copy is not None:
            await self._restore(copy, wait_s)
        else:
            log.info("a new store", cluster=await self._registry.create())

    async def _restore(self, copy: Desired, wait_s: float) -> None:
        if await self._registry.restore(copy, self._view.highest_token, wait_s):
            self._view.expected = None  # nothing is on record of the workers
            message = (
                f"the store was emptied: restored from the copy of revision {copy.revision}, with "
                f"{len(copy.versions)} versions and {len(copy.wants)} wants"
            )
            log.warning("THE STORE WAS EMPTIED AND IS RESTORED", message=message)
            self._restored(message)

    def _lost(self, error: RegistryUnavailable) -> None:
        if self._view.registry_available:
            self._view.registry_available = False
            log.error("registry lost: serving goes on, changes are refused", message=str(error))
