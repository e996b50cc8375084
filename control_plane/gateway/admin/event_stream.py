"""Events as server-sent events, or those that are kept as a list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import create_model
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from control_plane.gateway.admin.comments import comment_of
from control_plane.gateway.admin.endpoints import (
    one_line,
    parameter,
    problems,
    query_parameters,
    refuse_unknown,
    with_parameters,
)
from control_plane.gateway.admin.schemas import parsed, schema_of
from control_plane.gateway.connection.envelope import caller_of, request_id_of
from control_plane.gateway.dispatch import Dispatch
from control_plane.gateway.problem import problem
from control_plane.gateway.proto_json import dumps
from yolopool.errors import InvalidOption, YolopoolError
from yolopool.v1 import events_pb2

PATH = "/v1/events"
WATCH = "/yolopool.v1.EventService/WatchEvents"
SSE = "text/event-stream"
# Proxies end a connection that is silent for a minute.
HEARTBEAT_S = 15.0
# How long an error may take to be an answer of its own; one that comes later is in the stream.
REFUSAL_S = 0.25
RETRY_MS = 2000
TASK = "next event of a stream"
_FIELDS = tuple(events_pb2.WatchEventsRequest.DESCRIPTOR.fields_by_name)


def event_routes(dispatch: Dispatch) -> APIRouter:
    """The endpoint of events."""

    async def watch(request: Request, last_event_id: str, **given: Any) -> Response:
        refuse_unknown(request, _FIELDS)
        asked = {name: given[name] for name in _FIELDS if given[name] not in (None, [])}
        message = parsed(asked, events_pb2.WatchEventsRequest())
        accept = request.headers.get("accept", "")
        if given["follow"] is None:
            message.follow = SSE in accept
        if last_event_id:
            # A reader that comes back repeats its first query, and is to miss nothing.
            message.after, message.last = last_event_id, 0
        events = dispatch.stream(WATCH, message, caller_of(request.scope, "rest"))
        if message.follow:
            if "application/json" in accept and SSE not in accept:
                raise InvalidOption(f"what follows is sent as {SSE}: accept that, or leave it out")
            stream = _EventStream(events, request_id_of(request.scope))
            await stream.begin()
            return stream
        listed = b",".join([dumps(event) async for event in events])
        return Response(b'{"events":[%s]}' % listed, media_type="application/json")

    router = APIRouter(tags=["event"])
    described = events_pb2.WatchEventsRequest.DESCRIPTOR
    event: Any = schema_of(events_pb2.Event.DESCRIPTOR)
    listed = create_model("Events", events=(list[event], ...))
    header = Header(alias="Last-Event-ID", description="The last event that was seen.")
    router.add_api_route(
        PATH,
        with_parameters(
            watch,
            (
                *query_parameters(described, _FIELDS),
                parameter("last_event_id", Annotated[str, header], ""),
            ),
        ),
        methods=["GET"],
        operation_id="WatchEvents",
        summary="Events, as a list or as they happen",
        description=f"{comment_of('yolopool.v1.EventService.WatchEvents')} With `follow`, or where "
        f"{SSE} is accepted, each is sent as it happens; `id` is the event's.",
        response_model=None,
        responses={
            200: {
                "description": "The events.",
                "model": listed,
                "content": {SSE: {"schema": {"type": "string"}}},
            },
            **problems(404),
        },
    )
    return router


class _EventStream(StreamingResponse):
    """Each event when the reader takes it, comments while there is none."""

    media_type = SSE

    def __init__(self, events: AsyncIterator[events_pb2.Event], request_id: str) -> None:
        # A proxy that collects answers would keep events back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._lines(), headers=headers)
        self._events = events
        self._request_id = request_id
        self._coming = self._next()

    async def begin(self) -> None:
        """Raises what refuses the stream at once, as an answer of its own status."""
        try:
            await asyncio.wait((self._coming,), timeout=REFUSAL_S)
            if self._coming.done():
                self._coming.result()
        except BaseException:
            await self._end()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()

    async def _lines(self) -> AsyncIterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        try:
            while (event := await self._event()) is not None:
                yield event
        except YolopoolError as error:
            told = bytes(problem(error, self._request_id).body).decode()
            yield f"event: problem\ndata: {told}\n\n"

    async def _event(self) -> str | None:
        """The next event or comment; None: there are no more."""
        await asyncio.wait((self._coming,), timeout=HEARTBEAT_S)
        if not self._coming.done():
            return ": nothing new\n\n"
        event = self._coming.result()
        if event is None:
            return None
        self._coming = self._next()
        return f"id: {event.id}\ndata: {one_line(event)}\n\n"

    def _next(self) -> "asyncio.Task[events_pb2.Event | None]":
        async def next_event() -> events_pb2.Event | None:
            return await anext(self._events, None)

        return asyncio.create_task(next_event(), name=TASK)

    async def _end(self) -> None:
        self._coming.cancel()
        await asyncio.gather(self._coming, return_exceptions=True)
        async with aclosing(self._events):  # type: ignore[type-var] # a generator
            pass
