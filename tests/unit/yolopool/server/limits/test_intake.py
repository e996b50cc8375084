"""Who is cut off, and that nothing ends the watch."""

import asyncio
import resource
import socket
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from yolopool.errors import DeadlineExceeded
from yolopool.server.limits import connections, intake
from yolopool.server.limits.byte_budget import ByteBudget
from yolopool.server.limits.grpc_limits import GrpcLimits
from yolopool.server.limits.intake import Arrival, Intake
from yolopool.transport import CLIENT_OPTIONS

METHOD = "/yolopool.v1.DetectionService/Detect"


class Call:
    """The context of a call whose message comes when it is told so."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.came = asyncio.Event()

    def peer(self) -> str:
        return self._peer

    async def read(self) -> bytes:
        await self.came.wait()
        return b""


def watched(**limits: Any) -> Intake:
    return Intake(GrpcLimits(**limits), ByteBudget(1000))


async def test_the_watch_outlives_a_process_out_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "LOOK_S", 0)
    own = watched(max_memory_bytes=1, message_timeout_s=0)
    call = Call("ipv4:127.0.0.1:1")

    async def serve() -> None:
        await Arrival(own, METHOD, bytes, is_stream=False).message(None, call)

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    await asyncio.to_thread(int)  # Python opens the module of threads here, at first
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # none can be opened any more
    watching = asyncio.create_task(own.watch())
    try:
        with pytest.raises(DeadlineExceeded):  # it goes on to look who is late
            await asyncio.wait_for(serving, 10)
        assert not watching.done()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        watching.cancel()


@pytest.mark.parametrize("is_stream", [True, False])
async def test_who_takes_no_answer_loses_the_connection(is_stream: bool) -> None:
    own = watched()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as caller,
        server.accept()[0],
    ):
        port = caller.getsockname()[1]
        call = Call(f"ipv4:127.0.0.1:{port}")
        call.came.set()

        async def answer() -> None:
            arrival = Arrival(own, METHOD, bytes, is_stream)
            await arrival.message(None, call)
            arrival.read(b"")
            arrival.answers()
            await asyncio.Event().wait()

        answering = asyncio.create_task(answer())
        await asyncio.sleep(0)
        (late,) = own.moving
        assert late.is_late(late.since_s)
        own._cut_off([late], DeadlineExceeded("late"))
        caller.settimeout(10)
        assert caller.recv(1) == b""
        answering.cancel()


async def test_a_stream_that_is_silent_is_not_late() -> None:
    own = watched()
    arrival = Arrival(own, METHOD, bytes, is_stream=True)
    await arrival.message(None, Call("ipv4:127.0.0.1:1"))
    assert not arrival.is_late(arrival.since_s + 3600)
    own.moving.clear()


async def test_files_are_looked_at_once_for_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[Path]()

    class Files(type(Path())):  # type: ignore[misc]
        def iterdir(self) -> Any:
            looks.append(self)
            return super().iterdir()

    monkeypatch.setattr(connections, "_FILES", Files("/proc/self/fd"))
    assert connections.end_connections(f"ipv4:127.0.0.1:{port}" for port in range(1, 513)) == set()
    assert len(looks) == 1


@pytest.mark.parametrize("how", ["answered", "cancelled", "refused", "not a message"])
async def test_a_storm_of_calls_leaves_no_bytes_held(how: str) -> None:
    own = watched()
    size = intake.ALWAYS_BYTES + 1 if how == "refused" else 100

    def read(data: bytes) -> bytes:
        if how == "not a message":
            raise DecodeError
        return data

    async def one() -> None:
        call = Call("ipv4:127.0.0.1:1")
        call.came.set()
        arrival = Arrival(own, METHOD, read, is_stream=False)
        await arrival.message(None, call)
        arrival.read(bytes(size))
        if how == "cancelled":
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(one()) for _ in range(100)]
    for _ in range(5):
        await asyncio.sleep(0)
    if how == "cancelled":
        assert own.budget.taken_bytes == 100 * size
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    assert (own.budget.taken_bytes, own.moving) == (0, set())


def test_a_client_ends_an_idle_connection_first() -> None:
    assert 2 * int(dict(CLIENT_OPTIONS)["grpc.client_idle_timeout_ms"]) < GrpcLimits().idle_s * 1000
