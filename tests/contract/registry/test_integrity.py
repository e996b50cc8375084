"""A part of the store that is lost is lost: restored from a copy, or said and stopped at, and never
taken for the truth; and no number that a version serves under is given to another.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from control_plane.store.alerts.alert_verbs import put_setting
from control_plane.store.redis import redis_keys as keys
from control_plane.store.redis import redis_registry, redis_restore
from control_plane.store.redis.redis_client import connect
from control_plane.store.redis.redis_registry import RedisRegistry
from control_plane.store.registry import Registry, StoreDamaged
from control_plane.store.salvage import MAPS
from control_plane.store.sources.source_verbs import put_watch
from control_plane.store.transactions import PENDING
from control_plane.types.desired import Desired
from control_plane.types.version import VersionKey
from control_plane.view import reflector
from tests.contract.redis_servers import WHEEL, server
from tests.contract.registry.planes import Plane, ended
from tests.contract.registry.samples import (
    DAILY,
    HOOK,
    IMPORTED,
    ISSUED,
    NORTH,
    SETTINGS,
    WATCHED,
    a_want,
    register,
)
from tests.contract.registry.test_delta import fill
from tests.matrix import examples, is_full
from tests.unit.control_plane.fleets import replica, worker
from tests.waiting import becomes
from yolopool.errors import RegistryUnavailable

REQUEST = f"{keys.REQUEST}r1"
PARTS = dict(zip(MAPS, keys.LOGGED, strict=True))
# All that the registry keeps.
KEYS = (
    *(keys.META, *keys.COUNTED, keys.LOG, keys.LEASE, keys.WORKERS, keys.FOOTPRINTS, keys.EVENTS),
    REQUEST,
)
NAMES = ("a", "b", "team/c")
LIMIT_S = 20.0


@dataclass(frozen=True)
class Step:
    """Something that an operator, an importer or a crash does. `of` picks among what there is."""

    verb: str
    name: str
    of: int
    plane: int


@dataclass(frozen=True)
class Loss:
    """Which keys go, when (as a write goes on, or between two), and which planes end with them."""

    gone: frozenset[str]
    moment: str
    killed: frozenset[int]
    back: frozenset[int]
    stranger: bool


VERBS = ("register", "import", "want", "delete", "cordon", "schedule", "copy", "restart")
STEPS = st.builds(
    Step, st.sampled_from(VERBS), st.sampled_from(NAMES), st.integers(0, 5), st.integers(0, 1)
)
LOSSES = st.builds(
    Loss,
    st.sets(st.sampled_from(KEYS), min_size=1).map(frozenset),
    st.sampled_from(["idle", "before the commit", "before the refresh"]),
    st.sets(st.integers(0, 1)).map(frozenset),
    st.sets(st.integers(0, 1)).map(frozenset),
    st.booleans(),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder, server(WHEEL, Path(folder)):
        yield f"unix://{folder}/redis.sock"


@pytest.fixture(scope="module", autouse=True)
def _soon() -> Iterator[None]:
    """The waits of a pool whose machines are a network apart, on one event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reflector, "OTHERS_S", 0.06)
        patch.setattr(reflector, "OTHERS_START_S", 0.12)
        patch.setattr(reflector, "RETRY_S", 0.005)
        patch.setattr(redis_restore, "CLAIM_KEPT_S", 0.2)
        patch.setattr(redis_registry, "POLL_S", 0.02)
        yield


@pytest.mark.timeout(1800 if is_full() else 600)  # also while a failing example is made smaller
@examples(500, sample=25)
@given(st.lists(STEPS, max_size=8), LOSSES)
def test_any_loss_is_restored_or_stops_the_pool(url: str, steps: list[Step], loss: Loss) -> None:
    with tempfile.TemporaryDirectory(prefix="yp-") as folder:
        asyncio.run(_Trial(url, Path(folder)).run(steps, loss))


