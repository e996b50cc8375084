"""Where models run: pools, copies and what is fetched ahead, through a real control plane."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.contract.control_plane_rig import HOT, WARM, Rig, ScriptedWorker, refused
from yolopool import errors
from yolopool.v1 import model_pb2, types_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


async def until(ready: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not ready():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


def placement(**fields: object) -> types_pb2.Placement:
    return types_pb2.Placement(**fields)  # type: ignore[arg-type] # fields of it


async def place(rig: Rig, model: str, **fields: object) -> model_pb2.ModelVersion:
    request = model_pb2.SetPlacementRequest(model=model, placement=placement(**fields))
    version: model_pb2.ModelVersion = (await rig.models.SetPlacement(request, timeout=5)).version
    return version


async def test_a_model_goes_to_its_pool_and_moves_with_it(rig: Rig) -> None:
    day, night = await rig.worker("day", pool="day"), await rig.worker("night", pool="night")
    await rig.ready("a")
    version = await rig.load("a", placement=placement(pool="night"))
    assert version.placement.pool == "night"
    assert (day.assigned, night.assigned) == ([], ["a@1"])
    await place(rig, "a", pool="day")
    await until(lambda: night.released == ["a@1"])
    assert day.assigned == ["a@1"]
    assert (await rig.detect("a")).worker == "day"


async def test_what_no_worker_may_hold_says_which_label_is_missing(rig: Rig) -> None:
    await rig.worker("day", pool="day")
    await rig.ready("a")
    await place(rig, "a", pool="night")
    error = await refused(rig.detect("a", timeout=0.5))
    assert error.code == "DEADLINE_EXCEEDED"
    known = await rig.models.GetModel(model_pb2.GetModelRequest(model="a"), timeout=5)
    assert "pool=night" in known.model.versions[0].waiting_reason


async def test_a_new_version_runs_where_the_ones_before_did(rig: Rig) -> None:
    await rig.ready("a")
    await place(rig, "a", pool="night", max_replicas=3)
    version = await rig.register("a", b"another")
    assert (version.placement.pool, version.placement.max_replicas) == ("night", 3)


async def test_nonsense_about_places_is_refused(rig: Rig) -> None:
    await rig.ready("a")
    for fields in ({"priority": 9}, {"max_replicas": 5000}, {"pool": "x" * 500}):
        error = await refused(place(rig, "a", **fields))
        assert isinstance(error, errors.InvalidOption), fields
    assert isinstance(await refused(place(rig, "absent")), errors.ModelNotFound)


def says(one: ScriptedWorker, key: str, *, queue_ms: float, busy: float) -> None:
    replica = one.replicas[key]
    replica.queue_ms, replica.busy = queue_ms, busy
    one.poke()


async def test_copies_come_where_requests_wait_and_go_when_they_do_not(rig: Rig) -> None:
    one, other = await rig.worker("w1"), await rig.worker("w2")
    await rig.ready("a")
    await rig.load("a")
    there, idle = (one, other) if one.assigned else (other, one)
    says(there, "a@1", queue_ms=400.0, busy=0.95)
    await until(lambda: idle.assigned == ["a@1"] and idle.replicas["a@1"].state == HOT)
    says(there, "a@1", queue_ms=5.0, busy=0.45)
    says(idle, "a@1", queue_ms=5.0, busy=0.45)
    await asyncio.sleep(1.2)  # two looks at the whole fleet
    assert one.released == other.released == []
    says(there, "a@1", queue_ms=0.0, busy=0.05)
    says(idle, "a@1", queue_ms=0.0, busy=0.05)
    await until(lambda: len(one.released) + len(other.released) == 1)
    assert len(one.replicas) + len(other.replicas) == 1


async def test_the_next_version_of_a_model_in_use_is_fetched_ahead(rig: Rig) -> None:
    one = await rig.worker("w1", models=1, tier=2)
    await rig.ready("a")
    await rig.detect("a")
    one.replicas["a@1"].rates.CopyFrom(types_pb2.Rates(fast=1, middle=1, slow=1))
    one.poke()
    await rig.register("a", b"another")
    await rig.import_next()
    await until(lambda: one.prefetched == ["a@2"])
    assert one.replicas["a@2"].state == WARM
    assert (await rig.detect("a")).version.version == 2
    # Nobody wants it any more: it is not fetched again.
    await rig.models.UnloadModel(model_pb2.UnloadModelRequest(model="a@2", wait=True), timeout=5)
    await asyncio.sleep(1.2)
    assert one.prefetched == ["a@2"]
    assert "a@2" not in one.replicas
