"""A web server that misbehaves as it is told, answer by answer, on a thread of its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One answer. `cut_after`: bytes of the body after which the connection is closed; `length`:
    told in place of the true one (-1: none is told); `slow_s`: between two parts of the body.
    """

    body: bytes = b""
    etag: str = '"one"'
    status: int = 200
    cut_after: int | None = None
    length: int | None = None
    slow_s: float = 0.0
    location: str = ""
    takes_ranges: bool = True
    encoding: str = ""


@dataclass(frozen=True)
class Asked:
    """One request, by its path and headers."""

    path: str
    range_: str
    if_range: str
    login: str


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    told: "Server"

    def __init__(self, *args: Any) -> None:
        self.ended = threading.Event()
        super().__init__(*args)

    def handle_error(self, *_: object) -> None:
        """A client that leaves early is no fault."""


@dataclass
class Server:
    """`turns` are taken one a request, the last for ever."""

    url: str = ""
    turns: list[Turn] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    sent_bytes: int = 0

    def turn(self) -> Turn:
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


class _Handler(BaseHTTPRequestHandler):
    server: "_Quiet"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        range_, if_range = self.headers.get("Range", ""), self.headers.get("If-Range", "")
        login = self.headers.get("Authorization", "")
        self.server.told.asked.append(Asked(self.path, range_, if_range, login))
        self.close_connection = True
        self._answer(self.server.told.turn(), range_, if_range)

    def _answer(self, turn: Turn, range_: str, if_range: str) -> None:
        body, status, begin = turn.body, turn.status, 0
        is_part = turn.takes_ranges and if_range == turn.etag
        if status == 200 and range_ and is_part:
            begin, status = int(range_.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        part = body[begin:]
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if turn.length != -1:
            self.send_header("Content-Length", str(turn.length or len(part)))
        for name, value in (
            ("ETag", turn.etag),
            ("Location", turn.location),
            ("Content-Encoding", turn.encoding),
        ):
            if value:
                self.send_header(name, value)
        self.end_headers()
        self._send(part if turn.cut_after is None else part[: turn.cut_after], turn.slow_s)

    def _send(self, part: bytes, slow_s: float) -> None:
        step = max(1, len(part) // 50) if slow_s else len(part)
        for at in range(0, len(part), step or 1):
            self.wfile.write(part[at : at + step])
            self.server.told.sent_bytes += len(part[at : at + step])
            if slow_s and self.server.ended.wait(slow_s):
                return

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def broken_server(*turns: Turn, port: int = 0) -> Iterator[Server]:
    server = Server(turns=list(turns))
    http = _Quiet(("127.0.0.1", port), _Handler)
    http.told = server
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        http.ended.set()
        http.shutdown()
        thread.join()
        http.server_close()
