"""A Redis that answers and takes no writes: a replica by now, or full."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from redis.exceptions import RedisError

from control_plane.store.redis.redis_client import connect
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.types.event import EventKind
from tests.contract.control_plane_rig import Rig
from tests.contract.redis_servers import DEBIAN, WHEEL, any_kind, free_port, server
from tests.contract.registry.samples import register
from tests.waiting import becomes
from yolopool.errors import RegistryRefusesWrites
from yolopool.v1 import importing_pb2, importing_pb2_grpc


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        yield Path(path)


async def answers(client: Any) -> None:
    """Waits until a server takes calls."""
    async with asyncio.timeout(20):
        while True:
            with suppress(RedisError, OSError):
                await client.ping()
                return
            await asyncio.sleep(0.02)


async def answering(registry: RedisRegistry) -> None:
    await answers(registry._redis)
    await registry.create()


def clients_of(ports: list[int]) -> tuple[Any, Any]:
    one, two = (connect(f"redis://127.0.0.1:{port}", None, 2.0) for port in ports)
    return one, two


@pytest.mark.parametrize("kind", [WHEEL, DEBIAN])
async def test_the_name_of_a_demoted_server_is_resolved_anew(folder: Path, kind: str) -> None:
    """A link is the name here: it leads to the one server first, then to the other."""
    name, ports = folder / "name", [free_port(), free_port()]
    for place in ("one", "two"):
        (folder / place).mkdir()
    name.symlink_to(folder / "one" / "redis.sock")
    with ExitStack() as stack:
        for place, port in zip(("one", "two"), ports, strict=True):
            flags = (
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--repl-diskless-sync-delay",
                "0",
                "--appendonly",
                "no",
            )
            stack.enter_context(server(kind, folder / place, *flags))
        registry = RedisRegistry(f"unix://{name}", timeout_s=1.0)
        await answering(registry)
        await register(registry)
        demoted, follow = clients_of(ports)
        await answers(follow)
        await follow.replicaof("127.0.0.1", ports[0])
        while (await follow.info("replication")).get("master_link_status") != "up":
            pass
        await follow.replicaof("NO", "ONE")
        await demoted.replicaof("127.0.0.1", ports[1])
        with pytest.raises(RegistryRefusesWrites, match="READONLY") as caught:
            await register(registry)
        assert "does not answer" not in caught.value.message
        assert (await registry.desired()).versions  # it answers
        name.unlink()
        name.symlink_to(folder / "two" / "redis.sock")
        registry._store._reconnected_s = float("-inf")  # a second later
        with pytest.raises(RegistryRefusesWrites):
            await register(registry)
        assert (await register(registry)).number == 2
        for client in (demoted, follow):
            await client.aclose()
        await registry.close()


async def test_a_store_that_takes_no_writes_is_said_once_and_is_there_again(folder: Path) -> None:
    (folder / "redis").mkdir()
    url = f"unix://{folder}/redis/redis.sock"
    with server(any_kind(), folder / "redis"):
        demoted: Any = connect(url, None, 2.0)
        registry = RedisRegistry(url, timeout_s=1.0)
        await answering(registry)
        async with Rig(folder / "one", registry, redis=url, reconciler_lease_s=1.0) as rig:
            await rig.worker("w1")
            await rig.ready("a")
            await rig.load("a")
            view = rig.plane.view
            await demoted.replicaof("127.0.0.1", free_port())
            await becomes(lambda: not view.registry_available)
            states = set()
            with structlog.testing.capture_logs() as logs:
                for _ in range(40):
                    assert (await rig.detect("a")).worker == "w1"
                    states.add(view.registry_available)
                    with pytest.raises(RegistryRefusesWrites):
                        await register(registry)
            assert states == {False}
            assert [log for log in logs if "available" in log["event"]] == []
            await demoted.replicaof("NO", "ONE")
            await becomes(lambda: view.registry_available)
            await rig.ready("b")
            await rig.plane._recorder.flush()
            kinds = [event.kind for event in await registry.events("", 0)]
            assert kinds.count(EventKind.STORE_REFUSES_WRITES) == 1
        await demoted.aclose()


async def test_a_full_store_says_so(folder: Path) -> None:
    url = f"unix://{folder}/redis.sock"
    with server(any_kind(), folder):
        registry = RedisRegistry(url)
        await answering(registry)
        redis: Any = registry._redis
        await redis.config_set("maxmemory", "1kb")
        with pytest.raises(RegistryRefusesWrites, match="maxmemory"):
            await register(registry)
        assert (await registry.desired()).versions == {}  # it is read as before
        await redis.config_set("maxmemory", "0")
        assert (await register(registry)).number == 1
        await registry.close()


async def test_a_server_without_info_does_not_say_its_policy(folder: Path) -> None:
    with server(any_kind(), folder, "--rename-command", "INFO", ""):
        registry = RedisRegistry(f"unix://{folder}/redis.sock")
        await answering(registry)
        assert await registry.eviction_policy() == ""
        await registry.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_said_and_strictly_refused(folder: Path, policy: str) -> None:
    (folder / "redis").mkdir()
    url = f"unix://{folder}/redis/redis.sock"
    with server(any_kind(), folder / "redis", "--maxmemory-policy", policy):
        registry = RedisRegistry(url)
        await answering(registry)
        with structlog.testing.capture_logs() as logs:
            async with Rig(folder / "one", registry, redis=url) as rig:
                assert rig.plane.view.is_loaded
        said = [log for log in logs if log["event"] == "THE STORE IS NOT SAFE"]
        assert [log["log_level"] for log in said] == ["error"]
        assert policy in said[0]["why"]

        strict = Rig(folder / "one", RedisRegistry(url), redis=url, strict=True)
        serving = await strict.plane.start()
        view = strict.plane.view
        await becomes(lambda: "--strict" in view.unread_because)
        # An importer asks whether the models are known or not.
        async with grpc.aio.insecure_channel(serving.grpc) as channel:
            importing: Any = importing_pb2_grpc.ImportServiceStub(channel)
            await importing.ClaimImport(importing_pb2.ClaimImportRequest(importer="i1"), timeout=5)
        assert not await strict.plane._reflector.refresh()
        assert not view.is_loaded
        other: Any = connect(url, None, 2.0)
        await other.config_set("maxmemory-policy", "noeviction")
        await becomes(lambda: view.is_loaded)
        await strict.plane.stop()
        await other.aclose()
