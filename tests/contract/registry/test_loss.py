"""A store that is emptied, replaced, away or behind, under real control planes: what was registered
stays, nobody is stopped from detecting, and a writer that was overtaken changes no worker.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from control_plane.store.redis import redis_keys as keys
from control_plane.store.redis.redis_client import connect
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.salvage import MAPS
from control_plane.types.command import Release
from control_plane.types.desired import Want, WantSource
from control_plane.types.event import EventKind
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey, VersionSettings
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.contract.redis_servers import any_kind, free_port, server, watched
from tests.waiting import becomes
from yolopool import errors
from yolopool.errors import RegistryUnavailable, StaleToken
from yolopool.v1 import model_pb2

RESTORED = "THE STORE LOST WHAT IT HELD AND IS RESTORED"
SETTINGS = VersionSettings(320)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="yp-") as path:
        yield Path(path)


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    (folder / "redis").mkdir()
    with server(any_kind(), folder / "redis"):
        yield f"unix://{folder}/redis/redis.sock"


@pytest.fixture
async def redis(url: str) -> AsyncIterator[Any]:
    client: Any = connect(url, None, 2.0)
    await answers(client)
    yield client
    await client.aclose()


async def answers(client: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await client.ping()
                return
            except Exception:
                await asyncio.sleep(0.05)


def a_rig(folder: Path, url: str, **more: Any) -> Rig:
    """A control plane with its own data directory; their stores of artifacts are apart."""
    return Rig(folder, RedisRegistry(url, timeout_s=1.0), redis=url, **more)


def decides(rig: Rig) -> bool:
    return rig.plane.view.leader_address == rig.addresses.grpc


async def kept(rig: Rig) -> None:
    """Waits until the local copy holds what the view shows."""
    view = rig.plane.view
    assert rig.plane._copy is not None
    await rig.plane._copy.keep_now(view.frozen_desired())


async def test_an_emptied_store_is_filled_again_and_nothing_moves(
    folder: Path, url: str, redis: Any
) -> None:
    async with a_rig(folder / "one", url) as one, a_rig(folder / "two", url) as two:
        worker = await one.worker("w1", also=[two.addresses.grpc])
        await one.ready("a", "b")
        await one.load("a", pin=True)
        await becomes(lambda: two.plane.view.desired.wants)
        cluster, token = one.plane.view.desired.cluster, worker.fence.highest
        with structlog.testing.capture_logs() as logs:
            await redis.flushall()
            for rig in (one, two):
                assert (await rig.detect("a")).worker == "w1"
            async with asyncio.timeout(20):
                while not await redis.hget("yolopool:meta", "cluster"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await redis.hget("yolopool:meta", "cluster") == cluster
            # A new holder, and a new model: all works as before, under higher tokens.
            async with asyncio.timeout(20):
                while isinstance(await tried(two.load("b")), RegistryUnavailable):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        assert len([log for log in logs if log["event"] == RESTORED]) == 1
        events = await one.registry.events("", 0)
        assert [event.kind for event in events].count(EventKind.RESTORED) == 1
        assert worker.assigned == ["a@1", "b@1"]
        assert worker.released == []
        now = worker.fence.highest
        assert (now.epoch, now.counter) > (token.epoch, token.counter)
        assert now.epoch > token.epoch
        assert (await two.register("a", b"another")).version.version == 2


async def tried(call: Any) -> object:
    """The answer of a call, or its typed error."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task])
    return await refused(task) if task.exception() is not None else task.result()


@pytest.mark.matrix(sample=2)
@pytest.mark.parametrize("key", [*keys.COUNTED, keys.META])
async def test_a_lost_hash_is_put_back_and_what_serves_goes_on(
    folder: Path, url: str, redis: Any, key: str
) -> None:
    async with a_rig(folder / "one", url) as one:
        worker = await one.worker("w1")
        await one.ready("a", "b")
        await one.load("a", pin=True)
        await one.register("late")
        before = one.plane.view.frozen_desired()
        with structlog.testing.capture_logs() as logs:
            await redis.delete(key)
            # Bytes that would be a@1 again, if nothing else were known.
            while isinstance(
                answer := await tried(one.register("a", b"another")), RegistryUnavailable
            ):
                assert (await one.detect("a")).worker == "w1"
            assert isinstance(answer, model_pb2.ModelVersion)
            assert answer.version.version == 2
        now = one.plane.view.frozen_desired()
        new = VersionKey("a", 2)
        assert now.versions == {**before.versions, new: now.versions[new]}
        assert (now.wants, now.cluster) == (before.wants, before.cluster)
        assert now.numbers == {**before.numbers, "a": 2}
        had = {**dict(zip(MAPS, keys.LOGGED, strict=True)), "jobs": keys.IMPORTS}
        lost = key == keys.META or any(
            key == name and (part == "jobs" or getattr(before, part)) for part, name in had.items()
        )
        assert len([log for log in logs if log["event"] == RESTORED]) == int(lost)
        assert [(await one.import_next()).version.model for _ in range(2)] == ["late", "a"]
        assert (worker.assigned, worker.released) == (["a@1"], [])


