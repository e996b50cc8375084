"""Connections of the HTTP port, by what is sent on the socket: where one request ends and the next
begins, who may send it, and what a caller who leaves costs.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.waiting import becomes

pytestmark = pytest.mark.asyncio(loop_scope="module")
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


class Caller:
    """One connection. `say` sends; `heard` is what is answered until it says nothing more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.02)  # each in a packet of its own

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, fields and body of the next answer, which says its length."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(fields["content-length"]))
        return int(first.split()[1]), fields, body

    async def is_ended(self) -> bool:
        """Whether the server ends the connection, and says nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


class Setting:
    def __init__(self, rig: Rig, worker: ScriptedWorker) -> None:
        self.rig, self.worker = rig, worker
        self.callers: list[Caller] = []

    async def call(self) -> Caller:
        host, _, port = self.rig.addresses.http.rpartition(":")
        self.callers.append(Caller(*await asyncio.open_connection(host, int(port))))
        return self.callers[-1]

    async def asked(self, *pieces: bytes) -> Caller:
        caller = await self.call()
        await caller.say(*pieces)
        return caller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    folder = tmp_path_factory.mktemp("connections")
    async with Rig(folder, http_cors_origins=("https://a.example",)) as rig:
        worker = await rig.worker("w1")
        await rig.ready("shapes")
        await rig.load("shapes")
        one = Setting(rig, worker)
        yield one
        for caller in one.callers:
            caller.writer.close()


@pytest.fixture(autouse=True)
def at_once(setting: Setting) -> None:
    setting.worker.infer_s = 0.0


def post(fields: str = "", query: str = "model=none", body: bytes = b"") -> bytes:
    return f"POST /v1/detect?{query} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() + body


# --- where a request ends -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"GET /livez HTTP/1.1\r\n\r\n", id="no host"),
        pytest.param(
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", id="two hosts"
        ),
        pytest.param(post("Transfer-Encoding: gzip, chunked\r\n", body=b"0\r\n\r\n"), id="packed"),
        pytest.param(post("Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"), id="coding"),
    ],
)
async def test_what_is_no_request_ends_the_connection(setting: Setting, request_: bytes) -> None:
    caller = await setting.asked(request_)
    status, fields, _ = await caller.answer()
    assert (status, fields["connection"]) == (400, "close")
    assert await caller.is_ended()


async def test_old_callers_name_no_host(setting: Setting) -> None:
    caller = await setting.asked(b"GET /livez HTTP/1.0\r\n\r\n")
    assert (await caller.answer())[0] == 200


async def test_another_protocol_is_not_taken_however_it_is_offered(setting: Setting) -> None:
    offer = "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n"
    whole = post(offer, body=b"xyz")
    for at in (whole.index(b"grade: h2c"), whole.index(b"h2c"), len(whole) - 5, len(whole) - 4):
        caller = await setting.asked(whole[:at], whole[at:], GET)
        status, _, body = await caller.answer()
        assert (status, b"MODEL_NOT_FOUND" in body) == (404, True), at  # it had its body
        assert (await caller.answer())[0] == 200
    # Behind another request it is not looked for: its body must not become a request.
    caller = await setting.asked(GET + post(offer.replace("3", str(len(GET))), body=GET))
    status, fields, _ = await caller.answer()
    assert (status, fields["connection"]) == (200, "close")
    assert await caller.is_ended()


async def test_fields_behind_a_body_say_nothing_of_the_request(setting: Setting) -> None:
    fields = f"{CHUNKED}X-Request-Id: mine\r\n"
    behind = b"1\r\nx\r\n0\r\nX-Request-Id: other\r\n\r\n"
    caller = await setting.asked(post(fields, body=behind), GET)
    status, told, _ = await caller.answer()
    assert (status, told["x-request-id"]) == (404, "mine")
    assert (await caller.answer())[0] == 200


@pytest.mark.parametrize("answered", [False, True])
async def test_fields_behind_a_body_have_an_end(setting: Setting, answered: bool) -> None:
    accept = "Accept: text/html\r\n" if answered else ""
    caller = await setting.asked(post(CHUNKED + accept, body=b"1\r\nx\r\n0\r\nA: "))
    if answered:  # before its body ended
        assert (await caller.answer())[0] == 406
    await caller.say(*[b"x" * 20_000] * 3)
    if not answered:
        status, fields, _ = await caller.answer()
        assert (status, fields["connection"]) == (431, "close")
    assert await caller.is_ended()


async def test_a_refusal_is_never_taken_for_the_answer_to_another(setting: Setting) -> None:
    setting.worker.infer_s = 0.3
    slow = post("Content-Length: 1\r\n", "model=shapes", b"x")
    # What follows is none at all: the answers before it come, and then the end.
    caller = await setting.asked(slow + GET + b"no request\r\n\r\n")
    assert (await caller.answer())[0] == 200
    status, fields, body = await caller.answer()
    assert (status, body, fields["connection"]) == (200, b"ok\n", "close")
    assert await caller.is_ended()
    # It has begun, and its body is none.
    caller = await setting.asked(slow + post(CHUNKED, body=b"no size\r\n"))
    assert await caller.is_ended()


async def test_who_waits_for_leave_to_send_is_not_misread(setting: Setting) -> None:
    fields = "Accept: text/html\r\nExpect: 100-continue\r\nContent-Length: 50\r\n"
    caller = await setting.asked(post(fields))
    status, told, _ = await caller.answer()
    assert (status, told["connection"]) == (406, "close")
    assert await caller.is_ended()


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (post("Connection: close\r\nContent-Length: 90000000\r\n"), 413),
        (b"GET / HTTP/1.1\r\nA: ", 431),
    ],
)
async def test_who_is_refused_while_it_sends_hears_why(
    setting: Setting, begin: bytes, status: int
) -> None:
    caller = await setting.call()
    caller.writer.write(begin + b"x" * 8_000_000)
    await caller.writer.drain()  # it is heard to the end, and not reset
    assert (await caller.answer())[0] == status
    assert await caller.is_ended()


async def test_a_head_of_what_has_no_end_ends(setting: Setting) -> None:
    caller = await setting.asked(
        b"HEAD /v1/events?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n", GET
    )
    head = await caller.reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    assert (await caller.answer())[0] == 200


async def test_no_redirect_to_where_a_caller_says(setting: Setting) -> None:
    caller = await setting.asked(b"GET /v1/fleet/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    status, fields, body = await caller.answer()
    assert (status, "location" in fields, b"evil.example" in body) == (403, False, True)
    caller = await setting.asked(b"GET /v1/fleet/ HTTP/1.1\r\nHost: localhost:1\r\n\r\n")
    status, fields, body = await caller.answer()
    assert (status, "location" in fields, b"/v1/fleet/" in body) == (404, False, True)


# --- who may send it ------------------------------------------------------------------------------


async def test_pages_of_other_sites_change_nothing(setting: Setting) -> None:
    form = "Content-Type: text/plain\r\nContent-Length: 0\r\n"
    unload = f"POST /v1/models/shapes/unload?wait=true HTTP/1.1\r\nHost: localhost\r\n{form}"
    for fields in (
        "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://x\r\n",  # a name that was made to lead here
    ):
        caller = await setting.asked(f"{unload}{fields}\r\n".encode())
        status, _, body = await caller.answer()
        assert (status, b"PERMISSION_DENIED" in body) == (403, True), fields
    assert (await setting.rig.detect("shapes", encoded=b"x")).version.model == "shapes"
    for fields in ("Origin: https://a.example\r\nSec-Fetch-Site: cross-site\r\n", ""):
        caller = await setting.asked(post(f"{fields}Content-Length: 1\r\n", "model=shapes", b"x"))
        assert (await caller.answer())[0] == 200, fields


# --- what it costs --------------------------------------------------------------------------------


async def test_a_caller_who_leaves_in_a_body_is_no_surprise(setting: Setting) -> None:
    gateway = setting.rig.plane._http._server._server.server_state
    with capture_logs() as lines:
        for begin in (
            post("Content-Length: 10\r\n", body=b"x"),
            b"PUT /v1/artifacts/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"
            % (b"a" * 64),
            b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
        ):
            caller = await setting.asked(begin)
            await becomes(lambda: gateway.tasks)
            caller.writer.close()
            await becomes(lambda: not gateway.tasks)
    assert [line for line in lines if line["log_level"] == "error"] == []


async def test_empty_lines_keep_no_connection_open(tmp_path: Path) -> None:
    async with Rig(tmp_path, http_keep_alive_s=1) as rig:
        host, _, port = rig.addresses.http.rpartition(":")
        caller = Caller(*await asyncio.open_connection(host, int(port)))
        await caller.say(GET)
        assert (await caller.answer())[0] == 200
        await caller.say(b"\r\n")
        async with asyncio.timeout(20):
            assert await caller.is_ended()
        caller.writer.close()


@pytest.mark.parametrize("inside", [b"[%s[]]" % (b"[]," * 300_000), b'"%s"' % (b"," * 300_000)])
async def test_json_of_many_values_is_not_read(setting: Setting, inside: bytes) -> None:
    image = base64.b64encode(b"x")
    body = b'{"model": "none", "image": "%s", "a": %s}' % (image, inside)
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    caller = await setting.asked(post(fields, "", body))
    status, _, told = await caller.answer()
    assert status == 400
    assert b"values beside the image" in told
