"""Records events: keeps them at once, and writes them to the store when it can.

Nobody waits for the store and no call fails because of it: while it is away the newest events are
kept.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from control_plane.store.protocols.observed_state import EventLog
from control_plane.types.event import Event, EventKind
from control_plane.types.version import VersionKey
from yolopool.errors import RegistryUnavailable
from yolopool.server.clock import Clock

log = structlog.get_logger()

# Events that wait for the store; beyond that the oldest are lost.
MAX_UNWRITTEN = 1000
RETRY_S = 0.5
_MAX_MESSAGE_CHARS = 2000


class EventRecorder:
    """`name` is this control plane's in every event; `counted` is called with kind and reason of
    each. Call `record` from the event loop only.
    """

    def __init__(
        self,
        name: str,
        registry: EventLog,
        clock: Clock,
        retry_s: float = RETRY_S,
        counted: Callable[[str, str], None] = lambda kind, reason: None,
    ) -> None:
        self._name = name
        self._registry = registry
        self._clock = clock
        self._retry_s = retry_s
        self._counted = counted
        self._unwritten: deque[Event] = deque(maxlen=MAX_UNWRITTEN)
        self._pending = asyncio.Event()

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
        """Records an event of now; never blocks, never raises.

        Call it where the thing is done, or in the leader: all control planes observe the same.
        """
        message = message[:_MAX_MESSAGE_CHARS]
        now = self._clock.unix()
        event = Event(kind, now, worker, version, reason, message, self._name, image)
        self._unwritten.append(event)
        self._counted(kind, reason)
        self._pending.set()

    async def run(self) -> None:
        """Runs until cancelled: writes the events, oldest first."""
        while True:
            await self._pending.wait()
            self._pending.clear()
            try:
                await self.flush()
            except RegistryUnavailable:
                self._pending.set()
                await asyncio.sleep(self._retry_s)

    async def flush(self) -> None:
        """Writes all events. Raises RegistryUnavailable, and keeps what was not written.

        An event whose reply was lost is written twice.
        """
        while self._unwritten:
            event = self._unwritten[0]
            try:
                await self._registry.append_event(event)
            except RegistryUnavailable:
                raise
            except Exception:
                # It would fail for ever, and block all events behind it.
                log.exception("an event can't be written: this is a bug", kind=event.kind)
            # New events may have pushed it out meanwhile.
            if self._unwritten and self._unwritten[0] is event:
                self._unwritten.popleft()
