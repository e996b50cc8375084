"""Connections of every kind are encrypted, and only who has a certificate of the pool joins it."""

import asyncio
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from control_plane.identity.admin_key import read
from tests.contract.control_plane_rig import Rig, ScriptedWorker
from tests.waiting import becomes
from worker.membership import Membership
from worker.service.callers import guards
from yolopool.client.async_client import AsyncClient
from yolopool.errors import CredentialsMissing, RoleNeeded, Unavailable
from yolopool.server.grpc_server import GrpcServer, open_channel
from yolopool.status import error_from_rpc
from yolopool.tls import authority, certificates
from yolopool.tls.certificates import Certificates, TlsFiles
from yolopool.v1 import (
    fleet_pb2,
    membership_pb2,
    membership_pb2_grpc,
    types_pb2,
    worker_pb2,
    worker_pb2_grpc,
)

HOSTS = ("127.0.0.1", "localhost")
EXPIRES = "yolopool_certificate_expires_timestamp_seconds"


@dataclass(frozen=True)
class Fleet:
    """An authority and what it issued."""

    folder: Path

    def files(self, name: str) -> TlsFiles:
        return TlsFiles(
            self.folder / "ca.pem", self.folder / f"{name}.pem", self.folder / f"{name}.key"
        )

    def issue(self, name: str, role: str, days: float = 1.0, now: float | None = None) -> None:
        authority.issue(self.folder, name, role, HOSTS, days, now or time.time())


def a_fleet(folder: Path) -> Fleet:
    authority.create(folder, time.time())
    fleet = Fleet(folder)
    for name, role in (("plane", "control-plane"), ("w1", "worker"), ("visitor", "client")):
        fleet.issue(name, role)
    return fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return a_fleet(tmp_path_factory.mktemp("certs"))


class Encrypted(Rig):
    """A control plane whose ports speak TLS; `pool` asks for certificates."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        files = fleet.files("plane")
        super().__init__(
            folder, auth="keys", pool_port=0, tls_ca=files.authority, tls_cert=files.certificate,
            tls_key=files.key,
        )  # fmt: skip
        self.fleet = fleet


@pytest.fixture
async def rig(tmp_path: Path, fleet: Fleet) -> AsyncIterator[Encrypted]:
    rig = Encrypted(tmp_path, fleet)
    async with rig:
        yield rig


async def admin_of(rig: Encrypted) -> str:
    path = rig.settings.data_dir / "admin.key"
    await becomes(lambda: path.exists() and rig.plane.view.desired.api_keys)
    secret = read(path)
    assert secret is not None
    return secret.text


async def test_a_client_that_trusts_the_authority_calls(rig: Encrypted, fleet: Fleet) -> None:
    key = await admin_of(rig)
    async with AsyncClient(rig.addresses.grpc, key, ca=fleet.folder / "ca.pem") as client:
        assert await client.models() == ()
    async with AsyncClient(rig.addresses.grpc, ca=fleet.folder / "ca.pem") as client:
        with pytest.raises(CredentialsMissing):
            await client.models()


async def test_a_client_without_tls_or_with_another_authority_does_not(
    rig: Encrypted, tmp_path: Path
) -> None:
    other = a_fleet(tmp_path / "other")
    for ca in (None, other.folder / "ca.pem"):
        async with AsyncClient(rig.addresses.grpc, "yp_0", ca=ca) as client:
            with pytest.raises(Unavailable):
                await client.fleet()


async def test_http_is_encrypted_too(rig: Encrypted, fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=str(fleet.folder / "ca.pem"))
    async with httpx.AsyncClient(verify=context) as http:
        assert (await http.get(f"https://{rig.addresses.http}/livez")).status_code == 200
        with pytest.raises(httpx.HTTPError):
            await http.get(f"http://{rig.addresses.http}/livez")


async def test_a_metric_says_when_the_certificate_runs_out(rig: Encrypted, fleet: Fleet) -> None:
    context = ssl.create_default_context(cafile=str(fleet.folder / "ca.pem"))
    key = await admin_of(rig)
    shown = authority.shown(fleet.folder / "plane.pem")
    async with httpx.AsyncClient(
        verify=context, headers={"authorization": f"Bearer {key}"}
    ) as http:
        text = (await http.get(f"https://{rig.addresses.http}/metrics")).text
    (line,) = [one for one in text.splitlines() if one.startswith(EXPIRES)]
    assert float(line.split()[1]) == shown.until_unix_s


def a_worker(name: str = "w1") -> fleet_pb2.Worker:
    one = ScriptedWorker(name)
    one.address = "127.0.0.1:9"
    return one.report()


async def joined(address: str, files: TlsFiles | None) -> Any:
    """What joining as a worker answers, or the typed error that it raises."""
    own = Certificates(files) if files is not None else None
    async with open_channel(address, own) as channel:
        stub: Any = membership_pb2_grpc.MembershipServiceStub(channel)
        request = membership_pb2.JoinRequest(
            worker=a_worker(), highest_token=types_pb2.FencingToken()
        )
        try:
            return await stub.Join(request, timeout=3)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None


async def test_only_a_workers_certificate_joins(
    rig: Encrypted, fleet: Fleet, tmp_path: Path
) -> None:
    pool = rig.addresses.pool
    assert (await joined(pool, fleet.files("w1"))).heartbeat_interval_s > 0
    with pytest.raises(CredentialsMissing):  # a client of the same authority
        await joined(pool, fleet.files("visitor"))
    with pytest.raises(RoleNeeded):
        await joined(pool, fleet.files("plane"))
    other = a_fleet(tmp_path / "other")
    mixed = TlsFiles(fleet.folder / "ca.pem", *_own(other.files("w1")))
    for files in (None, TlsFiles(fleet.folder / "ca.pem"), mixed):
        with pytest.raises(Unavailable):
            await joined(pool, files)
    # On the callers' port nobody is asked for one.
    with pytest.raises(CredentialsMissing):
        await joined(rig.addresses.grpc, fleet.files("w1"))


def _own(files: TlsFiles) -> tuple[Path | None, Path | None]:
    return files.certificate, files.key


async def test_a_workers_certificate_is_no_callers(rig: Encrypted, fleet: Fleet) -> None:
    """It may join; it may not list keys, nor act in another's name."""
    own = Certificates(fleet.files("w1"))
    forged = (("yolopool-caller", '{"name":"x","role":"admin","grants":["*"],"tenant":""}'),)
    for metadata in ((), forged):
        async with open_channel(rig.addresses.pool, own) as channel:
            call: Any = channel.unary_unary("/yolopool.v1.KeyService/ListKeys")
            with pytest.raises(grpc.RpcError) as raised:
                await call(b"", timeout=3, metadata=metadata)
            assert isinstance(error_from_rpc(raised.value), RoleNeeded)


