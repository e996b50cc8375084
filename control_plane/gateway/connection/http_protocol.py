"""One HTTP connection: uvicorn's protocol, with limits for headers, slow senders and slow readers.

What the library has no hook for is done here and no more: it has no limit for the time or the size
of a header, for a body or a reader that stands still, nor for pipelined requests.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, cast
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from control_plane.gateway.connection.http_limits import HttpLimits
from control_plane.gateway.problem import MEDIA_TYPE, body_of, of_status

# In the scope of a request: the tasks that work for this connection, which end with it.
TASKS = "yolopool.tasks"


_OFFER, _END = b"\r\nupgrade:", b"\r\n\r\n"
_OFFERS = re.compile(rb"(?i)(\r\n)Upgrade:")


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
        self.by_address = Counter[str]()


def without_offers(data: bytes) -> tuple[bytes, bytes]:
    """A piece of a header with another name for its fields `Upgrade`, and the end of the piece, if
    only what comes next says whether it is one.

    Another protocol may be offered, as HTTP/2 is by clients in Java and by curl, and need not be
    taken. But the parser takes the offer for a promise, and the body for the other protocol.
    """
    end = data.find(_END)
    if end >= 0:
        return _OFFERS.sub(b"\\1Ignored:", data[:end]) + data[end:], b""
    data = _OFFERS.sub(b"\\1Ignored:", data)
    for size in range(min(len(data), len(_OFFER) - 1), 0, -1):
        last = data[-size:]
        if _OFFER.startswith(last.lower()) or _END.startswith(last):
            return data[:-size], last
    return data, b""


class _Refused(Exception):
    """Raised in a callback of the parser, which stops parsing."""


class _Outlet:
    """The transport as answers see it: the connection decides how it closes."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: Any, close: Callable[[], None]) -> None:
        self.write, self.is_closing = transport.write, transport.is_closing
        self.close = close


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
        self._held = b""  # the end of a piece of a header, until the next comes
        self._hosts = 0
        self._is_deaf = False  # what still comes is thrown away
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- the connection ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._outlet = _Outlet(transport, self._end)
        door = self._door
        self._address = self.client[0] if self.client else ""
        door.by_address[self._address] += 1
        if door.by_address[self._address] > door.limits.max_connections_an_address:
            self._refuse(429, "this address has all connections that one may have: close some", 1.0)
            return
        if len(self.connections) > door.limits.max_connections:
            longest = next(iter(door.waiting), None)
            if longest is None:
                self._refuse(503, "all connections of this process are in use: try again", 1.0)
                return
            longest.give_way()
        door.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.waiting.pop(self, None)
        self._door.by_address[self._address] -= 1
        if not self._door.by_address[self._address]:
            del self._door.by_address[self._address]
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
        if self._is_deaf:
            return
        in_head = self._phase in (Phase.WAITING, Phase.HEAD)
        if in_head:
            data, self._held = without_offers(self._held + data)
        self._begun, before = 0, self._received
        super().data_received(data)
        # The parser tells of a field, also of one behind a body, when it is whole: it may never be.
        if in_head:
            self._arrived_bytes += len(data) * (self._phase is Phase.HEAD and self._begun <= 1)
        elif self._phase in (Phase.BODY, Phase.DISCARDING):
            is_body = self._received != before
            self._arrived_bytes = 0 if is_body else self._arrived_bytes + len(data)
        if self._arrived_bytes > self._door.limits.max_header_bytes:
            self._refuse(431, self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = cast(Any, {TASKS: self._tasks})
        self._phase, self._fields_bytes, self._arrived_bytes = Phase.HEAD, 0, 0
        self._begun, self._hosts = self._begun + 1, 0
        if self._is_new:  # its time began with the connection
            self._is_new = False
        else:
            self._since_s = self._door.now()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._door.limits.max_header_bytes // 2:
            self._stop(414, f"a URL has at most {self._door.limits.max_header_bytes // 2} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.HEAD:  # fields behind a body say nothing of its request
            super().on_header(name, value)
            self._look_at(*self.headers[-1])
        limits = self._door.limits
        self._fields_bytes += len(name) + len(value) + 4
        if self._fields_bytes > limits.max_header_bytes or len(self.headers) > limits.max_headers:
            self._stop(431, self._too_large())

    def _look_at(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._stop(400, "a body is sent as it is, or chunked, and in no other coding")

    def on_headers_complete(self) -> None:
        self._door.waiting.pop(self, None)
        if self._hosts > 1 or (self._hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._stop(400, "a request names its host once, by the field Host")
        if self.parser.should_upgrade():
            # Its body would be taken for another request.
            self._stop(400, "another protocol is offered only by the first request: leave it out")
        if len(self.pipeline) >= self._door.limits.max_pipelined:
            self._stop(429, "too many requests were sent before the first was answered")
        super().on_headers_complete()
        self.cycle.transport = cast(Any, self._outlet)
        self._phase, self._arrived_bytes = Phase.BODY, 0
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
            # The library's own timer ends with an empty line, which is no request.
            if waited_s > (limits.header_timeout_s if self._is_new else limits.keep_alive_s):
                self.transport.abort()
        elif phase is Phase.HEAD:
            if waited_s > limits.header_timeout_s:
                self._refuse(408, f"the header did not end in {limits.header_timeout_s:g} s")
        elif phase is Phase.DISCARDING:
            if waited_s > limits.linger_s and self._unread is None:
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
        if self.transport.is_closing() or self._is_deaf:
            return
        cycle = self.cycle
        in_progress = cycle is not None and not cycle.response_complete
        if self._phase is Phase.DISCARDING:
            self._end()  # it has its answer
            return
        if in_progress and self._phase is Phase.HEAD:
            self._is_deaf, cycle.keep_alive = True, False  # those before it have none yet
            return
        if in_progress and (cycle.response_started or self.pipeline):
            self.transport.abort()  # another answer is on its way, and this taken for it
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
        self._end()

    def _end(self) -> None:
        """Closes, and first waits for a caller that still sends: closed before it has read its
        answer, the connection would be reset, and the answer lost.
        """
        if self.transport.is_closing() or (self._is_deaf and self._phase is Phase.DISCARDING):
            return
        if self._phase in (Phase.HEAD, Phase.BODY, Phase.DISCARDING):
            self._is_deaf = True
            self._phase, self._since_s = Phase.DISCARDING, self._door.now()
            self.pipeline.clear()
            self._door.waiting[self] = None
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()
