"""The HTTP port: bytes of a connection, through parser, limits, routes and services, without a
socket. REST, KServe v2, the contract of cameras, admin routes, events, health, documentation.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf import json_format, message_factory

from control_plane.gateway.admin.endpoints import method_of
from control_plane.gateway.admin.routes import ROUTES
from tests.contract.control_plane_rig import Rig
from tests.contract.guarded_rig import Guarded
from tests.fuzz import messages, mutation
from tests.fuzz.doors import pool
from tests.fuzz.doors.made_calls import JPEG
from tests.fuzz.doors.pool import CALL_S, DATA, WORDS, Pool
from tests.fuzz.target import Target, own_loop

# The first byte of an input: which of these hold.
VERBATIM, IN_PARTS, CHUNKED, TWICE = 1, 2, 4, 8
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_BOUNDARY = b"frontier"


class NoAnswer(Exception):
    """What came back is no answer of HTTP, or one that says that something unforeseen happened."""


class Outlet(asyncio.Transport):
    """The other end of a connection: keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080)})
        self.written = bytearray()
        self._is_closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.written += data

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    abort = close

    def write_eof(self) -> None:
        """The other side hears nothing more."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """All has been sent already."""

    def resume_reading(self) -> None:
        """All has been sent already."""


class Http:
    def __init__(self, folder: Path) -> None:
        self._pool = Pool(folder, camera_model="a")
        self._open(self._pool.rig)

    def _open(self, rig: Rig) -> None:
        self.loop = own_loop()
        server: Any = rig.plane._http._server
        self._config, self._state = server._config, server._server.server_state

    def run(self, data: bytes) -> str:
        outcome = self.loop.run_until_complete(self._converse(data))
        self._pool.after()
        return outcome

    async def _converse(self, data: bytes) -> str:
        outlet = Outlet()
        protocol = self._config.http_protocol_class(
            config=self._config, server_state=self._state, app_state={}, _loop=self.loop
        )
        protocol.connection_made(outlet)
        try:
            for part in on_the_wire(data):
                if not outlet.is_closing():
                    protocol.data_received(part)
                await asyncio.sleep(0)
            if self._state.tasks:
                await asyncio.wait([*self._state.tasks], timeout=CALL_S)
        finally:
            # Whoever still waits finds that the caller left.
            protocol.connection_lost(None)
            if self._state.tasks:
                await asyncio.wait([*self._state.tasks], timeout=5)
        return _outcome(bytes(outlet.written))

    def close(self) -> None:
        self._pool.close()


class GuardedHttp(Http):
    """Asks who calls. Where an input says @admin@ or another kind of key, such a key is put."""

    def __init__(self, folder: Path) -> None:
        loop = own_loop()
        self._rig = Guarded(folder, default_deadline_s=CALL_S, drain_grace_s=0.0)
        loop.run_until_complete(self._rig.__aenter__())
        self._open(self._rig)

    def run(self, data: bytes) -> str:
        for kind in _KINDS:
            data = data.replace(f"@{kind}@".encode(), self._rig.secret(kind).encode())
        return self.loop.run_until_complete(self._converse(data))

    def close(self) -> None:
        self.loop.run_until_complete(self._rig.__aexit__())


def on_the_wire(data: bytes) -> list[bytes]:
    """The bytes that a caller sends, in the pieces in which they arrive."""
    how, said = (data[0] if data else 0), data[1:]
    if not how & VERBATIM:
        head, _, body = said.partition(b"\n\n")
        lines = [line for line in head.split(b"\n") if not _is_framing(line)]
        lines[0] = lines[0] + b" HTTP/1.1"
        lines.append(b"Host: a")
        if how & CHUNKED:
            lines.append(b"Transfer-Encoding: chunked")
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        else:
            lines.append(b"Content-Length: %d" % len(body))
        said = b"\r\n".join(lines) + b"\r\n\r\n" + body
    if how & TWICE:
        said += said
    half = len(said) // 2
    return [said[:half], said[half:]] if how & IN_PARTS else [said]


def _is_framing(line: bytes) -> bool:
    name = line.partition(b":")[0].strip().lower()
    return name in (b"content-length", b"transfer-encoding", b"host")


def _outcome(answer: bytes) -> str:
    if not answer:
        return "no answer"
    found = _ANSWER.match(answer)
    if found is None:
        raise NoAnswer(repr(answer[:300]))
    if found[1] == b"500":
        raise NoAnswer(repr(answer[:2000]))
    return found[1].decode()


_KINDS = ("admin", "detect", "granted", "worker", "control-plane", "revoked", "expired")


# --- seeds ----------------------------------------------------------------------------------------


def _request(method: str, target: str, body: bytes = b"", *fields: str, how: int = 0) -> bytes:
    head = "\n".join((f"{method} {target}", *fields)).encode()
    return bytes([how]) + head + b"\n\n" + body


def _admin_seeds() -> list[bytes]:
    """Every row of the table of routes, with an empty body and with one that is filled."""
    rng, made = Random(0), []
    values = {"model": "a", "worker": "w1", "request_id": "r1", "device_kind": "cpu", "name": "day",
              "id": "0123456789", "alias": "a:stable"}  # fmt: skip
    for route in ROUTES:
        path = re.sub(r"\{(\w+)(:path)?\}", lambda found: values[found[1]], route.path)
        kind = "Content-Type: application/json"
        if route.body == "-":
            made.append(_request(route.verb, f"{path}?timeout=1"))
            continue
        asked = method_of(route).input_type
        of: Any = asked.fields_by_name[route.body].message_type if route.body else asked
        for filled in (False, True):
            message = message_factory.GetMessageClass(of)()
            if filled:
                messages.fill(message, rng, WORDS, DATA)
            fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
            made.append(_request(route.verb, path, json.dumps(fields).encode(), kind))
    return made


def _form(*parts: tuple[str, bytes]) -> bytes:
    lines = b""
    for head, content in parts:
        lines += b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (
            _BOUNDARY, head.encode(), content,
        )  # fmt: skip
    return lines + b"--%b--\r\n" % _BOUNDARY


def _seeds() -> list[bytes]:
    form = f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}"
    image, text = "Content-Type: image/jpeg", "Content-Type: application/json"
    pictures = _form(('name="image"; filename="a.jpg"', JPEG), ('name="min_confidence"', b"0,4"))
    detect = _form(('name="image"; filename="a.jpg"', JPEG), ('name="model"', b"a"))
    base64 = b'{"model": "a", "image": "/9j/4AAQ", "confidence": 0.5, "classes": [0]}'
    tensors = (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], "data": ["aGk="]}]}'
    )
    sized = (
        b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], '
        b'"parameters": {"binary_data_size": 9}}]}'
    )
    upload = ("Content-Type: application/octet-stream", "Upload-Complete: ?1", "Upload-Offset: 0")
    made = [
        _request("POST", "/v1/detect?model=a&confidence=0.5&classes=0,2", JPEG, image),
        _request("POST", "/v1/detect?model=a", JPEG, image, "Accept: text/csv", how=CHUNKED),
        _request("POST", "/v1/detect?model=a", JPEG, image, "Accept: image/png;q=0.5, */*;q=0.1"),
        _request("POST", "/v1/detect", detect, form),
        _request("POST", "/v1/detect", base64, text, how=IN_PARTS),
        _request("POST", "/v1/vision/detection", pictures, form),
        _request("POST", "/v1/vision/custom/a", pictures, form),
        _request("POST", "/v1/vision/custom/list"), _request("GET", "/v1/vision/list"),
        _request("POST", "/v1/vision/face", pictures, form), _request("GET", "/v1/status/ping"),
        _request("GET", "/v2"), _request("GET", "/v2/health/ready"),
        _request("GET", "/v2/models/a"),
        _request("GET", "/v2/models/team%2Fb/versions/1/config"),
        _request("GET", "/v2/models/stats"), _request("GET", "/v2/models/a/stats"),
        _request("POST", "/v2/models/a/infer", tensors, text),
        _request(
            "POST", "/v2/models/team/b/versions/1/infer", sized + b"\5\0\0\0hello",
            f"Inference-Header-Content-Length: {len(sized)}",
        ),
        _request("POST", "/v2/models/a/infer", JPEG, "Inference-Header-Content-Length: 0"),
        _request("POST", "/v2/models/a/infer", b"x\x9c\x03\0\0\0\0\1", "Content-Encoding: deflate"),
        _request("POST", "/v2/repository/index", b'{"ready": true}'),
        _request("POST", "/v2/repository/models/a/load", b'{"parameters": {"config": "{}"}}'),
        _request("POST", "/v2/repository/models/a/unload"),
        _request("GET", "/v2/systemsharedmemory/status"), _request("GET", "/v2/trace/setting"),
        _request("GET", "/v1/events?last=5&kinds=EVENT_KIND_RELEASED"),
        _request("GET", "/v1/events", b"", "Accept: text/event-stream", "Last-Event-ID: 1-0"),
        _request("PUT", "/v1/artifacts/" + pool.ARTIFACT, b"a", *upload),
        _request("PUT", "/v1/models/new?image_size=320", b"weights", *upload),
        _request("GET", "/"), _request("GET", "/metrics"), _request("GET", "/livez"),
        _request("GET", "/readyz?verbose"), _request("GET", "/docs"),
        _request("HEAD", "/v1/models"),
        _request(
            "OPTIONS", "/v1/models", b"", "Origin: http://b", "Access-Control-Request-Method: PUT"
        ),
        _request(
            "GET", "/v1/models?name_prefix=t", b"", "X-Request-Id: r1",
            f"Authorization: Bearer yp_{'0' * 10}_{'a' * 48}",
            f"traceparent: 00-{'1' * 32}-{'2' * 16}-01",
        ),
        bytes([VERBATIM]) + b"GET / HTTP/1.0\r\n\r\n",
        bytes([VERBATIM | IN_PARTS]) + b"POST /v1/detect?model=a HTTP/1.1\r\nHost: a\r\n"
        b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\njpeg",
        bytes([VERBATIM | TWICE]) + b"GET /v2 HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n"
        b"Connection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    ]  # fmt: skip
    return [*made, *_admin_seeds()]


def _guarded_seeds() -> list[bytes]:
    """Those of the open port, with a key of each kind in turns."""
    made = []
    for number, seed in enumerate(_seeds()):
        if seed[0] & VERBATIM:
            continue
        head, _, body = seed.partition(b"\n\n")
        kind = _KINDS[number % len(_KINDS)] if number % 3 else "admin"
        made.append(head + f"\nAuthorization: Bearer @{kind}@".encode() + b"\n\n" + body)
    key = ('name="api_key"', b"@detect@")
    form = _form(('name="image"; filename="a.jpg"', JPEG), key)
    fields = f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}"
    caller = 'yolopool-caller: {"name": "k", "role": "admin", "grants": ["*"], "tenant": ""}'
    return [
        *made,
        _request("POST", "/v1/vision/detection", form, fields),
        _request("GET", "/v1/keys", b"", "Authorization: Bearer @control-plane@", caller),
        _request("GET", "/v1/models", b"", "Authorization: Basic eDp5", "Authorization: Bearer x"),
    ]


_FIELDS = (
    b"Content-Type: ", b"Accept: ", b"Accept-Encoding: ", b"Content-Encoding: ", b"Origin: ",
    b"Authorization: Bearer ", b"X-Request-Id: ", b"traceparent: ", b"Last-Event-ID: ",
    b"Upload-Offset: ", b"Upload-Complete: ", b"Expect: 100-continue", b"Connection: ", b"Cookie: ",
    b"Inference-Header-Content-Length: ", b"Range: bytes=", b"Repr-Digest: sha-256=:", b"Upgrade: ",
    b"Authorization: Bearer @admin@", b"Authorization: bearer @granted@",
    b"Authorization: @worker@", b"yolopool-caller: ", b"Sec-Fetch-Site: cross-site",
    b"If-None-Match: ", b"Content-Disposition: ",
)  # fmt: skip
_VERBS = (b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS", b"CONNECT", b"TRACE")
_TEXTS = tuple(text.encode() for text in (*WORDS, *mutation.TEXTS))


def _changed(data: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    """Method, path, query, a field, or the body, as JSON where it is that."""
    how, said = data[:1] or b"\0", data[1:]
    if rng.random() < 0.1:
        how = bytes([how[0] ^ rng.choice((IN_PARTS, CHUNKED, TWICE))])
    head, _, body = said.partition(b"\n\n")
    lines = head.split(b"\n")
    verb, _, target = lines[0].partition(b" ")
    match rng.randrange(8):
        case 0:
            verb = rng.choice(_VERBS)
        case 1:
            target = mutation.of_bytes(target, rng, (), _TEXTS, 4096).replace(b" ", b"%20")
        case 2:
            parts = re.split(rb"(?<=[/?&=])", target)
            parts[rng.randrange(len(parts))] = _quoted(rng.choice(_TEXTS)) + rng.choice(
                (b"", b"/", b"&")
            )
            target = b"".join(parts)
        case 3:
            lines.append(rng.choice(_FIELDS) + _line(rng.choice(_TEXTS)))
        case 4 if len(lines) > 1:
            at = rng.randrange(1, len(lines))
            lines[at] = _line(mutation.of_bytes(lines[at], rng, (), _FIELDS, 2048))
        case _:
            body = _body(body, rng, seeds)
    lines[0] = verb + b" " + _line(target)
    return how + b"\n".join(lines) + b"\n\n" + body


def _body(body: bytes, rng: Random, seeds: Sequence[bytes]) -> bytes:
    if body.startswith(b"{") and rng.random() < 0.85:
        return mutation.of_json(body, rng, WORDS)
    return mutation.of_bytes(body, rng, seeds, (*_FIELDS, b"--" + _BOUNDARY, b"\r\n"), 16384)


def _quoted(text: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte if byte < 33 or byte > 126 else bytes([byte]) for byte in text)


def _line(text: bytes) -> bytes:
    return text.replace(b"\r", b"").replace(b"\n", b"")


TARGETS = {
    "http": Target(
        name="http",
        about="the HTTP port: REST, KServe v2, cameras, admin routes, events",
        open=Http,
        seeds=_seeds,
        share=30,
        mutate=_changed,
        max_bytes=32 * 1024,
        reopen_after=2000,
        says=pool.SAYS,
        examples=150,
    ),
    "guarded": Target(
        name="guarded",
        about="the HTTP port that asks who calls",
        open=GuardedHttp,
        seeds=_guarded_seeds,
        share=20,
        mutate=_changed,
        max_bytes=32 * 1024,
        reopen_after=2000,
        examples=60,
    ),
}
