"""A process joins with a token that is used once, renews its certificate, and is revoked."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from control_plane.settings import Settings
from tests.contract.control_plane.test_tls import Fleet, a_fleet, a_worker, admin_of
from tests.contract.control_plane_rig import Rig
from tests.waiting import becomes
from worker.membership import Membership
from yolopool.client.access.joined_processes import IssuedJoinToken
from yolopool.client.async_client import AsyncClient
from yolopool.errors import (
    CertificateNotFound,
    CredentialsInvalid,
    CredentialsMissing,
    FailedPrecondition,
    InvalidOption,
    RoleNeeded,
)
from yolopool.server.grpc_server import open_channel
from yolopool.status import error_from_rpc
from yolopool.tls import joining, signing
from yolopool.tls.certificates import Certificates, TlsFiles
from yolopool.tls.joining import Joining, join, parsed
from yolopool.transport import bearer
from yolopool.v1 import certificates_pb2, certificates_pb2_grpc, membership_pb2, types_pb2
from yolopool.v1.membership_pb2_grpc import MembershipServiceStub

HOSTS = ("127.0.0.1", "localhost")


class Pool(Rig):
    """A control plane that has the authority's key."""

    def __init__(self, folder: Path, fleet: Fleet, **changes: Any) -> None:
        files = fleet.files("plane")
        super().__init__(
            folder, **{
                "auth": "keys", "pool_port": 0, "tls_ca": files.authority,
                "tls_cert": files.certificate, "tls_key": files.key,
                "tls_ca_key": fleet.folder / "ca.key", **changes,
            },
        )  # fmt: skip
        self.certs, self.folder = fleet, folder

    async def __aenter__(self) -> "Pool":
        await super().__aenter__()
        return self

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AsyncClient]:
        key = await admin_of(self)  # type: ignore[arg-type] # as much of a rig as that needs
        ca = self.certs.folder / "ca.pem"
        async with AsyncClient(self.addresses.grpc, key, ca=ca) as client:
            yield client

    async def token(self, name: str = "gpu-1", **options: Any) -> IssuedJoinToken:
        async with self.admin() as admin:
            return await admin.create_join_token(name, **{"hosts": HOSTS, **options})

    def joining(self, token: str, name: str = "this-host", at: str = "") -> Joining:
        file = self.folder / "token"
        file.write_text(token + "\n")
        return Joining(self.folder / "joined", file, name, [at or self.addresses.grpc])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return a_fleet(tmp_path_factory.mktemp("certs"))


@pytest.fixture
async def pool(tmp_path: Path, fleet: Fleet) -> AsyncIterator[Pool]:
    async with Pool(tmp_path, fleet) as pool:
        yield pool


