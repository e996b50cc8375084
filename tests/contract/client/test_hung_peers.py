"""A peer that accepts a connection and then says nothing: every call that goes out ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.leader.client import LeaderClient, LeaderLost
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.types.lease import FencingToken, Leader
from control_plane.types.version import VersionKey
from control_plane.view.view import View
from control_plane.worker_client import WorkerClient
from importer.supervisor import ControlPlanes
from tests.contract.control_plane_rig import Rig
from worker import membership
from yolopool.client.async_client import AsyncClient
from yolopool.client.client import Client
from yolopool.errors import (
    DeadlineExceeded,
    RegistryUnavailable,
    Unavailable,
    WorkerLost,
    YolopoolError,
)
from yolopool.server.clock import Clock
from yolopool.v1 import fleet_pb2, importing_pb2, types_pb2, worker_pb2

SOON_S = 0.3


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """The address of a peer that takes all that is sent, and answers nothing."""
    loop, taken = asyncio.get_running_loop(), list[asyncio.BaseTransport]()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            taken.append(transport)

    server = await loop.create_server(Silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    for transport in taken:
        transport.close()
    server.close()


async def within(call: Any) -> Any:
    """The result of a call that must end by itself, far below the bound."""
    return await asyncio.wait_for(call, 30)


async def test_of_a_client(silent: str) -> None:
    async with AsyncClient(silent) as client:
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await within(client.detect(b"jpeg", model="shapes", timeout_s=SOON_S))

    def blocking() -> None:
        with Client(silent) as client:
            client.models(timeout_s=SOON_S)

    with pytest.raises((DeadlineExceeded, Unavailable)):
        await within(asyncio.to_thread(blocking))


async def test_of_a_control_plane_to_a_worker(silent: str, tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.worker("w1")
        await rig.ready("shapes")
        worker = rig.plane.view.workers["w1"]
        version = rig.plane.view.catalogue.models["shapes"][0]
        hung = replace(worker, address=silent, incarnation="hung")
        client = WorkerClient()
        token = rig.plane._election.token
        assert token is not None
        calls = (
            client.infer(hung, worker_pb2.InferRequest(), SOON_S),
            client.assign(hung, version, "file:///p", None, False, False, token, SOON_S),
            client.release(hung, version.key, token, SOON_S),
            client.drain(hung, token, SOON_S),
        )
        for call in calls:
            with pytest.raises((DeadlineExceeded, WorkerLost)):
                await within(call)
        await client.close()


async def test_of_a_follower_to_the_leader(silent: str) -> None:
    view = View(Clock(time.monotonic, time.time))
    client, token = LeaderClient(view, "follower"), FencingToken(1, 1)
    view.set_leader(Leader("hung", token, silent))
    with pytest.raises((LeaderLost, DeadlineExceeded)):
        await within(client.want(silent, VersionKey("a", 1), SOON_S))
    # Without a deadline it ends once another leads.
    call = asyncio.create_task(client.call(silent, "/x.Y/Z", b"", None))
    await asyncio.sleep(0.05)
    view.set_leader(Leader("new", token, "127.0.0.1:1"))
    with pytest.raises(LeaderLost):
        await within(call)
    await client.close()


async def test_of_a_worker(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "JOIN_TIMEOUT_S", SOON_S)
    one = membership.Membership([silent], lambda: fleet_pb2.Worker(id="w1"), types_pb2.FencingToken)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(3 * SOON_S)
    assert not running.done()  # it tries again and again
    running.cancel()
    await within(one.leave())


async def test_of_an_importer(silent: str) -> None:
    planes = ControlPlanes((silent, silent))
    with pytest.raises(YolopoolError):
        await within(planes.call("ClaimImport", importing_pb2.ClaimImportRequest(), SOON_S))
    await planes.close()


async def test_of_a_store(silent: str) -> None:
    registry = RedisRegistry(f"redis://{silent}", None, timeout_s=SOON_S)
    with pytest.raises((RegistryUnavailable, TimeoutError)):
        await within(registry.workers())
    await registry.close()
