"""Who may call what with which certificate: every method on the port of the pool's processes."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool

from control_plane.identity.access import OPEN, RULES
from control_plane.types.access.api_key import Role
from tests.contract.control_plane.test_access import METHODS, request_about
from tests.contract.control_plane.test_joining import Pool
from tests.contract.control_plane.test_tls import Fleet, a_fleet
from yolopool.errors import (
    CredentialsInvalid,
    CredentialsMissing,
    RoleNeeded,
    Unavailable,
    YolopoolError,
)
from yolopool.server.grpc_server import open_channel
from yolopool.status import error_from_rpc
from yolopool.tls.certificates import Certificates, TlsFiles
from yolopool.tls.joining import join

OWN = {
    "a worker's": Role.WORKER,
    "one that joined": Role.WORKER,
    "a control plane's": Role.CONTROL_PLANE,
}


class Entrants:
    """A channel to the pool's port for each kind of certificate."""

    def __init__(self, folder: Path, certs: Fleet) -> None:
        self.pool = Pool(folder, certs)
        self._other = a_fleet(folder / "other")
        self._stack = AsyncExitStack()
        self.channels: dict[str, grpc.aio.Channel] = {}

    async def open(self) -> None:
        await self._stack.enter_async_context(self.pool)
        certs, pool = self.pool.certs, self.pool
        ca = certs.folder / "ca.pem"
        w1 = self._other.files("w1")
        certs.issue("late", "worker", days=0.001, now=time.time() - 3600)
        kinds: dict[str, TlsFiles] = {
            "none": TlsFiles(ca),
            "of another authority": TlsFiles(ca, w1.certificate, w1.key),
            "expired": certs.files("late"),
            "a client's": certs.files("visitor"),
            "a worker's": certs.files("w1"),
            "a control plane's": certs.files("plane"),
        }
        for kind, name in (("one that joined", "gpu-1"), ("revoked", "gpu-2")):
            how = pool.joining((await pool.token(name)).token)
            kinds[kind] = await join(replace(how, folder=pool.folder / name), time.time())
        async with pool.admin() as admin:
            await admin.revoke_certificate("gpu-2")
        for kind, files in kinds.items():
            channel = open_channel(pool.addresses.pool, Certificates(files))
            self.channels[kind] = await self._stack.enter_async_context(channel)

    async def close(self) -> None:
        await self._stack.aclose()

    async def outcome(self, method: str, kind: str, limit_s: float) -> type[YolopoolError] | None:
        _, service, name = method.split("/")
        described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
        channel = self.channels[kind]
        ways = {
            (False, False): channel.unary_unary, (True, False): channel.stream_unary,
            (False, True): channel.unary_stream, (True, True): channel.stream_stream,
        }  # fmt: skip
        way: Any = ways[described.client_streaming, described.server_streaming]
        request = request_about(method, "a").SerializeToString()
        called = way(method)(
            iter([request]) if described.client_streaming else request, timeout=limit_s
        )
        try:
            await (called.read() if described.server_streaming else called)
        except grpc.RpcError as error:
            return type(error_from_rpc(error))
        return None


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture(scope="module")
def entrants(
    loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Entrants]:
    folder = tmp_path_factory.mktemp("entrants")
    (folder / "data").mkdir()
    entrants = Entrants(folder / "data", a_fleet(folder / "certs"))
    loop.run_until_complete(entrants.open())
    yield entrants
    loop.run_until_complete(entrants.close())


def expected(method: str, kind: str) -> type[YolopoolError] | None:
    """The error; None: the call is let in."""
    if kind in ("none", "of another authority", "expired"):
        return Unavailable  # they get no connection, not even for health
    if method in OPEN:
        return None
    if kind == "a client's":
        return CredentialsMissing
    if kind == "revoked":
        return CredentialsInvalid
    return None if OWN[kind].allows(RULES[method].role) else RoleNeeded


@pytest.mark.matrix(sample=16)
@pytest.mark.parametrize("method", METHODS)
def test_the_matrix(entrants: Entrants, loop: asyncio.AbstractEventLoop, method: str) -> None:
    refusals = (Unavailable, CredentialsMissing, CredentialsInvalid, RoleNeeded)
    seen, right = {}, {}
    for kind in entrants.channels:
        right[kind] = expected(method, kind)
        # What is let in may go on for ever.
        limit_s = 5 if right[kind] else 0.3
        found = loop.run_until_complete(entrants.outcome(method, kind, limit_s))
        seen[kind] = found if found in refusals else None
    assert seen == right
