"""Web servers that answer what no server should: each answer is refused with a reason, and no
server holds a thread by answering slowly.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network

import pytest

from control_plane.sources import guarded_connection
from control_plane.sources.http_file import HttpFile, Web
from control_plane.sources.source_rules import SourceRules
from control_plane.sources.source_uri import SCHEMES, parse
from yolopool import errors

WEB = Web(
    SourceRules(SCHEMES, private_networks=(ip_network("127.0.0.0/8"),)),
    {},
    ssl.create_default_context(),
)


@contextmanager
def answering(*parts: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """A server that sends these parts to each caller, with a pause after each. Yields its URI."""
    listener, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                with caller, suppress(OSError):
                    if not pause_s:
                        caller.recv(65536)
                    for part in parts:
                        caller.sendall(part)
                        if pause_s and ended.wait(pause_s):
                            return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"://127.0.0.1:{listener.getsockname()[1]}/best.pt"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("head", "error"),
    [
        (b"302 Found\r\nLocation: http://[::1", errors.SourceRefused),
        (b"302 Found\r\nLocation: /best.pt?name=\xe9", errors.SourceRefused),
        (b"302 Found\r\nLocation: /best.pt?a b", errors.SourceRefused),
        (b"200 OK\r\nContent-Length: " + b"9" * 5000, errors.SourceInvalid),
        (b"200 OK\r\nContent-Length: nine", errors.SourceInvalid),
        (b"200 OK\r\nContent-Length: -9", errors.SourceInvalid),
        (b"OK", errors.SourceUnavailable),
    ],
)
def test_an_answer_of_no_sense_has_a_reason(head: bytes, error: type[errors.YolopoolError]) -> None:
    with answering(b"HTTP/1.1 " + head + b"\r\n\r\n") as place, pytest.raises(error):
        HttpFile(parse(f"http{place}"), WEB)


def test_a_validator_that_no_header_can_carry_is_none() -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: "a\r\n b"\r\n\r\n'
    with answering(head) as place:
        opened = HttpFile(parse(f"http{place}"), WEB)
        assert opened.facts.stamp == ""
        opened.close()


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        ("http", (b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 50)),
        ("https", (b"\x16\x03\x03\x40\x00", *[b"\x00"] * 50)),
    ],
)
def test_a_head_that_trickles_is_not_waited_for(
    scheme: str, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_connection, "HEAD_S", 0.2)
    with answering(*parts, pause_s=0.05) as place, pytest.raises(errors.SourceUnavailable):
        HttpFile(parse(f"{scheme}{place}"), WEB)
