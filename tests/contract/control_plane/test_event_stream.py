"""Events by HTTP: a list, a stream that goes on without a gap, and its end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.events.recorder import EventRecorder
from control_plane.gateway.admin import event_stream
from control_plane.gateway.admin.endpoints import one_line
from control_plane.types.event import EventKind
from tests.contract.control_plane.test_admin_http import fits, problem
from tests.contract.control_plane_rig import Rig
from tests.waiting import becomes
from yolopool.v1 import events_pb2

SSE = {"accept": "text/event-stream"}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        await becomes(lambda: one.plane.view.leader)
        yield one


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{rig.addresses.http}", timeout=20) as client:
        yield client


class Reader:
    """An EventSource: knows the last id, and forgets nothing of the frames."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()
        self.last_id = ""
        self.retry_ms = 0
        self.comments = 0

    async def next(self) -> dict[str, Any] | None:
        """The next event, of a problem with `event`; None: the stream ended."""
        name, data = "", ""
        async for line in self._lines:
            if not line and data:
                return {**json.loads(data), **({"event": name} if name else {})}
            field, _, value = line.partition(": ")
            match field:
                case "id":
                    self.last_id = value
                case "data":
                    data = value
                case "event":
                    name = value
                case "retry":
                    self.retry_ms = int(value)
                case "":
                    self.comments += bool(value)
        return None


