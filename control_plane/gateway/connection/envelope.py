"""What every HTTP call has round it, whichever door it goes through: its ids, the limits of its
body, and its end when the caller leaves.

Pure ASGI: it is on the path of every request.
"""

import asyncio
import os
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.caller import TRACEPARENT, Trace, trace_of_header
from control_plane.gateway.connection.http_limits import BodyLimits, BodyRule
from control_plane.gateway.connection.http_protocol import TASKS
from control_plane.gateway.connection.origins import Origins
from control_plane.gateway.dispatch import Caller
from control_plane.gateway.problem import problem
from yolopool.errors import Draining, MessageTooLarge, PermissionDenied
from yolopool.names import REQUEST_ID
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.intake import no_room
from yolopool.server.open_calls import typed_error

# Keys of a scope: the id, the caller's trace, the id of this process's own span in it, the values
# of the header Authorization, and what takes room for its bytes.
REQUEST_ID_KEY, TRACE_KEY, SPAN_KEY = "yolopool.request_id", "yolopool.trace", "yolopool.span"
AUTHORIZATION_KEY, _ROOM_KEY = "yolopool.authorization", "yolopool.room"
_REQUEST_ID, _TRACEPARENT = b"x-request-id", TRACEPARENT.encode()
_SHOWN = b"authorization"


def request_id_of(scope: Scope) -> str:
    """The id of a request, which its caller gave or which was made."""
    return str(scope.get(REQUEST_ID_KEY, ""))


def take_room(scope: Scope, count: int) -> None:
    """For bytes that a door makes of a body, such as by unpacking it: until the request is answered
    they count as bytes that were sent. Raises RequestMemoryFull.
    """
    scope[_ROOM_KEY](count)


def caller_of(scope: Scope, door: str, timeout_s: float | None = None, api_key: str = "") -> Caller:
    """The call as `Dispatch` wants it: its ids and who calls are its metadata, and no other header
    is. `api_key` is one that came elsewhere than in the header, which goes before it.
    """
    ids = [("x-request-id", request_id_of(scope))]
    trace: Trace | None = scope.get(TRACE_KEY)
    if trace is not None:
        ids.append((TRACEPARENT, trace.text))
    shown = scope.get(AUTHORIZATION_KEY) or ([f"Bearer {api_key}"] if api_key else ())
    ids += [("authorization", text) for text in shown]
    span_id = scope.get(SPAN_KEY, "")
    return Caller(door, timeout_s, ids, _address(scope.get("client")), span_id=span_id)


def _address(client: tuple[str, int] | None) -> str:
    if client is None:
        return ""
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


# Both have the status that HTTP has a word for; a door whose errors have a form of its own sees the
# error of the pool in them.


class BodyTooLarge(HTTPException, MessageTooLarge):
    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 413, detail)
        MessageTooLarge.__init__(self, detail)


class Envelope:
    """Wraps the application of the HTTP port."""

    def __init__(
        self, application: ASGIApp, limits: BodyLimits, budget: ByteBudget, origins: Origins
    ) -> None:
        self._application = application
        self._limits = limits
        self._origins = origins
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "the server has no lifespan and no WebSocket"
        rule = self._limits.of(scope["method"], scope["path"])
        call = _Call(scope, receive, send, rule, self._budget)
        tasks: set[Any] = scope.get("extensions", {}).get(TASKS, set())
        task = asyncio.current_task()
        tasks.add(task)
        try:
            if self._origins.is_strange(call.host):
                raise PermissionDenied(
                    f"{call.host[:200]} is no name of this machine: name it by "
                    "--http-allowed-hosts if it is, or use its address"
                )
            method, page = scope["method"], call.page
            if self._origins.are_foreign(method, call.host, call.origin, call.site, page):
                raise PermissionDenied(
                    f"a page of {call.origin[:200] or 'another site'} may not call this: name its "
                    "origin by --http-cors-origins if it is to"
                )
            await self._application(call.scope, call.receive, call.send)
        except (ClientDisconnect, asyncio.CancelledError):
            # To a caller who left nothing is sent; otherwise the process ends.
            await call.failed(Draining("this process is stopping: ask another"))
        except Exception as error:
            await call.failed(error)
        finally:
            tasks.discard(task)
            self._budget.give(call.taken_bytes)
            del call.scope[_ROOM_KEY]  # it refers to the call, which refers to the scope