async def test_a_worker_obeys_control_planes_alone(fleet: Fleet) -> None:
    own = Certificates(fleet.files("w1"))
    server = GrpcServer(["yolopool.v1.WorkerService"], guards(own))
    one = ScriptedWorker("w1")
    one.address = "127.0.0.1:9"
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(one, server.server)
    port = await server.start("127.0.0.1", 0, own, ask_clients=True)
    try:
        for name, right in (("plane", True), ("w1", False), ("visitor", False)):
            async with open_channel(
                f"127.0.0.1:{port}", Certificates(fleet.files(name))
            ) as channel:
                stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)
                call = stub.GetInventory(worker_pb2.GetInventoryRequest(), timeout=3)
                if right:
                    assert (await call).worker.id == "w1"
                else:
                    with pytest.raises(grpc.RpcError) as raised:
                        await call
                    assert isinstance(error_from_rpc(raised.value), RoleNeeded)
    finally:
        await server.stop(0)


async def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_S", 0.05)
    fleet = a_fleet(tmp_path / "certs")
    async with Encrypted(tmp_path / "data", fleet) as rig:
        before = await _served(rig.addresses.grpc), await _served(rig.addresses.http)
        fleet.issue("plane", "control-plane")

        async def renewed() -> bool:
            now = await _served(rig.addresses.grpc), await _served(rig.addresses.http)
            return now[0] != before[0] and now[1] != before[1]

        async with asyncio.timeout(20):
            while not await renewed():  # noqa: ASYNC110 - what a port shows has no event
                await asyncio.sleep(0.05)
        assert (await joined(rig.addresses.pool, fleet.files("w1"))).cluster


async def _served(address: str) -> bytes:
    """The certificate that a port shows, DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return found


async def test_the_health_check_of_the_images_speaks_tls(
    rig: Encrypted, fleet: Fleet, tmp_path: Path
) -> None:
    w1 = fleet.files("w1")
    own = {"HEALTH_CERT": str(w1.certificate), "HEALTH_KEY": str(w1.key)}
    trusts = {"HEALTH_CA": str(w1.authority), "HEALTH_HOST": "localhost"}

    async def status(address: str, environ: dict[str, str]) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "deploy/health.py", address, env={**os.environ, **environ},
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait()

    stranger = {"HEALTH_CA": str(a_fleet(tmp_path / "other").folder / "ca.pem")}
    found = await asyncio.gather(
        status(rig.addresses.grpc, trusts),
        status(rig.addresses.pool, {**trusts, **own}),
        status(rig.addresses.grpc, {}),
        status(rig.addresses.pool, trusts),
        status(rig.addresses.grpc, {**trusts, **stranger}),
    )
    assert [*found] == [0, 0, 1, 1, 1]


async def test_an_expired_certificate_is_refused(rig: Encrypted, fleet: Fleet) -> None:
    fleet.issue("late", "worker", days=0.001, now=time.time() - 3600)
    with pytest.raises(Unavailable):
        await joined(rig.addresses.pool, fleet.files("late"))


async def test_a_worker_of_the_pool_joins_with_its_certificate(
    rig: Encrypted, fleet: Fleet
) -> None:
    membership = Membership(
        [rig.addresses.pool], a_worker, types_pb2.FencingToken,
        certificates=Certificates(fleet.files("w1")),
    )  # fmt: skip
    task = asyncio.create_task(membership.run())
    await becomes(lambda: "w1" in rig.plane.view.workers)
    task.cancel()


def test_files_that_do_not_belong_together_are_refused(fleet: Fleet) -> None:
    w1, plane = fleet.files("w1"), fleet.files("plane")
    with pytest.raises(ValueError, match="PEM"):
        Certificates(TlsFiles(w1.authority, w1.certificate, plane.key))
    with pytest.raises(ValueError, match="go together"):
        certificates.certificates_of(None, w1.certificate, None)
    with pytest.raises(OSError, match=r"none\.pem"):
        Certificates(TlsFiles(fleet.folder / "none.pem"))