@asynccontextmanager
async def reading(
    http: httpx.AsyncClient, query: str = "", last_id: str = ""
) -> AsyncIterator[Reader]:
    headers = SSE | ({"last-event-id": last_id} if last_id else {})
    async with http.stream("GET", f"/v1/events{query}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        yield Reader(answer)


def record(rig: Rig, *messages: str, worker: str = "") -> None:
    recorder: EventRecorder = rig.plane._recorder
    for message in messages:
        recorder.record(EventKind.DIFFERENCE, worker=worker, message=message)


async def test_a_list_has_what_is_kept(rig: Rig, http: httpx.AsyncClient) -> None:
    await rig.ready("a", "b")
    events = fits(await http.get("/v1/events"), 200)["events"]
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "EVENT_KIND_TAKEOVER"
    assert kinds.count("EVENT_KIND_REGISTERED") == 2
    registered = {"kinds": ["EVENT_KIND_REGISTERED", "EVENT_KIND_DELETED"]}
    of_b = fits(await http.get("/v1/events", params={**registered, "model": "b"}), 200)["events"]
    assert [event["version"]["model"] for event in of_b] == ["b"]
    newest = fits(await http.get("/v1/events?last=1", headers={"accept": "application/json"}), 200)
    assert newest["events"] == events[-1:]
    after = fits(await http.get("/v1/events", params={"after": events[0]["id"]}), 200)["events"]
    assert after == events[1:]


async def test_a_reader_that_comes_back_misses_nothing(rig: Rig, http: httpx.AsyncClient) -> None:
    record(rig, "before")
    async with reading(http, "?last=1&kinds=EVENT_KIND_DIFFERENCE") as reader:
        assert (await reader.next() or {})["message"] == "before"
        assert reader.retry_ms > 0
        record(rig, "one", "two\nlines\r\nand \u2028 ü")
        first = await reader.next() or {}
        assert (first["message"], first["id"]) == ("one", reader.last_id)
        assert (await reader.next() or {})["message"] == "two\nlines\r\nand \u2028 ü"
    record(rig, *(f"missed {number}" for number in range(5)))
    # A browser repeats its query, where `last` would leave a gap.
    async with reading(http, "?last=1&kinds=EVENT_KIND_DIFFERENCE", reader.last_id) as again:
        told = [(await again.next() or {})["message"] for _ in range(5)]
        assert told == [f"missed {number}" for number in range(5)]
        record(rig, "and on")
        assert (await again.next() or {})["message"] == "and on"
    # Asked for by the query alone, as curl does.
    async with http.stream("GET", f"/v1/events?follow=true&after={first['id']}") as answer:
        assert (await Reader(answer).next() or {})["message"].startswith("two")


async def test_an_id_of_a_store_whose_clock_was_ahead_misses_nothing(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    all_of_them = fits(await http.get("/v1/events"), 200)["events"]
    later = f"{int(all_of_them[-1]['id'].partition('-')[0]) + 3_600_000}-0"
    assert fits(await http.get(f"/v1/events?after={later}"), 200)["events"] == all_of_them
    async with reading(http, "", later) as reader:
        for event in all_of_them:
            assert (await reader.next() or {})["id"] == event["id"]
        record(rig, "and on")
        assert (await reader.next() or {})["message"] == "and on"
    # The newest itself is no other store's.
    assert fits(await http.get(f"/v1/events?after={reader.last_id}"), 200) == {"events": []}


async def test_wrong_questions_are_refused(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/events?model=a:stable")).status_code == 404
    for query, named in (
        ("last=-1", "last"),
        ("last=x", "last"),
        ("kinds=LOST", "kinds"),
        ("after=newest", "after"),
        ("model=A", "model"),
        ("kind=EVENT_KIND_DIFFERENCE", "kind"),
        ("follow=maybe", "follow"),
    ):
        for headers in ({}, SSE):
            answer = await http.get(f"/v1/events?{query}", headers=headers)
            assert answer.status_code == 400, query
            assert named in answer.json()["detail"]
    answer = await http.get("/v1/events", headers={**SSE, "last-event-id": "nonsense"})
    problem(answer, 400, "INVALID_OPTION")
    json_only = {"accept": "application/json"}
    answer = await http.get("/v1/events?follow=true", headers=json_only)
    problem(answer, 400, "INVALID_OPTION")
    either = {"accept": "application/json, text/event-stream"}
    async with http.stream("GET", "/v1/events", headers=either) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")


async def test_a_silent_stream_is_kept_by_comments(
    rig: Rig, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.1)
    async with reading(http, "?worker=w7") as reader:
        waiting = asyncio.create_task(reader.next())
        await becomes(lambda: reader.comments >= 3)
        record(rig, "at last", worker="w7")
        assert (await waiting or {})["worker"] == "w7"


async def test_a_stream_ends_when_the_control_plane_does(tmp_path: Path) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        async with Rig(tmp_path) as rig:
            http.base_url = httpx.URL(f"http://{rig.addresses.http}")
            stack = reading(http)
            reader = await stack.__aenter__()
            assert await reader.next() is not None
            waiting = asyncio.create_task(_to_the_end(reader))
        assert await asyncio.wait_for(waiting, 10)
        await stack.__aexit__(None, None, None)


async def _to_the_end(reader: Reader) -> bool:
    while await reader.next() is not None:
        pass
    return True


def streams() -> int:
    return sum(task.get_name() == event_stream.TASK for task in asyncio.all_tasks())


async def test_a_caller_who_leaves_frees_the_stream(rig: Rig, http: httpx.AsyncClient) -> None:
    async with reading(http, "?worker=nobody") as reader:
        waiting = asyncio.create_task(reader.next())
        await becomes(lambda: streams() == 1)
        waiting.cancel()
    await becomes(lambda: streams() == 0)
    # Also one who leaves before the answer has begun.
    host, port = rig.addresses.http.split(":")
    for pause_s in (0, 0.01, 0.1, 0.3):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /v1/events?follow=true&worker=nobody HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )
        await asyncio.sleep(pause_s)
        writer.close()
    await asyncio.sleep(0.4)
    await becomes(lambda: streams() == 0)


async def test_the_head_of_a_stream_is_all_of_its_answer(rig: Rig, http: httpx.AsyncClient) -> None:
    for _ in range(2):  # on one connection
        head = await http.head("/v1/events?follow=true")
        assert head.status_code == 200
        assert head.headers["content-type"].startswith("text/event-stream")
    await becomes(lambda: streams() == 0)
    fits(await http.get("/v1/fleet"), 200)


async def test_what_refuses_a_stream_leaves_nothing(rig: Rig, http: httpx.AsyncClient) -> None:
    for _ in range(3):
        answer = await http.get("/v1/events?follow=true&after=nonsense")
        problem(answer, 400, "INVALID_OPTION")
    assert streams() == 0


async def test_a_reader_that_reads_nothing_takes_no_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events wait in the store: the stream stops after what the connection holds."""
    written = 0

    def counted(event: events_pb2.Event) -> str:
        nonlocal written
        written += 1
        return one_line(event)

    monkeypatch.setattr(event_stream, "one_line", counted)
    # With a small window, so that little is on its way.
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    small.setblocking(False)
    host, port = rig.addresses.http.split(":")
    await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=small, limit=64 * 1024)
    writer.write(b"GET /v1/events?follow=true&worker=w1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b"retry: ")
    count, long = 6000, "x" * 2000
    for number in range(count):
        record(rig, f"{number} {long}", worker="w1")
        if number % 500 == 499:
            await rig.plane._recorder.flush()
    await asyncio.sleep(0.5)
    assert 0 < written < count / 2
    for number in range(count):
        told = await reader.readuntil(b'"message":"')
        assert b"\nid: " in told
        assert (await reader.readuntil(b" ")) == f"{number} ".encode()
    writer.close()
