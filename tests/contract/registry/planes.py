"""Parts of control planes on one real Redis: the registry, the view that follows it and the copy on
disk, with nothing else around them.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.store.backup import DesiredBackup
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.types.desired import Desired
from control_plane.view.reflector import Reflector
from control_plane.view.view import View
from yolopool.server.clock import Clock

CLOCK = Clock(lambda: 0.0, lambda: 1.0)
CANCELLATIONS = 200


async def ended(task: asyncio.Task[None]) -> None:
    """Cancels a task until it ends: the library may mistake a cancellation for a failed connection,
    and what asks again then goes on for ever.
    """
    for _ in range(CANCELLATIONS):
        task.cancel()
        if (await asyncio.wait([task], timeout=0.05))[0]:
            return
    raise AssertionError(f"{task} does not end")


@dataclass
class Plane:
    """One process after the other with the same data directory. `start` it first."""

    url: str
    folder: Path
    restored: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.registry = RedisRegistry(self.url)
        self.view = View(CLOCK)
        self.copy = DesiredBackup(self.folder / "copy.jsonl", CLOCK)
        self.reflector = Reflector(self.registry, self.view, self.copy, self.restored.append)
        self._task = asyncio.create_task(self.reflector.run())

    async def kill(self) -> None:
        """Ends it without a last word: the copy stays as it is."""
        if self._task is None:
            return
        await ended(self._task)
        self._task = None
        await self.registry.close()

    async def keep(self) -> None:
        """Writes the copy, as the process does every two seconds."""
        if self.view.is_loaded:
            await self.copy.keep_now(self.view.frozen_desired())

    def on_disk(self) -> Desired | None:
        return DesiredBackup(self.folder / "copy.jsonl", CLOCK).read()

    async def shows(self, desired: Desired) -> None:
        """Waits until the view shows a state of the store."""
        while not self.view.registry_available or self.view.desired != desired:
            seen = self.view.waiters.changes
            with suppress(TimeoutError):
                await self.view.waiters.after(seen, 0.02)

    def says_lost(self) -> bool:
        """Whether it says that a part of the store is lost, and goes on without it."""
        return not self.view.registry_readable and "lost" in self.view.unread_because
