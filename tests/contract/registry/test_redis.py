"""What only a real Redis shows: loss and return, the file, TLS and users, Sentinel; and the
embedded server.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from redis.asyncio.connection import AbstractConnection

from control_plane.store.redis.redis_client import connect
from control_plane.store.redis.redis_keys import FOOTPRINTS, VERSIONS
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.transaction import Transaction
from control_plane.types.desired import Want, WantSource
from control_plane.types.footprint import Footprint, FootprintKey
from control_plane.types.policy import Residency, ResidencyMode
from control_plane.types.version import VersionKey, VersionSettings
from tests.contract.redis_servers import DEBIAN, WHEEL, any_kind, server, watched
from tests.waiting import until
from yolopool.errors import RegistryUnavailable
from yolopool.local.embedded_redis import EmbeddedRedis

SETTINGS = VersionSettings(320)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        yield Path(path)


async def answering(registry: RedisRegistry) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await registry.create()
                return
            except RegistryUnavailable:
                await asyncio.sleep(0.05)


async def add(registry: RedisRegistry, name: str = "shapes", above: int = 0) -> VersionKey:
    return (await registry.register(name, "a" * 64, SETTINGS, "", "", 1.0, above=above)).key


@pytest.mark.parametrize("kind", [WHEEL, DEBIAN])
async def test_a_server_that_dies_is_said_and_comes_back_with_all(folder: Path, kind: str) -> None:
    registry = RedisRegistry(f"unix://{folder}/redis.sock", timeout_s=0.5)
    with server(kind, folder):
        await answering(registry)
        cluster, key = await registry.open(), await add(registry)
        changes = registry.changes()
        first = await anext(changes)
    with pytest.raises(RegistryUnavailable, match="detection goes on"):
        await registry.desired()
    with pytest.raises(RegistryUnavailable):
        await add(registry)
    with server(kind, folder):
        await answering(registry)
        assert await registry.open() == cluster
        assert set((await registry.desired()).versions) == {key}
        await add(registry)
        async with asyncio.timeout(20):
            assert await anext(changes) > first
        await changes.aclose()  # type: ignore[attr-defined] # a generator
    await registry.close()


async def test_a_write_costs_one_round_trip_to_read_and_one_to_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A miss waits for its want: as short as fenced optimistic writes can be."""
    with server(DEBIAN, folder):
        registry = RedisRegistry(f"unix://{folder}/redis.sock")
        await answering(registry)
        key = await add(registry)
        want, sent = Want(key, 1, False, WantSource.MISS, 1.0), 0
        await registry.want(want)  # connected, the script known
        send = AbstractConnection.send_packed_command

        async def counted(self: AbstractConnection, *args: Any, **kwargs: Any) -> None:
            nonlocal sent
            sent += 1
            await send(self, *args, **kwargs)

        monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
        burst = [replace(want, replicas=number) for number in range(2, 102)]
        for call, round_trips in (
            (lambda: asyncio.gather(*map(registry.want, burst)), 200),
            (lambda: registry.want(replace(want, replicas=102)), 2),
            (lambda: registry.want(want), 1),  # nothing changes
            (lambda: registry.renew(key, 2.0), 2),
            (lambda: registry.change_wants([want], [key], [key]), 2),
            (lambda: add(registry, above=1), 2),
            (lambda: registry.claim_import("i", 1.0, 1.0), 3),
            (lambda: registry.delete([key]), 2),
        ):
            sent = 0
            await call()
            assert sent == round_trips
        await registry.close()