async def test_a_store_emptied_while_all_were_down_is_filled_from_the_highest_copy(
    folder: Path, url: str, redis: Any
) -> None:
    async with a_rig(folder / "one", url) as one:
        await one.register("a")
        cluster = one.plane.view.desired.cluster
    async with a_rig(folder / "two", url) as two:
        await two.register("b")
    await redis.flushall()
    rigs = [a_rig(folder / name, url) for name in ("one", "two")]
    await asyncio.gather(*(rig.__aenter__() for rig in rigs))
    for rig in rigs:
        view = rig.plane.view
        await becomes(partial(lambda view: {"a", "b"} <= set(view.catalogue.models), view))
        assert rig.plane.view.desired.cluster == cluster
    await asyncio.gather(*(rig.__aexit__() for rig in rigs))


async def test_another_store_is_right_and_the_copy_is_set_aside(
    folder: Path, url: str, redis: Any
) -> None:
    async with a_rig(folder / "one", url) as one:
        await one.register("a")
    await redis.flushall()
    async with a_rig(folder / "new", url) as new:
        await new.register("b")
        cluster = new.plane.view.desired.cluster
        with structlog.testing.capture_logs() as logs:
            async with a_rig(folder / "one", url) as one:
                await becomes(lambda: one.plane.view.is_loaded)
                await kept(one)
                assert set(one.plane.view.catalogue.models) == {"b"}
        said = next(log for log in logs if "NOT THE ONE OF THE LOCAL COPY" in log["event"])
        assert (said["log_level"], said["store"]) == ("error", cluster)
        assert (folder / "one" / "registry-copy.jsonl.old").exists()


async def test_a_new_store_made_by_one_that_knew_nothing_gives_way(
    folder: Path, url: str, redis: Any
) -> None:
    async with a_rig(folder / "one", url) as one:
        await one.register("a")
        await redis.flushall()
        async with a_rig(folder / "new", url) as new:
            await becomes(lambda: "a" in new.plane.view.catalogue.models)
            assert new.plane.view.desired.cluster == one.plane.view.desired.cluster


async def test_a_store_that_was_away_is_not_filled(folder: Path) -> None:
    (folder / "redis").mkdir()
    url = f"unix://{folder}/redis/redis.sock"
    with ExitStack() as stack, structlog.testing.capture_logs() as logs:
        stack.enter_context(server(any_kind(), folder / "redis"))
        async with a_rig(folder / "one", url) as one:
            await one.worker("w1")
            await one.ready("a")
            await one.detect("a")
            stack.close()
            await becomes(lambda: not one.plane.view.registry_available)
            assert (await one.detect("a")).worker == "w1"
            assert isinstance(await refused(one.register("b")), errors.RegistryUnavailable)
            stack.enter_context(server(any_kind(), folder / "redis"))
            await becomes(lambda: one.plane.view.registry_available)
            async with asyncio.timeout(20):
                while isinstance(await tried(one.register("b")), RegistryUnavailable):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
    assert not [log for log in logs if log["event"] == RESTORED]


# --- a writer that was overtaken ------------------------------------------------------------------


async def test_a_writer_that_was_overtaken_changes_no_worker(tmp_path: Path) -> None:
    async with Rig(tmp_path, reconciler_lease_s=1.0) as old:
        await becomes(lambda: decides(old))
        async with Rig(tmp_path, old.registry, reconciler_lease_s=1.0) as new:
            worker = await old.worker("w1", also=[new.addresses.grpc])
            await becomes(lambda: new.plane.view.workers)
            await old.ready("a", "b")
            await old.load("a")
            before = old.plane._election._token
            assert before is not None
            # It stands still with its token in hand, as a process that is stopped.
            assert old.plane._deciding is not None
            old.plane._deciding.cancel()
            await becomes(lambda: decides(new))
            await new.load("b")
            late = Release("w1", VersionKey("a", 1), "it was decided long ago", drop_want=True)
            with structlog.testing.capture_logs() as logs:
                old.plane._reconciler._executor.start(late, before)
                await becomes(lambda: [one for one in logs if one["event"] == "command refused"])
            refusal = next(one for one in logs if one["event"] == "command refused")
            assert refusal["reason"] == "STALE_TOKEN"
            assert sorted(worker.replicas) == ["a@1", "b@1"]
            with pytest.raises(StaleToken):
                await old.registry.forget(VersionKey("a", 1), before)
            # Awake again, it sees that another decides, and leaves it to that one.
            old.plane._deciding = asyncio.create_task(old.plane._reconciler.run())
            await becomes(lambda: old.plane.view.leader_address == new.addresses.grpc)
            assert not old.plane._election.is_leader
            assert decides(new)


