"""Who wrote reads it: the view shows a write before its caller goes on, or as soon as it can."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.desired import Desired, DesiredDelta
from control_plane.types.lease import FencingToken
from control_plane.types.version import VersionKey
from tests.contract.control_plane_rig import Rig
from tests.waiting import becomes
from yolopool.errors import RegistryUnavailable
from yolopool.v1 import fleet_pb2, model_pb2

A, B = VersionKey("a", 1), VersionKey("b", 1)


class WriteOnly(MemoryRegistry):
    """It takes writes, and while `unreadable` it answers no read of desired state."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable = self.fails_after_a_drop = False

    async def desired_since(self, known: Desired) -> DesiredDelta | None:
        if self.unreadable:
            raise RegistryUnavailable("the store does not answer")
        return await super().desired_since(known)

    async def forget(
        self, key: VersionKey, token: FencingToken | None = None, left: int = 0
    ) -> bool:
        found = await super().forget(key, token, left)
        self.unreadable = self.unreadable or self.fails_after_a_drop
        return found

    async def held(self) -> Desired:
        return await super().desired()


@pytest.fixture
def registry() -> WriteOnly:
    return WriteOnly()


@pytest.fixture
async def rig(tmp_path: Path, registry: WriteOnly) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, registry) as rig:
        yield rig


async def test_a_write_stands_although_the_store_fails_before_it_is_read(
    rig: Rig, registry: WriteOnly
) -> None:
    worker = await rig.worker("w1")
    registry.unreadable = True
    await rig.register("a", b"a")
    await rig.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(worker="w1"), timeout=5)
    assert rig.plane.view.desired.versions == {}
    registry.unreadable = False
    await becomes(lambda: A in rig.plane.view.desired.versions)
    await becomes(lambda: bool(worker.drained))


async def test_a_miss_whose_want_is_not_shown_yet_waits_for_it(
    rig: Rig, registry: WriteOnly
) -> None:
    await rig.worker("w1")
    await rig.ready("a")
    registry.unreadable = True
    before = (await registry.held()).revision
    answer = asyncio.create_task(rig.detect("a"))
    await asyncio.sleep(0.7)
    assert not answer.done()
    assert (await registry.held()).revision == before + 1  # the want is written once
    registry.unreadable = False
    assert (await answer).worker == "w1"


async def test_no_worker_acts_on_a_plan_that_the_view_does_not_show(
    rig: Rig, registry: WriteOnly
) -> None:
    worker = await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    await rig.load("a")
    registry.fails_after_a_drop = True
    answer = asyncio.create_task(rig.detect("b"))
    await becomes(lambda: registry.unreadable)
    await asyncio.sleep(0.2)
    assert (worker.released, worker.assigned) == ([], ["a@1"])
    assert A in rig.plane.view.desired.wants
    registry.fails_after_a_drop = registry.unreadable = False
    assert (await answer).version.model == "b"
    assert worker.released == ["a@1"]


async def test_what_a_plan_evicts_is_not_what_someone_unloaded(rig: Rig) -> None:
    await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    await rig.load("a")
    await rig.detect("b")
    assert A not in rig.plane.view.desired.wants
    assert set(rig.plane.view.snapshot().unloaded) == set()
    await rig.models.UnloadModel(model_pb2.UnloadModelRequest(model="b"), timeout=5)
    assert set(rig.plane.view.snapshot().unloaded) == {B}