class _Trial:
    """One example. `truth` is what the store held last, `given` every key that a version had."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.planes = [Plane(url, folder / name) for name in ("one", "two")]
        self.stranger = Plane(url, folder / "stranger")
        self.given: dict[VersionKey, str] = {}

    async def run(self, steps: list[Step], loss: Loss) -> None:
        self.redis: Any = connect(self.url, None, 2.0)
        self.observer = RedisRegistry(self.url)
        trial = asyncio.create_task(self._run(steps, loss))
        try:
            # Not asyncio.timeout, which cancels once.
            done, _ = await asyncio.wait([trial], timeout=LIMIT_S)
            assert done, f"not within {LIMIT_S:g} s: {trial.get_stack()}"
            await trial
        finally:
            await ended(trial)
            for plane in (*self.planes, self.stranger):
                await plane.kill()
            await self.observer.close()
            await self.redis.aclose()

    async def _run(self, steps: list[Step], loss: Loss) -> None:
        await _answers(self.redis)
        for plane in self.planes:
            plane.start()
            await self._wait_for_cluster()
        await self._look()
        for step in steps:
            await self._do(step)
        await self._lose(loss)
        await self._judge(loss)

    async def _wait_for_cluster(self) -> None:
        while not await self.observer.open():  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def _look(self) -> None:
        """All planes show what the store holds."""
        self.truth = await self.observer.desired()
        self.given |= {key: one.artifact for key, one in self.truth.versions.items()}
        for plane in self.planes:
            await plane.shows(self.truth)

    async def _do(self, step: Step) -> None:
        plane = self.planes[step.plane]
        registry, known = plane.registry, sorted(self.truth.versions)
        key = known[step.of % len(known)] if known else None
        match step.verb:
            case "register":
                await self._register(plane, step.name, request_id="r1" if step.of == 0 else "")
            case "import" if key is not None:
                claimed = await registry.claim_import("i1", 0.0 if step.of else 60.0, 1.0)
                if claimed is not None and step.of:
                    await registry.finish_import("i1", claimed.key, *IMPORTED)
            case "want" if key is not None:
                await registry.want(a_want(key, 1 + step.of, pinned=step.of > 2))
            case "delete" if key is not None:
                await registry.delete([key])
            case "cordon":
                await registry.cordon("w1", f"process {step.of}")
            case "schedule":
                cron = f"{step.of} 6 * * *"
                await registry.put_schedule(replace(DAILY, name=step.name, cron=cron))
                await registry.put_api_key(replace(ISSUED, id=step.name, label=cron))
                await registry.put_tenant(replace(NORTH, name=step.name, pool=cron))
                watch = replace(WATCHED, name=step.name, uri=f"s3://bucket/{step.of}/")
                await registry.write(lambda tx: put_watch(tx, watch))
                hook = replace(HOOK, name=step.name, url=f"https://example.com/{step.of}")
                await registry.write(lambda tx: put_setting(tx, hook))
            case "copy":
                await plane.keep()
            case "restart":
                await plane.kill()
                plane.start()
        await self._look()

    async def _register(self, plane: Plane, name: str, request_id: str = "") -> VersionKey:
        artifact = f"{len(self.given):064d}"
        made = await plane.registry.register(
            name,
            artifact,
            SETTINGS,
            "",
            request_id,
            1.0,
            imported=None if len(self.given) % 2 else IMPORTED,
            above=plane.view.highest_number(name),
        )
        return made.key

    async def _lose(self, loss: Loss) -> None:
        """Deletes the keys, and ends the planes that end then."""
        writer = self.planes[0]
        store = writer.registry._store
        commit = store._commit_if_it_stands

        async def interrupted(*arguments: Any) -> int:
            if loss.moment == "before the commit":
                await self._delete(loss)
            done = await commit(*arguments)
            if done == 1:
                self.truth = await self.observer.desired()
                self.given |= {key: one.artifact for key, one in self.truth.versions.items()}
            return done

        if loss.moment != "idle":
            store._commit_if_it_stands = interrupted  # type: ignore # spied on
            with suppress(RegistryUnavailable):
                await self._register(writer, "a")
            store._commit_if_it_stands = commit  # type: ignore[method-assign]
        if loss.moment != "before the commit":
            await self._delete(loss)
        for at in loss.killed:
            await self.planes[at].kill()
        self.alive = [plane for at, plane in enumerate(self.planes) if at not in loss.killed]
        # A view takes nothing from a store that lost a part.
        copies = [plane.view.frozen_desired() for plane in self.alive]
        for at in loss.killed & loss.back:
            copies += [copy] if (copy := self.planes[at].on_disk()) is not None else []
            self.planes[at].start()
            self.alive.append(self.planes[at])
        if loss.stranger or not self.alive:
            self.stranger.start()
            self.alive.append(self.stranger)
        self.best = max(copies, key=lambda copy: copy.revision, default=None)
        self.files = [plane.on_disk() for plane in self.planes]

    async def _delete(self, loss: Loss) -> None:
        self.deleted_from = self.truth
        await self.redis.delete(*loss.gone)

    async def _judge(self, loss: Loss) -> None:
        truth, best = self.truth, self.best
        held = {part for part in MAPS if getattr(self.deleted_from, part)}
        lost = {part for part in held if PARTS[part] in loss.gone}
        pending = [one for one in truth.versions.values() if one.state in PENDING]
        jobs_lost = keys.IMPORTS in loss.gone and self.deleted_from == truth
        meta_lost = keys.META in loss.gone
        left = {part for part in MAPS if getattr(truth, part)} - lost
        nothing_left = not left and keys.LOG in loss.gone and (jobs_lost or not pending)
        if best is None and meta_lost and nothing_left:
            assert (await self._settled()).versions == {}  # nobody remembers anything
            return
        if best is None and (meta_lost or lost):
            await self._stopped()
            return
        if meta_lost:
            lost |= set(MAPS) - left
        await self._restored(lost)

    async def _stopped(self) -> None:
        for plane in self.alive:
            await becomes(plane.says_lost)
            assert not plane.view.is_loaded
            with pytest.raises(RegistryUnavailable):
                await self._register(plane, "a")
            await plane.keep()
        assert [plane.on_disk() for plane in self.planes] == self.files
        assert not any(plane.restored for plane in self.alive)

    async def _restored(self, lost: set[str]) -> None:
        truth, best = self.truth, self.best or self.truth
        now = await self._settled()
        assert now.cluster == truth.cluster
        # A view may have had an answer on its way when the keys went.
        assert _maps(now) in [_maps_of(truth, lost, copy) for copy in (best, truth)]
        for known in (best,) if "numbers" in lost else (best, truth):
            assert all(now.numbers[name] >= number for name, number in known.numbers.items())
        queue = await self.redis.hkeys(keys.IMPORTS)
        waiting = {str(key) for key, one in now.versions.items() if one.state in PENDING}
        assert set(queue) == waiting
        for plane in self.alive:
            await plane.keep()
            assert plane.on_disk() == now
        if "numbers" not in lost or best.revision == truth.revision:
            assert await self._register(self.alive[0], "a") not in self.given
        held = [replace(replica(key.model), key=key) for key in self.given]
        self.alive[-1].view.join(worker("w1", replicas=held), None)
        assert await self._register(self.alive[-1], "a") not in self.given

    async def _settled(self) -> Desired:
        """The state of the store once all planes show it."""
        while True:
            with suppress(RegistryUnavailable):
                now = await self.observer.desired()
                if all(
                    plane.view.registry_available and plane.view.desired == now
                    for plane in self.alive
                ):
                    return now
            await asyncio.sleep(0.005)


def _maps(desired: Desired) -> dict[str, Any]:
    return {part: getattr(desired, part) for part in MAPS if part != "numbers"}


def _maps_of(truth: Desired, lost: set[str], copy: Desired) -> dict[str, Any]:
    """What must be there once the lost maps were taken from a copy."""
    maps = {part: found for part, found in _maps(truth).items() if part not in lost}
    maps |= {part: found for part, found in _maps(copy).items() if part in lost}
    maps["wants"] = {key: one for key, one in maps["wants"].items() if key in maps["versions"]}
    return maps


# --- each promise by itself -----------------------------------------------------------------------


@pytest.fixture
async def plane(url: str, tmp_path: Path) -> AsyncIterator[Plane]:
    """A plane whose store has one of everything, and which keeps a copy of it."""
    redis: Any = connect(url, None, 2.0)
    await _answers(redis)
    await redis.aclose()
    plane = Plane(url, tmp_path)
    plane.start()
    await becomes(lambda: plane.view.is_loaded)
    await fill(plane.registry)
    await plane.reflector.refresh()
    await plane.keep()
    yield plane
    await plane.kill()


def changed_by_a_write(registry: Registry) -> list[Awaitable[object]]:
    key = VersionKey("wanted", 1)
    return [
        register(registry, "new"),
        registry.want(a_want(key)),
        registry.forget(key),
        registry.delete([key]),
        registry.cordon("w9", "i9"),
        registry.put_schedule(replace(DAILY, name="new")),
        registry.claim_import("i9", 1.0, 1.0),
        registry.desired(),
        anext(registry.changes()),
    ]


@pytest.mark.parametrize("key", keys.COUNTED)
async def test_nobody_reads_or_writes_a_store_that_lost_a_hash(plane: Plane, key: str) -> None:
    known = plane.view.frozen_desired()
    registry = RedisRegistry(plane.url)
    await plane.kill()
    await registry._redis.delete(key)
    for call in (*changed_by_a_write(registry), registry.desired_since(known)):
        with pytest.raises(StoreDamaged, match=key):
            await call
    assert not await registry._redis.exists(key)
    plane.start()
    await becomes(lambda: plane.view.is_loaded)
    assert _maps(plane.view.desired) == _maps(known)
    assert plane.view.desired.numbers == known.numbers
    assert [name in plane.restored[0] for name in (key.partition(":")[2], "jobs")].count(True)
    for call in changed_by_a_write(registry)[:-1]:
        await call
    await registry.close()


async def test_a_store_of_an_earlier_release_is_marked_where_it_is(plane: Plane) -> None:
    redis = plane.registry._redis
    await redis.hdel(keys.META, "held")
    known = await plane.registry.desired()
    assert _maps(known) == _maps(plane.view.desired)
    assert (await redis.hget(keys.META, "held")).startswith(f"{known.mark} ")
    await redis.delete(keys.VERSIONS)
    with pytest.raises(StoreDamaged):
        await plane.registry.desired()


async def test_a_write_of_an_earlier_release_is_no_loss(plane: Plane) -> None:
    """It changes a hash, the revision and the mark, and knows of no lengths."""
    redis = plane.registry._redis
    await redis.hdel(keys.CORDONS, "w1")
    revision = await redis.hincrby(keys.META, "revision", 1)
    await redis.hset(keys.META, "mark", "theirs")
    await redis.xadd(
        keys.LOG, {"mark": "theirs", "touched": f'[["{keys.CORDONS}","w1"]]'}, f"{revision}-1"
    )
    assert await plane.reflector.refresh()
    assert plane.view.desired.cordons == {}
    assert await register(plane.registry, "after") == VersionKey("after", 1)
    await redis.delete(keys.WANTS)
    with pytest.raises(StoreDamaged, match="wants"):
        await register(plane.registry, "after")


async def test_a_loss_that_no_length_tells_is_seen_beside_the_copy(plane: Plane) -> None:
    known = plane.view.frozen_desired()
    redis = connect(plane.url, None, 2.0)
    await plane.kill()
    await redis.hdel(keys.META, "held")
    await redis.delete(keys.VERSIONS)
    plane.start()
    await becomes(lambda: plane.view.is_loaded)
    assert plane.view.desired.versions == known.versions
    await redis.aclose()


async def test_a_new_store_is_not_taken_while_another_was_to_restore(plane: Plane) -> None:
    """The one with the newest copy announced it and died; one without a copy made a store."""
    known, redis = plane.view.frozen_desired(), plane.registry._redis
    await redis.flushall()
    await redis.set(redis_restore.CLAIM, known.revision + 1, px=400)
    other = RedisRegistry(plane.url)
    await other.create()
    await becomes(lambda: plane.restored)
    await becomes(lambda: plane.view.registry_readable)
    assert _maps(plane.view.desired) == _maps(known)
    assert plane.view.desired.cluster == known.cluster
    await other.close()


async def test_a_copy_of_another_store_keeps_nobody_back(plane: Plane) -> None:
    known, registry = plane.view.frozen_desired(), RedisRegistry(plane.url)
    await plane.kill()
    await registry._redis.delete(keys.VERSIONS)
    stranger = replace(known, cluster="another", revision=known.revision + 100)
    with pytest.raises(StoreDamaged):
        await registry.restore(stranger, None, 0.0)
    assert "versions" in await registry.restore(known, None, 0.0)
    await registry.close()


async def test_a_refresh_reads_the_lengths_in_its_one_round_trip(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, sent = await plane.registry.desired(), 0
    await plane.registry.desired_since(known)
    send = AbstractConnection.send_packed_command

    async def counted(self: AbstractConnection, *args: Any, **kwargs: Any) -> None:
        nonlocal sent
        sent += 1
        await send(self, *args, **kwargs)

    registry = RedisRegistry(plane.url)
    await registry.desired_since(known)  # connected
    await plane.kill()
    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    await registry.desired_since(known)
    assert sent == 1
    monkeypatch.undo()
    await registry.close()
    plane.start()


async def _answers(client: Any) -> None:
    while True:
        with suppress(RedisError, OSError):
            await client.flushall()
            return
        await asyncio.sleep(0.02)