async def follower_of(first: Any, second: Any) -> None:
    """Waits until the second holds what the first has written."""
    await second.replicaof(*first)
    async with asyncio.timeout(20):
        while True:
            state = await second.info("replication")
            if state["master_link_status"] == "up":
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def pair(folder: Path) -> AsyncIterator[tuple[RedisRegistry, RedisRegistry]]:
    """A master and what becomes of its follower: cut off before the last writes, then promoted."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    ports = [free_port(), free_port()]
    loopback = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--port")
    with (
        server(any_kind(), folder / "one", *loopback, str(ports[0])),
        server(any_kind(), folder / "two", *loopback, str(ports[1])),
    ):
        clients = [connect(f"redis://127.0.0.1:{port}", None, 2.0) for port in ports]
        for client in clients:
            await answers(client)
        registries = [RedisRegistry(f"redis://127.0.0.1:{port}", timeout_s=1.0) for port in ports]
        await registries[0].create()
        await registries[0].register("a", "a" * 64, SETTINGS, "", "", 1.0)
        await follower_of(("127.0.0.1", ports[0]), clients[1])
        async with asyncio.timeout(20):
            while not await clients[1].hexists("yolopool:versions", "a@1"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        promote: Any = clients[1].execute_command("REPLICAOF", "NO", "ONE")
        await promote
        yield registries[0], registries[1]
        for one in (*clients, *(registry._redis for registry in registries)):
            await one.aclose()


async def test_a_follower_without_the_last_tokens_gives_out_higher_ones(
    pair: tuple[RedisRegistry, RedisRegistry],
) -> None:
    lost, promoted = pair
    key = VersionKey("a", 1)
    token: FencingToken | None = None
    for _ in range(3):  # counted on, and told to nobody
        token = await lost.take_lease("one", 5.0, None)
    assert token is not None
    assert not await promoted.keep_lease(token, 5.0)
    with pytest.raises(StaleToken):
        await promoted.forget(key, token)
    new = await promoted.take_lease("two", 5.0, None)
    assert new is not None
    assert new > token
    with pytest.raises(StaleToken):
        await promoted.forget(key, token)
    assert await promoted.take_lease("one", 5.0, None) is None


async def test_a_follower_without_the_last_writes_is_read_anew(
    pair: tuple[RedisRegistry, RedisRegistry],
) -> None:
    lost, promoted = pair
    key = VersionKey("a", 1)
    await lost.want(Want(key, 1, False, WantSource.ADMIN, 1.0))
    ahead = await lost.desired()
    assert await promoted.desired_since(ahead) is None
    # As many writes as were lost, and others: the same revision, and not the same state.
    await promoted.register("b", "b" * 64, SETTINGS, "", "", 1.0)
    now = await promoted.desired()
    assert now.revision == ahead.revision
    assert now.mark != ahead.mark
    assert await promoted.desired_since(ahead) is None
    assert set(now.versions) == {key, VersionKey("b", 1)}
    assert now.wants == {}


async def test_a_failover_stops_no_detect_and_admin_calls_come_back(folder: Path) -> None:
    with watched(folder) as servers:
        await servers.ready()
        async with a_rig(folder / "one", servers.url) as rig:
            worker: ScriptedWorker = await rig.worker("w1")
            await rig.ready("a")
            await rig.load("a")
            before = worker.fence.highest
            follower: Any = connect(f"redis://127.0.0.1:{servers.follower_port}", None, 1.0)
            async with asyncio.timeout(20):
                while not await follower.hexists("yolopool:wants", "a@1"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await follower.aclose()
            cluster = rig.plane.view.desired.cluster
            servers.master.kill()
            calls = 0
            again = asyncio.ensure_future(tried(rig.register("b", b"b")))
            async with asyncio.timeout(60):
                while not again.done() or isinstance(again.result(), RegistryUnavailable):
                    if again.done():
                        again = asyncio.ensure_future(tried(rig.register("b", b"b")))
                    assert (await rig.detect("a")).worker == "w1"
                    calls += 1
                    await asyncio.sleep(0.02)
            assert calls > 10
            await rig.import_next()
            await rig.load("b")
            assert sorted(worker.assigned) == ["a@1", "b@1"]
            assert worker.released == []
            after = worker.fence.highest
            assert (after.epoch, after.counter) >= (before.epoch, before.counter)
            assert rig.plane.view.desired.cluster == cluster