def shown(files: TlsFiles) -> x509.Certificate:
    assert files.certificate is not None
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def names_in(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


async def joined(pool: Pool, files: TlsFiles) -> Any:
    """What joining as a worker answers on the pool's port."""
    async with open_channel(pool.addresses.pool, Certificates(files)) as channel:
        stub: Any = MembershipServiceStub(channel)
        request = membership_pb2.JoinRequest(
            worker=a_worker("gpu-1"), highest_token=types_pb2.FencingToken()
        )
        try:
            return await stub.Join(request, timeout=5)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None


async def test_a_worker_joins_with_a_token_and_needs_none_after(pool: Pool) -> None:
    made = await pool.token(hosts=["gpu-1.example", "127.0.0.1"])
    how = pool.joining(made.token)
    files = await join(how, time.time())
    certificate = shown(files)
    assert names_in(certificate) == [
        "yolopool://worker/gpu-1", f"yolopool-joined://{made.process.id}", "gpu-1.example",
        "127.0.0.1",
    ]  # fmt: skip
    left_s = certificate.not_valid_after_utc.timestamp() - time.time()
    assert 86_000 < left_s <= 86_400
    assert files.certificate is not None
    assert files.certificate.stat().st_mode & 0o777 == 0o600
    assert (await joined(pool, files)).heartbeat_interval_s > 0
    # Started again: the token is gone, and no control plane need be there.
    how.token_file.unlink()
    assert await join(replace(how, at=["127.0.0.1:1"]), time.time()) == files
    assert shown(files) == certificate
    async with pool.admin() as admin:
        (listed,) = await admin.certificates()
        assert (listed.name, listed.role, listed.joined_unix_s > 0) == ("gpu-1", "worker", True)
        assert [key.role for key in await admin.list_keys()] == ["admin"]


async def test_a_token_is_used_once_however_many_try_at_a_time(pool: Pool) -> None:
    made = await pool.token("")
    tries = [
        replace(pool.joining(made.token, f"host-{number}"), folder=pool.folder / str(number))
        for number in range(8)
    ]
    outcomes = await asyncio.gather(
        *(join(one, time.time()) for one in tries), return_exceptions=True
    )
    kinds = sorted(type(one).__name__ for one in outcomes)
    assert kinds == ["CredentialsInvalid"] * 7 + ["TlsFiles"]
    async with pool.admin() as admin:
        (listed,) = await admin.certificates()
    assert listed.name.startswith("host-")
    held = (await pool.registry.desired()).api_keys[made.process.id]
    assert held.secrets == ()


async def test_a_token_is_for_one_name_and_its_hosts(pool: Pool) -> None:
    """What the process would like to be does not count."""
    made = await pool.token("gpu-7", hosts=[])
    files = await join(pool.joining(made.token, "plane-1"), time.time())
    names = names_in(shown(files))
    assert names[0] == "yolopool://worker/gpu-7"
    assert names[2:] == ["127.0.0.1"]  # where it called from
    again = await pool.token("gpu-7")
    with pytest.raises(FailedPrecondition, match="gpu-7"):
        await join(replace(pool.joining(again.token), folder=pool.folder / "other"), time.time())
    async with pool.admin() as admin:
        for wrong in (
            {"role": "control-plane"}, {"role": "client"}, {"name": "a/b"}, {"name": "ca"},
            {"hosts": ["a b"]}, {"hosts": [f"h{n}" for n in range(33)]}, {"lifetime_s": -1},
            {"lifetime_s": float("nan")}, {"lifetime_s": 8 * 86400.0},
        ):  # fmt: skip
            with pytest.raises(InvalidOption):
                await admin.create_join_token(**wrong)


async def test_a_token_ends_and_is_revoked(pool: Pool) -> None:
    short, other = await pool.token(lifetime_s=0.05), await pool.token()
    async with pool.admin() as admin:
        (ended,) = await admin.revoke_certificate(other.process.id)
        assert ended.revoked_unix_s
        with pytest.raises(CertificateNotFound):
            await admin.revoke_certificate("nobody")
    await asyncio.sleep(0.1)
    for made in (short, other):
        with pytest.raises(CredentialsInvalid):
            await join(pool.joining(made.token), time.time())


async def test_a_token_opens_nothing_else(pool: Pool) -> None:
    made = await pool.token()
    secret = parsed(made.token).api_key
    ca = pool.certs.folder / "ca.pem"
    async with AsyncClient(pool.addresses.grpc, secret, ca=ca) as client:
        for call in (client.models, client.list_keys, client.certificates, client.fleet):
            with pytest.raises(RoleNeeded):
                await call()
    # Nor does the whole of it pass for a key, or any key for it.
    async with AsyncClient(pool.addresses.grpc, made.token, ca=ca) as client:
        with pytest.raises(CredentialsInvalid):
            await client.models()
    admin = await admin_of(pool)  # type: ignore[arg-type]
    with pytest.raises(RoleNeeded):
        await asked(pool, a_request(), bearer(admin))
    with pytest.raises(CredentialsMissing):
        await asked(pool, a_request(), ())
    async with pool.admin() as client:
        # It is no key that `keys` could revoke or rotate.
        with pytest.raises(Exception, match="no key"):
            await client.rotate_key(made.process.id)


def a_request(key: Any = None, signer: Any = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return asked.public_bytes(serialization.Encoding.DER)


async def asked(pool: Pool, request: bytes, metadata: Sequence[tuple[str, str]]) -> Any:
    credentials = grpc.ssl_channel_credentials((pool.certs.folder / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(pool.addresses.grpc, credentials) as channel:
        stub: Any = certificates_pb2_grpc.CertificateServiceStub(channel)
        message = certificates_pb2.IssueCertificateRequest(request=request, name="a")
        try:
            return await stub.IssueCertificate(message, timeout=5, metadata=metadata)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from None


async def test_a_request_that_is_none_does_not_use_the_token_up(pool: Pool) -> None:
    made = await pool.token()
    key = bearer(parsed(made.token).api_key)
    whole = a_request()
    forged = bytearray(whole)
    forged[-1] ^= 1  # of the signature
    weak = a_request(rsa.generate_private_key(65537, 1024))
    for request in (b"", b"\x30\x03\x02\x01", bytes(forged), whole[:-5], b"x" * 20_000, weak):
        with pytest.raises(InvalidOption):
            await asked(pool, request, key)
    assert (await asked(pool, whole, key)).certificate


async def test_the_secret_goes_to_no_control_plane_of_another_authority(
    pool: Pool, tmp_path: Path
) -> None:
    made = await pool.token()
    other = a_fleet(tmp_path / "other")
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(other.folder / "plane.pem", other.folder / "plane.key")
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await join(pool.joining(made.token, at=address), time.time())
    server.close()
    assert not any(heard)
    # The token is as good as before.
    assert await join(pool.joining(made.token), time.time())


async def test_a_certificate_is_renewed_while_it_is_used(tmp_path: Path, fleet: Fleet) -> None:
    """A worker of two certificates' lives, which never has to join again."""
    async with Pool(tmp_path, fleet, joined_certificate_s=3.0) as pool:
        files = await join(pool.joining((await pool.token()).token), time.time())
        first = shown(files)
        renewing = asyncio.create_task(
            joining.keep_renewed(files, ["127.0.0.1:1", pool.addresses.pool], time.time)
        )
        membership = Membership(
            [pool.addresses.pool], lambda: a_worker("gpu-1"), types_pb2.FencingToken,
            certificates=Certificates(files),
        )  # fmt: skip
        staying = asyncio.create_task(membership.run())
        await becomes(lambda: "gpu-1" in pool.plane.view.workers)
        ends = first.not_valid_after_utc.timestamp()
        await becomes(lambda: shown(files).not_valid_after_utc.timestamp() > ends + 2)
        assert time.time() < ends + 3
        second = shown(files)
        assert names_in(second) == names_in(first)
        assert second.public_key() != first.public_key()
        assert (await joined(pool, files)).cluster
        async with pool.admin() as admin:
            (listed,) = await admin.certificates()
            assert listed.until_unix_s >= second.not_valid_after_utc.timestamp() - 1
        for task in (renewing, staying):
            task.cancel()
        await asyncio.gather(renewing, staying, return_exceptions=True)


async def test_who_was_revoked_neither_renews_nor_stays(pool: Pool) -> None:
    made = await pool.token()
    files = await join(pool.joining(made.token), time.time())
    one = a_worker("gpu-1")

    async def heartbeats() -> AsyncIterator[Any]:
        while True:
            yield membership_pb2.HeartbeatRequest(worker=one)
            await asyncio.sleep(0.1)

    async with open_channel(pool.addresses.pool, Certificates(files)) as channel:
        stub: Any = MembershipServiceStub(channel)
        await stub.Join(membership_pb2.JoinRequest(worker=one), timeout=5)
        stream = stub.Heartbeat(heartbeats())
        assert await stream.read()
        async with pool.admin() as admin:
            (ended,) = await admin.revoke_certificate("gpu-1")
            assert ended.revoked_unix_s
            assert await admin.revoke_certificate("gpu-1") == (ended,)
        with pytest.raises(grpc.RpcError) as raised:  # noqa: PT012 - until it is heard of
            async with asyncio.timeout(10):
                while True:
                    await stream.read()
        assert isinstance(error_from_rpc(raised.value), CredentialsInvalid)
    with pytest.raises(CredentialsInvalid):
        await joined(pool, files)
    with pytest.raises(CredentialsInvalid):
        await joining._renew(files, [pool.addresses.pool])
    # The name is free again, and the old certificate is as dead as before.
    again = await pool.token()
    how = replace(pool.joining(again.token), folder=pool.folder / "again")
    assert (await joined(pool, await join(how, time.time()))).cluster
    with pytest.raises(CredentialsInvalid):
        await joined(pool, files)


async def test_what_did_not_join_with_a_token_is_not_renewed_here(pool: Pool) -> None:
    with pytest.raises(FailedPrecondition, match="did not join"):
        await joining._renew(pool.certs.files("w1"), [pool.addresses.pool])
    with pytest.raises(CredentialsMissing):
        await joining._renew(pool.certs.files("visitor"), [pool.addresses.pool])
    with pytest.raises(RoleNeeded):
        await joining._renew(pool.certs.files("plane"), [pool.addresses.pool])


async def test_a_control_plane_without_the_key_says_so_and_another_is_asked(
    pool: Pool, tmp_path: Path
) -> None:
    async with Pool(
        tmp_path / "second", pool.certs, tls_ca_key=None, data_dir=tmp_path / "second"
    ) as second:
        second.registry = pool.registry
        async with second.admin() as admin:
            with pytest.raises(FailedPrecondition, match="--tls-ca-key"):
                await admin.create_join_token()


@pytest.mark.parametrize("missing", ["tls_ca", "pool_port", "auth"])
def test_settings_with_which_nobody_could_join_are_refused(fleet: Fleet, missing: str) -> None:
    files = fleet.files("plane")
    given = {
        "auth": "keys", "pool_port": 0, "tls_ca": files.authority, "tls_cert": files.certificate,
        "tls_key": files.key, "tls_ca_key": fleet.folder / "ca.key",
    }  # fmt: skip
    del given[missing]
    with pytest.raises(ValueError, match="tls_ca_key"):
        Settings(**given)  # type: ignore[arg-type]


def test_the_authoritys_key_must_be_its_own(fleet: Fleet, tmp_path: Path) -> None:
    other = a_fleet(tmp_path / "other")
    with pytest.raises(ValueError, match="no certificate"):
        signing.read(fleet.folder / "ca.pem", other.folder / "ca.key")
    both = tmp_path / "both.pem"
    both.write_bytes(
        (fleet.folder / "ca.pem").read_bytes() + (other.folder / "ca.pem").read_bytes()
    )
    assert signing.read(both, other.folder / "ca.key").der


@pytest.mark.parametrize("text", ["", "yp_0", "yp_0.", "yp_0.AAAA", "yp_0.é", "a.b.c"])
def test_what_is_no_token_is_told_before_anyone_is_asked(text: str) -> None:
    with pytest.raises(FailedPrecondition, match="join token"):
        parsed(text)
