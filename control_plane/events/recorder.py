"""The journal of what happens to the fleet: notes are taken at once and written when it can be.

Nobody waits for it and nothing fails by it: while the store is away the newest notes are kept.
"""

import asyncio
from collections import deque

import structlog

from control_plane.clock import Clock
from control_plane.store.registry import EventLog
from control_plane.types.event import Event, EventKind
from control_plane.types.version import VersionKey
from yolopool.errors import RegistryUnavailable

log = structlog.get_logger()

# Notes that wait for the store; of more the oldest are lost.
MOST_UNWRITTEN = 1000
RETRY_S = 0.5
_LONGEST_MESSAGE = 2000


class EventRecorder:
    """`name` is this control plane's in every event. `note` from the event loop only."""

    def __init__(
        self, name: str, registry: EventLog, clock: Clock, retry_s: float = RETRY_S
    ) -> None:
        self._name = name
        self._registry = registry
        self._clock = clock
        self._retry_s = retry_s
        self._unwritten: deque[Event] = deque(maxlen=MOST_UNWRITTEN)
        self._noted = asyncio.Event()

    def record(
        self,
        kind: EventKind,
        *,
        worker: str = "",
        version: VersionKey | None = None,
        reason: str = "",
        message: str = "",
        image: str = "",
    ) -> None:
        """Takes an event of now down; never blocks, never raises.

        Call it where it is done, or where this control plane decides: others hear the same.
        """
        message = message[:_LONGEST_MESSAGE]
        now = self._clock.unix()
        event = Event(kind, now, worker, version, reason, message, self._name, image)
        self._unwritten.append(event)
        self._noted.set()

    async def run(self) -> None:
        """Goes on for ever: writes what is noted, oldest first."""
        while True:
            await self._noted.wait()
            self._noted.clear()
            try:
                await self.flush()
            except RegistryUnavailable:
                self._noted.set()
                await asyncio.sleep(self._retry_s)

    async def flush(self) -> None:
        """Writes all that is noted. Raises RegistryUnavailable, and keeps what was not written.

        One whose answer was lost is written twice.
        """
        while self._unwritten:
            event = self._unwritten[0]
            try:
                await self._registry.append_event(event)
            except RegistryUnavailable:
                raise
            except Exception:
                # It would fail for ever, and all behind it.
                log.exception("an event can't be written: this is a bug", kind=event.kind)
            # A flood may have pushed it out meanwhile.
            if self._unwritten and self._unwritten[0] is event:
                self._unwritten.popleft()
