"""Bad callers of the HTTP port, by real sockets against a real process: none stops the others."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.e2e.plane_process import control_plane
from tests.waiting import until

pytestmark = pytest.mark.e2e

STALL_S, MIN_BYTES_PER_S, MAX_IMAGE = 1.5, 1000, 3_000_000
SLOW_SENDERS, CONNECTIONS = 1000, 1200
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=60)

    def is_well(self) -> bool:
        """Whether a caller is answered."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=60) as answer:
                return bool(answer.read() == b"ready\n")
        except urllib.error.HTTPError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with control_plane(
        tmp_path_factory.mktemp("plane"),
        http_max_connections=CONNECTIONS,
        http_header_timeout_s=STALL_S,
        http_stall_timeout_s=STALL_S,
        http_min_bytes_per_s=MIN_BYTES_PER_S,
        http_max_connections_an_address=2 * CONNECTIONS,
        max_request_memory_bytes=20_000_000,
        max_image_bytes=MAX_IMAGE,
    ) as (listening, process):
        host, _, port = listening["http"].rpartition(":")
        one = Server(host, int(port), process)
        until("the registry was read", one.is_well)
        yield one


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of one answer; status 0: the connection ended without."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                break
            data += part
    if b"\r\n\r\n" not in data:
        return 0, {}, b""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(fields.get("content-length", 0)):
        body += connection.recv(65536)
    return int(first.split()[1]), fields, body


def asked(server: Server, request: bytes) -> tuple[int, str]:
    """Status and reason of the answer to a request that is sent whole."""
    with server.connect() as connection:
        connection.sendall(request)
        status, fields, body = answer_of(connection)
        if not status:
            return 0, ""
        assert fields["content-type"] == "application/problem+json"
        told = json.loads(body)
        assert told["status"] == status
        assert told["request_id"] == fields["x-request-id"]
        return status, told["reason"]


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends it; waits for that."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def post(fields: str = "", path: str = "/v1/detect?model=none") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode()


# --- slow senders ---------------------------------------------------------------------------------


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /readyz HTTP/1.1\r\nHost: ", id="header"),
        pytest.param(post("Content-Length: 1000000\r\n") + b"x" * 1000, id="body"),
        pytest.param(post("Transfer-Encoding: chunked\r\n") + b"400\r\nabc", id="chunk"),
        pytest.param(post("Transfer-Encoding: chunked\r\n") + b"5;" + b"x" * 9, id="extension"),
    ],
)
def test_slow_senders_stop_nobody_and_are_cut_off(server: Server, begin: bytes) -> None:
    before = server.process.memory_info().rss
    files = server.process.num_fds()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(SLOW_SENDERS)]
        for connection in slow:
            connection.sendall(begin)
        for _ in range(3):  # a byte now and then keeps nobody alive
            assert server.is_well()
            for connection in slow:
                with contextlib.suppress(ConnectionError):
                    connection.send(b"x" if begin else b"")
        assert server.process.memory_info().rss - before < 64 * MIB
        # All are cut off, although none of them closed its end.
        until("the last is cut off", lambda: server.process.num_fds() <= files + 5)
        status, fields, body = answer_of(slow[0])
        if begin:
            assert (status, fields["connection"]) == (408, "close")
            assert json.loads(body)["reason"] == "REQUEST_TIMEOUT"
        else:
            assert status == 0
    assert server.is_well()


def test_a_connection_without_a_request_makes_room(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS + 20)]
        assert server.is_well()
        assert is_closed(idle[0])  # the one that waited longest


