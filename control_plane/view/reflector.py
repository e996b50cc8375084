"""Copies desired state from the registry into the view: all of it once, then each change.

It restores an emptied store from the view, or from the backup of the last process, and creates a
new one. A store with another cluster id wins: it is read and not written to.
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
# How long to wait for control planes with a newer backup: running ones, and ones that start too.
OTHERS_S, OTHERS_START_S = 1.0, 3.0


class Copy(Protocol):
    """The backup that the last process of this data directory kept."""

    def read(self) -> Desired | None: ...


class Reflector:
    """`run` does not return. While the store does not answer, the view keeps what it has.
    `restored` is called with a message if this process restored the store.
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
                # Perhaps a record of a newer release: the view stays as it is and serves.
                log.exception("the registry can't be read")
            await asyncio.sleep(RETRY_S)

    async def refresh(self) -> None:
        """Brings the view to the present revision. Raises RegistryUnavailable."""
        async with self._reading:
            view, changes = self._view, None
            if view.is_loaded:
                changes = await self._registry.desired_since(view.desired)
            elif self._copy is not None:
                await asyncio.to_thread(self._copy.read)  # so that it knows its cluster
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
                # A control plane without a backup created it before this one looked.
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
            self._view.expected = None  # no worker is recorded
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
