"""Redis over TLS, and its sentinels: names and certificates are checked on both sides."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.settings import Settings
from control_plane.store.redis.redis_access import RedisAccess, access_of
from control_plane.store.redis.redis_client import connect, disconnect
from control_plane.store.redis.redis_registry import RedisRegistry
from tests.contract.redis_servers import DEBIAN, find, free_port, running, sentinel, server
from tests.contract.registry.test_redis import add, answering
from yolopool.errors import RegistryUnavailable
from yolopool.tls import authority


def _speaks_tls() -> bool:
    """Whether the installed server does; the wheel's is built without it."""
    path = find(DEBIAN)
    if path is None:
        return False
    asked = subprocess.run(
        [path, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/nonexistent"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    # One without TLS does not know the word.
    return "Bad directive" not in asked.stdout + asked.stderr


pytestmark = pytest.mark.skipif(not _speaks_tls(), reason="needs a redis-server with TLS")
PASSWORD, OF_SENTINEL = "5ecret", "0ther"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    authority.create(folder, time.time())
    for name, hosts in (("redis", ["localhost", "127.0.0.1"]), ("elsewhere", ["redis.example"])):
        authority.issue(folder, name, "client", hosts, 1.0, time.time())
    authority.issue(folder, "plane", "control-plane", [], 1.0, time.time())
    authority.create(folder / "other", time.time())
    authority.issue(folder / "other", "plane", "control-plane", [], 1.0, time.time())
    return folder


def tls(certs: Path, port: int, name: str = "redis", clients: str = "yes") -> list[str]:
    return [
        "--tls-port", str(port), "--tls-cert-file", str(certs / f"{name}.pem"),
        "--tls-key-file", str(certs / f"{name}.key"), "--tls-ca-cert-file", str(certs / "ca.pem"),
        "--tls-auth-clients", clients,
    ]  # fmt: skip


def access(certs: Path, **changes: Any) -> RedisAccess:
    given = {
        "password": PASSWORD, "authority": str(certs / "ca.pem"),
        "certificate": str(certs / "plane.pem"), "key": str(certs / "plane.key"), **changes,
    }  # fmt: skip
    return RedisAccess(**given)


async def outcome(url: str, given: RedisAccess) -> str:
    """Whether a control plane with this gets in."""
    registry = RedisRegistry(url, given, timeout_s=1.0)
    try:
        await registry.desired()
    except RegistryUnavailable as error:
        return "refused" if "empty" not in error.message else "in"
    finally:
        await registry.close()
    return "in"


async def test_both_sides_are_checked(certs: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"rediss://localhost:{port}/0"
    with server(DEBIAN, tmp_path, *tls(certs, port), "--requirepass", PASSWORD):
        registry = RedisRegistry(url, access(certs))
        await answering(registry)
        key = await add(registry)
        assert set((await registry.desired()).versions) == {key}
        await registry.close()
        other = certs / "other"
        tried = {
            "as it should be": access(certs),
            "by its address": access(certs),
            "no certificate of our own": access(certs, certificate="", key=""),
            "one of another authority": access(
                certs, certificate=str(other / "plane.pem"), key=str(other / "plane.key")
            ),
            "another authority": access(certs, authority=str(other / "ca.pem")),
            "the machine's authorities": access(certs, authority=""),
            "another password": access(certs, password="wrong"),
            "no password": access(certs, password=""),
        }
        in_ = ("as it should be", "by its address")
        by_address = url.replace("localhost", "127.0.0.1")
        seen = {
            what: await outcome(by_address if what == in_[1] else url, one)
            for what, one in tried.items()
        }
        assert seen == {what: "in" if what in in_ else "refused" for what in tried}
        assert await outcome(f"redis://localhost:{port}", access(certs)) == "refused"


async def test_the_name_in_its_certificate_is_checked(certs: Path, tmp_path: Path) -> None:
    port = free_port()
    with server(DEBIAN, tmp_path, *tls(certs, port, "elsewhere", "no")):
        assert await outcome(f"rediss://localhost:{port}", access(certs, password="")) == "refused"


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_check_hostname=False"]
)
def test_no_url_turns_the_checks_off(option: str) -> None:
    with pytest.raises(ValueError, match="anyone be the server"):
        connect(f"rediss://:hunter2@localhost:1/0?{option}", None, 1.0)


async def test_a_user_of_few_rights(certs: Path, tmp_path: Path) -> None:
    port = free_port()
    flags = [
        *tls(certs, port, clients="no"), "--user", "default", "off", "--user", "pool", "on",
        f">{PASSWORD}", "~yolopool:*", "&yolopool:*", "+@all", "-@dangerous", "+info",
    ]  # fmt: skip
    with server(DEBIAN, tmp_path, *flags):
        url, ca = f"rediss://localhost:{port}", access(certs).authority
        registry = RedisRegistry(url, RedisAccess("pool", PASSWORD, authority=ca))
        await answering(registry)
        await add(registry)
        assert await registry.take_lease("one", 5.0, None) is not None
        assert await registry.eviction_policy() == "noeviction"
        await registry.close()
        in_url = f"rediss://pool:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca}"
        assert await outcome(in_url, RedisAccess()) == "in"
        assert await outcome(url, RedisAccess("pool", "wrong", authority=ca)) == "refused"
        assert await outcome(url, RedisAccess("", PASSWORD, authority=ca)) == "refused"


async def test_a_renewed_certificate_is_shown_to_the_next_connection(
    certs: Path, tmp_path: Path
) -> None:
    """One that the server would refuse, then another in the same files."""
    own = tmp_path / "own.pem"

    def put(folder: Path) -> None:
        own.write_bytes((folder / "plane.pem").read_bytes() + (folder / "plane.key").read_bytes())

    port = free_port()
    with server(DEBIAN, tmp_path, *tls(certs, port)):
        put(certs)
        given = access(certs, password="", certificate=str(own), key=str(own))
        client: Any = connect(f"rediss://localhost:{port}", given, 1.0)
        while True:
            try:
                assert await client.ping()
                break
            except Exception:  # it is starting
                await asyncio.sleep(0.05)
        put(certs / "other")
        await client.connection_pool.disconnect()
        with pytest.raises(Exception, match=r"(?i)unknown ca|alert|connection|ssl"):
            await client.ping()
        put(certs)
        assert await client.ping()
        await disconnect(client)


@contextmanager
def watched(certs: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Ports of a master and of its sentinel, both with TLS alone."""
    port, watch = free_port(), free_port()
    (folder / "master").mkdir()
    config = folder / "sentinel.conf"
    lines = [
        "port 0",
        *(f"{flag.removeprefix('--')} {value}" for flag, value in _pairs(tls(certs, watch))),
        "tls-replication yes", f"requirepass {OF_SENTINEL}",
        f"sentinel sentinel-pass {OF_SENTINEL}",
        f"sentinel monitor pool 127.0.0.1 {port} 1", f"sentinel auth-pass pool {PASSWORD}",
    ]  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    flags = [*tls(certs, port), "--requirepass", PASSWORD, "--tls-replication", "yes"]
    with server(DEBIAN, folder / "master", *flags), running(sentinel(config)):
        yield port, watch


def _pairs(flags: list[str]) -> list[tuple[str, str]]:
    return list(zip(flags[::2], flags[1::2], strict=True))


async def test_sentinels_over_tls(certs: Path, tmp_path: Path) -> None:
    with watched(certs, tmp_path) as (_, port):
        url = f"rediss+sentinel://localhost:{port}/pool"
        given = access(certs, sentinel_password=OF_SENTINEL)
        registry = RedisRegistry(url, given)
        await answering(registry)
        key = await add(registry)
        assert set((await registry.desired()).versions) == {key}
        await registry.close()
        for wrong in (
            access(certs), access(certs, sentinel_password=OF_SENTINEL, certificate="", key=""),
            access(certs, sentinel_password=OF_SENTINEL, authority=str(certs / "other" / "ca.pem")),
            access(certs, sentinel_password=OF_SENTINEL, password="wrong"),
        ):  # fmt: skip
            assert await outcome(url, wrong) == "refused"


def settings(**given: Any) -> Settings:
    return Settings(**given)


def test_a_password_is_read_from_a_file_and_told_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    given = access_of(settings(redis_user="pool", redis_password_file=file))
    assert given.password == PASSWORD
    assert PASSWORD not in repr(given)
    with pytest.raises(OSError, match="none"):
        access_of(settings(redis_password_file=tmp_path / "none"))
    with pytest.raises(OSError, match="none"):
        access_of(settings(redis_ca=tmp_path / "none"))
    with pytest.raises(ValueError, match="go together"):
        access_of(settings(redis_cert=file))