def test_a_sender_of_the_least_rate_is_heard(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 10000\r\n"))
        for _ in range(20):
            connection.sendall(b"x" * 500)
            time.sleep(STALL_S * 1.5 / 20)
        assert answer_of(connection)[0] == 404  # no such model: it was heard to the end


def test_bodies_in_memory_have_a_bound(server: Server) -> None:
    before = server.process.memory_info().rss
    with contextlib.ExitStack() as stack:
        many = [stack.enter_context(server.connect()) for _ in range(20)]
        statuses = []
        for connection in many:
            connection.sendall(post("Content-Length: 3000000\r\n") + b"x" * 2_900_000)
        for connection in many:
            connection.settimeout(1)
            with contextlib.suppress(TimeoutError):
                statuses.append(answer_of(connection)[0])
        assert statuses
        assert set(statuses) <= {503, 408, 0}
        assert 503 in statuses
    assert server.process.memory_info().rss - before < 100 * MIB
    # What they held is free again.
    until("there is room", lambda: asked(server, whole(b"x" * 3_000_000))[0] == 404)


def whole(body: bytes) -> bytes:
    return post(f"Content-Length: {len(body)}\r\n") + body


# --- slow readers ---------------------------------------------------------------------------------


def test_a_reader_that_stands_still_is_cut_off(server: Server) -> None:
    files, before = server.process.num_fds(), server.process.memory_info().rss
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(50):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((server.host, server.port))
            readers.append(stack.enter_context(reader))
            reader.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert server.is_well()
        assert server.process.memory_info().rss - before < 64 * MIB
        until("all are cut off", lambda: server.process.num_fds() <= files + 2)


# --- what is no request ---------------------------------------------------------------------------


def test_garbage_is_refused(server: Server) -> None:
    assert asked(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n") == (
        400, "BAD_REQUEST",
    )  # fmt: skip
    assert asked(server, b"GET / HTTP/1.1\r\nno colon\r\n\r\n") == (400, "BAD_REQUEST")
    assert asked(server, post("Transfer-Encoding: chunked\r\n") + b"zz\r\n") == (
        400, "BAD_REQUEST",
    )  # fmt: skip
    # Two lengths: which one is meant is how requests are smuggled past proxies.
    smuggled = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n"
    assert asked(server, smuggled)[0] == 400
    assert asked(server, post("Content-Length: 5\r\nContent-Length: 6\r\n"))[0] == 400


def test_garbage_behind_a_request_ends_the_connection_after_its_answer(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"\x00garbage\r\n\r\n"
        )
        data = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                data += part
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"\r\n\r\nready\n")


def test_pipelined_requests_are_answered_up_to_a_bound(server: Server) -> None:
    one = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(one * 5)
        data = b""
        while data.count(b"ready\n") < 5:
            data += connection.recv(65536)
    with server.connect() as connection:
        connection.sendall(one * 1000)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    assert server.is_well()


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        ("GET / HTTP/1.1\r\nA: " + "x" * 100_000, 431, "HEADER_TOO_LARGE"),  # has no end yet
        ("GET / HTTP/1.1\r\nA: " + "x" * 40_000 + "\r\n\r\n", 431, "HEADER_TOO_LARGE"),
        ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 431, "HEADER_TOO_LARGE"),
        ("GET /" + "x" * 30_000 + " HTTP/1.1\r\n\r\n", 414, "URI_TOO_LONG"),
        ("GET /" + "x" * 100_000, 414, "URI_TOO_LONG"),
    ],
)
def test_large_headers(server: Server, head: str, status: int, reason: str) -> None:
    assert asked(server, head.encode()) == (status, reason)


def test_large_bodies(server: Server) -> None:
    # Refused by what it says it will be, before it is sent.
    assert asked(server, post(f"Content-Length: {100 * MIB}\r\n")) == (413, "MESSAGE_TOO_LARGE")
    chunk = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
    assert asked(server, post("Transfer-Encoding: chunked\r\n") + chunk * 7) == (
        413, "MESSAGE_TOO_LARGE",
    )  # fmt: skip
    # What carries no image may have less.
    other = post("Content-Length: 2000000\r\n", "/v1/models/a/ready")
    assert asked(server, other)[0] == 405


def test_a_length_that_lies(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 10\r\n") + b"x")
        connection.shutdown(socket.SHUT_WR)
        assert is_closed(connection)
    # More than it said is the beginning of another request.
    with server.connect() as connection:
        connection.sendall(post("Content-Length: 1\r\n") + b"xx\r\n\r\n")
        assert answer_of(connection)[0] in (404, 0)
        assert is_closed(connection) or answer_of(connection)[0] == 400
    assert server.is_well()


# --- curl -----------------------------------------------------------------------------------------

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "-m", "30", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@needs_curl
def test_curl_waits_for_leave_to_send(server: Server, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x" * (2 * MIB))
    told = curl(
        "-v", "-H", "Expect: 100-continue", "-F", f"image=@{image}",
        "-F", "model=none", f"{server.url}/v1/detect",
    )  # fmt: skip
    assert "100 Continue" in told
    assert "MODEL_NOT_FOUND" in told
    # Too large, which is said before it is sent.
    image.write_bytes(b"x" * (8 * MIB))
    told = curl(
        "-v", "-H", "Expect: 100-continue", "--data-binary", f"@{image}",
        f"{server.url}/v1/detect?model=none",
    )  # fmt: skip
    assert "MESSAGE_TOO_LARGE" in told
    assert "100 Continue" not in told


@needs_curl
def test_curl_that_asks_for_http2_is_answered(server: Server, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x" * 1000)
    url = f"{server.url}/v1/detect?model=none"
    assert "MODEL_NOT_FOUND" in curl("--http2", "--data-binary", f"@{image}", url)
    assert "ready" in curl("--http1.0", f"{server.url}/readyz")