async def test_a_verb_decides_on_one_revision_whoever_writes_meanwhile(folder: Path) -> None:
    with server(DEBIAN, folder):
        one, other = (RedisRegistry(f"unix://{folder}/redis.sock") for _ in range(2))
        await answering(one)
        a, b = await add(one, "a"), await add(one, "b")
        seen: list[tuple[int, int]] = []
        before = iter([None, a, b, None, a, None, b])  # who writes before the next read or commit

        def replicas(want: Want | None) -> int:
            return want.replicas if want is not None else 0

        def verb(tx: Transaction) -> None:
            # Two reads, the second not expected.
            found = replicas(tx.want(a)), replicas(tx.want(b))
            seen.append(found)
            tx.put_want(Want(a, found[0] + 10, False, WantSource.ADMIN, 1.0))

        async def interrupted(call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
            key = next(before, None)
            if key is not None:
                known = replicas((await other.desired()).wants.get(key))
                await other.want(Want(key, known + 1, False, WantSource.ADMIN, 1.0))
            return await call(*arguments)

        store = one._store
        store._read = partial(interrupted, store._read)  # type: ignore[method-assign] # spied on
        store._commit_if_it_stands = partial(  # type: ignore[method-assign] # spied on
            interrupted, store._commit_if_it_stands
        )
        await one.write(verb)
        wants = (await one.desired()).wants
        assert next(before, None) is None
        assert seen == [(1, 1), (2, 2)]
        assert (wants[a].replicas, wants[b].replicas) == (12, 2)
        for registry in (one, other):
            await registry.close()


async def test_a_server_that_hangs_is_unavailable_within_the_timeout(folder: Path) -> None:
    with server(any_kind(), folder) as process:
        registry = RedisRegistry(f"unix://{folder}/redis.sock", timeout_s=0.3)
        await answering(registry)
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(RegistryUnavailable):
                await registry.desired()
            async with asyncio.timeout(5):  # writes take turns, yet do not wait for one another
                told = await asyncio.gather(
                    *(add(registry) for _ in range(50)), return_exceptions=True
                )
            assert all(isinstance(error, RegistryUnavailable) for error in told)
        finally:
            process.send_signal(signal.SIGCONT)
        await answering(registry)
        await registry.close()


async def test_sentinel_fails_over(folder: Path) -> None:
    with watched(folder) as servers:
        await servers.ready()
        registry = RedisRegistry(servers.url, timeout_s=1.0)
        await answering(registry)
        key = await add(registry)
        before = await registry.take_lease("one", 5.0, None)
        follower = connect(f"redis://127.0.0.1:{servers.follower_port}", None, 1.0)
        async with asyncio.timeout(20):
            while not await follower.hexists("yolopool:versions", str(key)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await follower.aclose()
        servers.master.kill()
        async with asyncio.timeout(40):
            while True:
                try:
                    assert set((await registry.desired()).versions) == {key}
                    await add(registry, "after")
                    break
                except RegistryUnavailable:
                    await asyncio.sleep(0.1)
        assert before is not None
        await registry.drop_lease(before)
        after = await registry.take_lease("two", 5.0, before)
        assert after is not None
        assert after > before
        await registry.close()


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "http://x", "redis+sentinel://h:1", "redis://h:port"]
)
def test_a_bad_url_says_the_forms(url: str) -> None:
    with pytest.raises(ValueError, match="redis\\+sentinel://"):
        connect(url, None, 1.0)


def test_a_bad_url_keeps_its_password_to_itself() -> None:
    with pytest.raises(ValueError, match="give") as caught:
        connect("redis://user:hunter2@h:port", None, 1.0)
    assert "hunter2" not in str(caught.value)


async def test_the_embedded_server_keeps_what_it_holds(folder: Path) -> None:
    for expected in (1, 2):
        redis = EmbeddedRedis(folder)
        registry = RedisRegistry(redis.start())
        await registry.create()
        assert (await add(registry)).number == expected
        await registry.close()
        redis.stop()
        redis.stop()
    assert not (folder / "redis" / "redis.sock").exists()


async def test_the_embedded_server_in_a_deep_folder(folder: Path) -> None:
    deep = folder / ("x" * 120)
    redis = EmbeddedRedis(deep)
    url = redis.start()
    assert len(url) < 108 + len("unix://")
    registry = RedisRegistry(url)
    assert await registry.open() == ""
    await registry.close()
    redis.stop()
    assert not Path(url.removeprefix("unix://")).parent.exists()


def test_one_embedded_server_a_folder(folder: Path) -> None:
    redis = EmbeddedRedis(folder)
    redis.start()
    with pytest.raises(OSError, match="another pool runs"):
        EmbeddedRedis(folder).start()
    redis.stop()
    again = EmbeddedRedis(folder)
    again.start()
    again.stop()


def test_the_embedded_server_dies_with_its_parent(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from yolopool.local.embedded_redis import *\n"
        "redis = EmbeddedRedis(Path(sys.argv[1])); redis.start()\n"
        "print(redis._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        try:
            # A zombie of a parent that is no more is reaped by init, in its own time.
            return "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return True

    until("the server ends", gone)


async def test_a_footprint_whose_key_a_newer_release_wrote_is_skipped(folder: Path) -> None:
    registry = RedisRegistry(f"unix://{folder}/redis.sock")
    with server(any_kind(), folder):
        await answering(registry)
        known = {
            FootprintKey("d" * 64, "torch/bf16", "cpu", "amx"): Footprint(1, 2),
            FootprintKey("d" * 64, "torch/bf16", "cpu"): Footprint(3, 4),
        }
        for key, footprint in known.items():
            await registry.record_footprint(key, footprint)
        await registry._redis.hset(FOOTPRINTS, f"{'d' * 64} torch/bf16 cpu amx more", "{}")
        with structlog.testing.capture_logs() as said:
            for _ in range(2):
                assert await registry.footprints() == known
        assert [line["event"] for line in said] == ["footprints skipped"]
    await registry.close()


async def test_what_a_newer_release_wrote_into_a_record_outlives_a_write(folder: Path) -> None:
    registry = RedisRegistry(f"unix://{folder}/redis.sock")
    with server(any_kind(), folder):
        await answering(registry)
        key = await add(registry)
        raw = json.loads(await registry._redis.hget(VERSIONS, str(key)))
        raw["colour"] = raw["given"]["colour"] = "blue"
        await registry._redis.hset(VERSIONS, str(key), json.dumps(raw))
        changed = await registry.set_residency(key, Residency(ResidencyMode.ON_DEMAND))
        assert changed is not None
        kept = json.loads(await registry._redis.hget(VERSIONS, str(key)))
        assert (kept["colour"], kept["given"]["colour"]) == ("blue", "blue")
        assert kept["given"]["residency"]["mode"] == ResidencyMode.ON_DEMAND
    await registry.close()