class _Call:
    """One request: counts what comes, and adds its ids to what goes."""

    __slots__ = (
        "_answered",
        "_budget",
        "_head_is_sent",
        "_is_awaited",
        "_is_head",
        "_is_kept",
        "_limit",
        "_receive",
        "_received",
        "_send",
        "_stated",
        "host",
        "origin",
        "page",
        "scope",
        "site",
        "taken_bytes",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, rule: BodyRule, budget: ByteBudget
    ) -> None:
        self._receive, self._send = receive, send
        self._limit, self._budget = rule.limit_bytes, budget
        self._is_kept = not rule.is_streamed
        self._received = self.taken_bytes = 0
        self._answered = self._head_is_sent = False
        headers: dict[bytes, bytes] = dict(scope["headers"])  # of one that comes twice, the last

        def said(name: bytes) -> str:
            return headers.get(name, b"").decode("latin-1")

        self._is_awaited = b"expect" in headers
        self._stated = int(headers.get(b"content-length", 0))
        self.host, self.origin, self.site = said(b"host"), said(b"origin"), said(b"sec-fetch-site")
        self.page = said(b"referer")
        trace = trace_of_header(said(_TRACEPARENT))
        # Two of these are refused.
        shown = [value.decode("latin-1") for name, value in scope["headers"] if name == _SHOWN]
        request_id = said(_REQUEST_ID)
        if not REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        # A HEAD is answered as a GET; the server leaves the body out, by its own scope.
        self._is_head = scope["method"] == "HEAD"
        self.scope = {**scope, "method": "GET"} if self._is_head else scope
        self.scope[REQUEST_ID_KEY] = request_id
        self.scope[AUTHORIZATION_KEY] = shown
        self.scope[_ROOM_KEY] = self._take
        self.scope[TRACE_KEY] = trace
        self.scope[SPAN_KEY] = os.urandom(8).hex() if trace is not None else ""

    async def receive(self) -> Message:
        if self._stated > self._limit:
            raise self._too_large()  # before the caller sends it, if it waits for 100 Continue
        self._is_awaited = False
        message = await self._receive()
        if message["type"] == "http.request":
            count = len(message["body"])
            self._received += count
            if self._received > self._limit:
                raise self._too_large()
            if self._is_kept:
                self._take(count)
        return message

    def _take(self, count: int) -> None:
        if not self._budget.take(count):
            raise no_room(count)
        self.taken_bytes += count

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answered = True
            headers = message["headers"]
            headers.append((_REQUEST_ID, self.scope[REQUEST_ID_KEY].encode()))
            trace: Trace | None = self.scope[TRACE_KEY]
            if trace is not None:
                own = trace.header(self.scope[SPAN_KEY])
                headers.append((_TRACEPARENT, own.encode()))
            if self._is_awaited:
                # Whether the caller still sends its body is not known, nor where the next begins.
                headers.append((b"connection", b"close"))
        elif self._is_head:
            # The answer is complete, and what would go on for long, as events do, is told so.
            if self._head_is_sent:
                return
            self._head_is_sent, message = True, {**message, "more_body": False}
        await self._send(message)

    async def failed(self, error: Exception) -> None:
        """Of a surprise that nobody has answered."""
        if not self._answered:
            typed = typed_error(error, self.scope["path"])
            await problem(typed, request_id_of(self.scope))(self.scope, self._receive, self.send)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"a body of {self.scope['path']} has at most {self._limit} bytes")
