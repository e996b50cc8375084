"""Two control planes on one store: the one that does not decide forwards to the one that does."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.types.version import VersionKey
from tests.contract.control_plane_rig import Rig, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import model_pb2, types_pb2


@pytest.fixture
async def holder(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, reconciler_lease_s=1.0) as one:
        await becomes(lambda: one.plane.view.leader)
        yield one


@pytest.fixture
async def other(tmp_path: Path, holder: Rig) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, holder.registry, reconciler_lease_s=1.0) as one:
        await becomes(lambda: one.plane.view.leader_address == holder.addresses.grpc)
        yield one


async def test_admin_calls_are_served_by_the_one_that_decides(holder: Rig, other: Rig) -> None:
    await holder.worker("w1", models=1, also=[other.addresses.grpc])
    await becomes(lambda: other.plane.view.workers)
    await other.ready("a", "b")
    assert [replica.worker for replica in (await other.load("a", pin=True)).replicas] == ["w1"]
    # Written by the other, and shown here at once.
    assert other.plane.view.desired.wants.keys() == holder.plane.view.desired.wants.keys()
    error = await refused(other.load("b", pin=True))
    assert isinstance(error, errors.LedgerFull)
    shown = await other.models.GetModel(model_pb2.GetModelRequest(model="b"), timeout=5)
    assert "LEDGER_FULL" in shown.model.versions[0].waiting_reason
    assert other.plane.view.waits == {}
    await other.models.DeleteModel(model_pb2.DeleteModelRequest(model="b"), timeout=5)
    assert isinstance(await refused(other.load("b")), errors.ModelNotFound)


async def test_a_build_that_is_set_to_serve_ends_the_back_off_of_the_leader(
    holder: Rig, other: Rig
) -> None:
    await holder.worker("w1", kind="cpu", also=[other.addresses.grpc])
    await becomes(lambda: other.plane.view.workers)
    await other.ready("a")
    place, backoff = ("w1", VersionKey("a", 1)), holder.plane.view.failures
    for _ in range(9):
        backoff.record(place, "LOAD_FAILED", "no such layer", time.monotonic())
    build = model_pb2.BuildModelRequest(
        model="a", backend="torch", precision="bf16", device_kind="cpu"
    )
    await other.models.BuildModel(build, timeout=5)
    serve = model_pb2.SetVariantRequest(model="a", device_kind="cpu", variant="torch/bf16")
    await other.models.SetVariant(serve, timeout=5)
    assert place not in backoff.current
    # Read at the follower, answered by the leader: the caller sees its own write.
    shown = await other.models.GetModel(model_pb2.GetModelRequest(model="a"), timeout=5)
    assert list(shown.model.versions[0].served) == ["cpu"]


async def test_a_miss_is_wanted_by_the_one_that_decides(holder: Rig, other: Rig) -> None:
    worker = await holder.worker("w1", models=1, also=[other.addresses.grpc])
    await becomes(lambda: other.plane.view.workers)
    await holder.ready("a", "b", "huge")
    answers = await asyncio.gather(*(other.detect("a") for _ in range(20)))
    assert {answer.worker for answer in answers} == {"w1"}
    assert worker.assigned == ["a@1"]
    await holder.load("a", pin=True)
    assert isinstance(await refused(other.detect("b")), errors.LedgerFull)
    worker.load_s = 60.0
    worker.replicas["a@1"].pinned = False
    await holder.keep("a", mode=types_pb2.RESIDENCY_MODE_NORMAL)
    error = await refused(other.detect("b", timeout=1))
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.details["waited_for"] == "LOAD"
    worker.budget = 50
    worker.poke()
    error = await refused(other.detect("huge"))
    assert isinstance(error, errors.ModelTooLarge)


async def test_a_holder_that_died_is_replaced_and_nobody_is_told_no(
    holder: Rig, other: Rig
) -> None:
    worker = await holder.worker("w1", also=[other.addresses.grpc])
    await becomes(lambda: other.plane.view.workers)
    await holder.ready("a", "b")
    # As after a kill: it says nothing more and answers nobody.
    assert holder.plane._deciding is not None
    holder.plane._deciding.cancel()
    await holder.plane._server.server.stop(0)
    loaded = await other.load("a")
    assert [replica.worker for replica in loaded.replicas] == ["w1"]
    assert (await other.detect("b")).worker == "w1"
    assert other.plane.view.leader_address == other.addresses.grpc
    assert worker.assigned == ["a@1", "b@1"]


async def test_a_holder_that_stops_gives_the_lease_up_at_once(holder: Rig, other: Rig) -> None:
    await holder.ready("a")
    await holder.plane._resign()
    assert await holder.registry.leader() is None
    await becomes(lambda: other.plane.view.leader_address == other.addresses.grpc)


async def test_what_the_holder_lacks_is_served_here(tmp_path: Path, holder: Rig) -> None:
    async with Rig(tmp_path / "elsewhere", holder.registry) as other:
        await becomes(lambda: other.plane.view.leader_address == holder.addresses.grpc)
        assert (await other.register("a")).version.version == 1


async def test_a_holder_that_ends_in_a_call_makes_no_version_twice(holder: Rig, other: Rig) -> None:
    await other.upload(b"weights")
    request = model_pb2.RegisterModelRequest(
        name="a", artifact=hashlib.sha256(b"weights").hexdigest(), wait=True
    )
    registering = asyncio.ensure_future(other.models.RegisterModel(request, timeout=20))
    await becomes(lambda: holder.plane.view.desired.versions)
    assert holder.plane._deciding is not None
    holder.plane._deciding.cancel()
    await holder.plane._server.server.stop(0)
    await other.import_next()
    assert (await registering).version.version.version == 1
    assert len(other.plane.view.desired.versions) == 1
