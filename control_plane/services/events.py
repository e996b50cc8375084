"""EventService: streams the stored events, then new ones until the caller leaves."""

import asyncio
from collections.abc import AsyncIterator, Collection

from control_plane.caller import CallContext
from control_plane.convert.events import check_event_id, event_out, filter_in, order_of
from control_plane.store.protocols.observed_state import EventLog
from control_plane.types.event import Event, EventFilter
from control_plane.types.rollout.alias import AliasKey
from control_plane.view.view import View
from yolopool.errors import ResourceExhausted
from yolopool.v1 import events_pb2, events_pb2_grpc

# How long one read of the store waits, and so how long a stream may go on after `close`: less than
# open calls may take at a stop.
WAIT_S = 1.0
# Concurrent reads that wait for different events; each holds a connection to the store.
MAX_READS = 32


class EventService(events_pb2_grpc.EventServiceServicer):
    """Callers who have seen the same event share one read for the next."""

    def __init__(self, registry: EventLog, view: View) -> None:
        self._registry = registry
        self._view = view
        self._reads: dict[str, asyncio.Task[tuple[Event, ...]]] = {}
        self._closing = False

    async def WatchEvents(
        self, request: events_pb2.WatchEventsRequest, context: CallContext
    ) -> AsyncIterator[events_pb2.Event]:
        matching, after = filter_in(request), check_event_id(request.after)
        if matching.model is not None and matching.model.alias is not None:
            self._view.catalogue.alias(matching.model)  # raises what is wrong with it at once
        # `last` counts matching events: the store can apply it only if every event matches.
        limit = request.last if matching.everything else 0
        events = await self._registry.events(after, limit)
        if after and not events and await self._is_ahead(after):
            after, events = "", await self._registry.events("", limit)
        found = [event for event in events if matching.has(event, self._of_alias(matching))]
        for event in found[-request.last :]:
            yield event_out(event)
        while request.follow and not self._closing:
            after = events[-1].id if events else after
            events = await self._next(after)
            for event in events:
                if matching.has(event, self._of_alias(matching)):
                    yield event_out(event)

    def _of_alias(self, matching: EventFilter) -> Collection[int]:
        ref = matching.model
        if ref is None or ref.alias is None:
            return ()
        alias = self._view.desired.aliases.get(AliasKey(ref.name, ref.alias))
        return alias.versions if alias is not None else ()

    async def close(self) -> None:
        """Ends the streams that follow new events, within WAIT_S."""
        self._closing = True
        await asyncio.gather(*self._reads.values(), return_exceptions=True)

    async def _is_ahead(self, after: str) -> bool:
        """Whether an id is of another store, or of what a failover lost: nothing may come after it
        for long.
        """
        newest = await self._registry.events("", 1)
        return not newest or order_of(newest[-1].id) < order_of(after)

    async def _next(self, after: str) -> tuple[Event, ...]:
        read = self._reads.get(after)
        if read is None:
            if len(self._reads) >= MAX_READS:
                raise ResourceExhausted(
                    "too many callers of this control plane wait for events, each after another "
                    "one: end a stream, or ask another control plane"
                )
            waiting = self._registry.next_events(after, WAIT_S)
            read = asyncio.create_task(waiting, name=f"events after {after}")
            self._reads[after] = read
            read.add_done_callback(lambda ended: self._ended(after, ended))
        return await asyncio.shield(read)

    def _ended(self, after: str, read: asyncio.Task[tuple[Event, ...]]) -> None:
        self._reads.pop(after, None)
        if not read.cancelled():
            # Retrieved here too: every caller may have left before it failed.
            read.exception()
