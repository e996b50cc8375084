"""EventService: what is kept of the events, then those to come, until the caller leaves."""

import asyncio
from collections.abc import AsyncIterator

from control_plane.caller import CallContext
from control_plane.convert.events import check_id, event_out, wanted_in
from control_plane.store.registry import EventLog
from control_plane.types.event import Event
from yolopool.errors import ResourceExhausted
from yolopool.v1 import events_pb2, events_pb2_grpc

# How long a stream may go on after `close`: less than open calls are given at a stop.
WAIT_S = 1.0
# Reads at one time that wait for different events; each holds a connection to the store.
MOST_READS = 32


class EventService(events_pb2_grpc.EventServiceServicer):
    """All who have seen the same wait for the next by one read."""

    def __init__(self, registry: EventLog) -> None:
        self._registry = registry
        self._reads: dict[str, asyncio.Task[tuple[Event, ...]]] = {}
        self._closing = False

    async def WatchEvents(
        self, request: events_pb2.WatchEventsRequest, context: CallContext
    ) -> AsyncIterator[events_pb2.Event]:
        wanted, after = wanted_in(request), check_id(request.after)
        # Of those that are wanted, so that others are not counted.
        cut = request.last if wanted.everything else 0
        kept = await self._registry.events(after, cut)
        found = [event for event in kept if wanted.has(event)]
        for event in found[-request.last :]:
            yield event_out(event)
        while request.follow and not self._closing:
            after = kept[-1].id if kept else after
            kept = await self._next(after)
            for event in kept:
                if wanted.has(event):
                    yield event_out(event)

    async def close(self) -> None:
        """Ends the streams that follow, within WAIT_S."""
        self._closing = True
        await asyncio.gather(*self._reads.values(), return_exceptions=True)

    async def _next(self, after: str) -> tuple[Event, ...]:
        read = self._reads.get(after)
        if read is None:
            if len(self._reads) >= MOST_READS:
                raise ResourceExhausted(
                    "too many callers wait for events here, each for another one: end one, or "
                    "ask another control plane"
                )
            waiting = self._registry.next_events(after, WAIT_S)
            read = asyncio.create_task(waiting, name=f"events after {after}")
            self._reads[after] = read
            read.add_done_callback(lambda ended: self._ended(after, ended))
        return await asyncio.shield(read)

    def _ended(self, after: str, read: asyncio.Task[tuple[Event, ...]]) -> None:
        self._reads.pop(after, None)
        if not read.cancelled():
            # Looked at here too: every caller may have left before it failed.
            read.exception()
