"""One HTTP connection: uvicorn's protocol, with limits for headers, slow senders and slow readers.

What the library has no hook for is done here and no more: it has no limit for the time or the size
of a header, for a body or a reader that stands still, nor for pipelined requests.
"""

import asyncio
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, cast
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from control_plane.gateway.connection.http_limits import HttpLimits
from control_plane.gateway.problem import MEDIA_TYPE, body_of, of_status

# In the scope of a request: the tasks that work for this connection, which end with it.
TASKS = "yolopool.tasks"


_UPGRADE = re.compile(rb"(?i)(\r\n)Upgrade:")


class Phase(Enum):
    WAITING = auto()  # for the first byte of a request
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()  # the request is here
    DISCARDING = auto()  # it was answered before its body ended


class HttpDoor:
    """What all connections share."""

    def __init__(self, limits: HttpLimits, now: Callable[[], float]) -> None:
        self.limits = limits
        self.now = now
        self.draining = False
        # Connections without a request, the longest waiting first: they make room for others.
        self.waiting: dict[HttpProtocol, None] = {}


def without_upgrade(data: bytes) -> bytes:
    """The beginning of a request with another name for its field `Upgrade`, if it has one.

    Another protocol may be offered, as HTTP/2 is by clients in Java and by curl, and need not be
    taken. But the parser takes the offer for a promise, and the body for the other protocol.
    """
    end = data.find(b"\r\n\r\n")
    return _UPGRADE.sub(b"\\1Ignored:", data[:end]) + data[end:] if end > 0 else data


class _Refused(Exception):
    """Raised in a callback of the parser, which stops parsing."""


