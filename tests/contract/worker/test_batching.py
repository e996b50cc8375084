"""How models are batched: from an admin's call over the registry to replicas that are loaded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.control_plane_rig import HOT, Rig, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import model_pb2, types_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as rig:
        yield rig


async def batch(
    rig: Rig, model: str, kind: str = "sim", batching: types_pb2.Batching | None = None
) -> model_pb2.ModelVersion:
    request = model_pb2.SetBatchingRequest(model=model, device_kind=kind, batching=batching)
    version: model_pb2.ModelVersion = (await rig.models.SetBatching(request, timeout=5)).version
    return version


EIGHT = types_pb2.Batching(max_batch=8, preferred_sizes=[4, 8], max_delay_ms=2.5, queue_capacity=9)


async def test_a_load_brings_the_batching_of_its_kind_of_device(rig: Rig) -> None:
    one = await rig.worker("w1")
    await rig.ready("a")
    version = await batch(rig, "a", batching=EIGHT)
    await batch(rig, "a", "cuda", types_pb2.Batching(max_batch=32))
    assert version.batching["sim"] == EIGHT
    await rig.load("a")
    assert one.replicas["a@1"].batching == EIGHT


async def test_a_replica_takes_a_change_over_where_it_is(rig: Rig) -> None:
    one = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a")
    assert not one.replicas["a@1"].HasField("batching")
    await batch(rig, "a", batching=EIGHT)
    await becomes(lambda: one.replicas["a@1"].batching == EIGHT)
    assert (one.replicas["a@1"].state, one.released) == (HOT, [])
    before = len(one.assigned)
    await batch(rig, "a", "cuda", EIGHT)  # of no concern to it
    await asyncio.sleep(1.2)  # two looks at the whole fleet
    assert len(one.assigned) == before
    await batch(rig, "a")
    await becomes(lambda: not one.replicas["a@1"].HasField("batching"))
    assert one.released == []


async def test_a_new_version_is_batched_as_the_one_before(rig: Rig) -> None:
    await rig.ready("a")
    await batch(rig, "a", batching=EIGHT)
    version = await rig.register("a", b"another")
    assert dict(version.batching) == {"sim": EIGHT}


async def test_nonsense_about_batches_is_refused(rig: Rig) -> None:
    await rig.ready("a")
    for wrong in (
        types_pb2.Batching(max_batch=257),
        types_pb2.Batching(max_batch=4, preferred_sizes=[8]),
        types_pb2.Batching(preferred_sizes=[4, 2]),
        types_pb2.Batching(preferred_sizes=[0]),
        types_pb2.Batching(max_delay_ms=float("nan")),
        types_pb2.Batching(max_delay_ms=-1),
        types_pb2.Batching(queue_capacity=10**6),
        types_pb2.Batching(fixed=True),
        types_pb2.Batching(fixed=True, max_batch=4, preferred_sizes=[2]),
    ):
        error = await refused(batch(rig, "a", batching=wrong))
        assert isinstance(error, errors.InvalidOption), wrong
    assert isinstance(await refused(batch(rig, "a", "tpu", EIGHT)), errors.InvalidOption)
    assert isinstance(await refused(batch(rig, "absent")), errors.ModelNotFound)