class HttpProtocol(HttpToolsProtocol):
    def __init__(self, *arguments: Any, door: HttpDoor, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._door = door
        self._phase, self._is_new = Phase.WAITING, True
        self._since_s = self._mark_s = door.now()
        self._received = self._mark_received = 0
        self._fields_bytes = self._arrived_bytes = self._begun = 0
        self._unread: tuple[float, int] | None = None  # since when, and how many bytes
        self._refusal = (400, "this is not HTTP/1.1")
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- the connection ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        door = self._door
        if len(self.connections) > door.limits.max_connections:
            longest = next(iter(door.waiting), None)
            if longest is None:
                self._refuse(503, "all connections of this process are in use: try again", 1.0)
                return
            longest.give_way()
        door.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.waiting.pop(self, None)
        super().connection_lost(exc)
        for task in self._tasks:
            task.cancel()

    def give_way(self) -> None:
        """Ends a connection that has no request."""
        self._door.waiting.pop(self, None)
        self.transport.abort()

    def resume_writing(self) -> None:
        self._unread = None
        super().resume_writing()

    # --- what the parser says ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        in_head = self._phase in (Phase.WAITING, Phase.HEAD)
        if in_head:
            data = without_upgrade(data)
        self._begun = 0
        super().data_received(data)
        if self._phase is Phase.HEAD and in_head and self._begun <= 1:
            # The parser tells of a field when it is whole; this one may never be.
            self._arrived_bytes += len(data)
            if self._arrived_bytes > self._door.limits.max_header_bytes:
                self._refuse(431, self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = cast(Any, {TASKS: self._tasks})
        self._phase, self._fields_bytes, self._arrived_bytes = Phase.HEAD, 0, 0
        self._begun += 1
        if self._is_new:  # its time began with the connection
            self._is_new = False
        else:
            self._since_s = self._door.now()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._door.limits.max_header_bytes // 2:
            self._stop(414, f"a URL has at most {self._door.limits.max_header_bytes // 2} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        limits = self._door.limits
        self._fields_bytes += len(name) + len(value) + 4
        if self._fields_bytes > limits.max_header_bytes or len(self.headers) > limits.max_headers:
            self._stop(431, self._too_large())

    def on_headers_complete(self) -> None:
        self._door.waiting.pop(self, None)
        if len(self.pipeline) >= self._door.limits.max_pipelined:
            self._stop(429, "too many requests were sent before the first was answered")
        super().on_headers_complete()
        self._phase = Phase.BODY
        self._mark_s = self._door.now()
        self._received = self._mark_received = 0
        if self._door.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._phase = Phase.ANSWER
        if self.cycle.response_complete:
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._phase is Phase.ANSWER:
            if not self.pipeline and self.cycle.response_complete:
                self._wait()
        elif self._phase is Phase.BODY and self.cycle.response_complete:
            self._phase, self._since_s = Phase.DISCARDING, self._door.now()

    def _wait(self) -> None:
        self._phase, self._since_s = Phase.WAITING, self._door.now()
        self._door.waiting[self] = None

    # --- time -------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Ends the connection if its time is over; called about every second."""
        if self.transport is None or self._reader_stands_still(now):
            return
        limits, phase = self._door.limits, self._phase
        waited_s = now - self._since_s
        if phase is Phase.WAITING:
            # Between two requests the library counts the time.
            if self._is_new and waited_s > limits.header_timeout_s:
                self.transport.abort()
        elif phase is Phase.HEAD:
            if waited_s > limits.header_timeout_s:
                self._refuse(408, f"the header did not end in {limits.header_timeout_s:g} s")
        elif phase is Phase.DISCARDING:
            if waited_s > limits.linger_s:
                self.transport.abort()
        elif phase is Phase.BODY and self._sender_stands_still(now):
            self._refuse(
                408,
                f"the body came slower than {limits.min_bytes_per_s} bytes/s for "
                f"{limits.stall_timeout_s:g} s",
            )

    def _sender_stands_still(self, now: float) -> bool:
        limits = self._door.limits
        if self.flow.read_paused:  # it is this side that is slow
            self._mark_s, self._mark_received = now, self._received
            return False
        if now - self._mark_s < limits.stall_timeout_s:
            return False
        moved = self._received - self._mark_received
        if moved < limits.min_bytes_per_s * limits.stall_timeout_s:
            return True
        self._mark_s, self._mark_received = now, self._received
        return False

    def _reader_stands_still(self, now: float) -> bool:
        """Also of an answer that is written and not yet read, when the connection is closing."""
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unread = None
            return False
        if self._unread is None:
            self._unread = (now, size)
            return False
        limits = self._door.limits
        since_s, before = self._unread
        if before - size >= limits.min_bytes_per_s * limits.stall_timeout_s:
            self._unread = (now, size)
        elif now - since_s > limits.stall_timeout_s:
            self.transport.abort()
            return True
        return False

    # --- refusals ---------------------------------------------------------------------------------

    def _too_large(self) -> str:
        limits = self._door.limits
        return (
            f"a header has at most {limits.max_headers} fields and {limits.max_header_bytes} bytes"
        )

    def _stop(self, status: int, detail: str) -> None:
        """From within a callback: the parser's error comes back as `send_400_response`."""
        self._refusal = (status, detail)
        raise _Refused

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _refuse(self, status: int, detail: str, retry_after_s: float | None = None) -> None:
        """Answers a request that never reached the application, and closes."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        in_progress = cycle is not None and not cycle.response_complete
        if in_progress and (cycle.response_started or self._phase is Phase.HEAD):
            self.transport.abort()  # an answer is on its way, and another would be taken for it
            return
        if in_progress:
            cycle.disconnected = True
            cycle.message_event.set()
        request_id = uuid4().hex
        body = body_of(of_status(status, detail, retry_after_s), request_id, status)
        head = [STATUS_LINE[status]]
        for name, value in (
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ):
            head += [name, b": ", value, b"\r\n"]
        if retry_after_s is not None:
            head.append(b"retry-after: %d\r\n" % max(1, round(retry_after_s)))
        self.transport.write(b"".join([*head, b"\r\n", body]))
        self.transport.close()
