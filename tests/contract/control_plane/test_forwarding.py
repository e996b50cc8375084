"""Two control planes on one store: the follower forwards to the leader."""

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
from yolopool.server.time_limits import Stop
from yolopool.v1 import model_pb2, types_pb2


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, reconciler_lease_s=1.0) as one:
        await becomes(lambda: one.plane.view.leader)
        yield one


@pytest.fixture
async def follower(tmp_path: Path, leader: Rig) -> AsyncIterator[Rig]:
    async with Rig(tmp_path, leader.registry, reconciler_lease_s=1.0) as one:
        await becomes(lambda: one.plane.view.leader_address == leader.addresses.grpc)
        yield one


async def test_admin_calls_are_served_by_the_leader(leader: Rig, follower: Rig) -> None:
    await leader.worker("w1", models=1, also=[follower.addresses.grpc])
    await becomes(lambda: follower.plane.view.workers)
    await follower.ready("a", "b")
    assert [replica.worker for replica in (await follower.load("a", pin=True)).replicas] == ["w1"]
    # The leader wrote it, and the follower shows it at once.
    assert follower.plane.view.desired.wants.keys() == leader.plane.view.desired.wants.keys()
    error = await refused(follower.load("b", pin=True))
    assert isinstance(error, errors.LedgerFull)
    shown = await follower.models.GetModel(model_pb2.GetModelRequest(model="b"), timeout=5)
    assert "LEDGER_FULL" in shown.model.versions[0].waiting_reason
    assert follower.plane.view.waits == {}
    await follower.models.DeleteModel(
        model_pb2.DeleteModelRequest(model="b", force=True), timeout=5
    )
    assert isinstance(await refused(follower.load("b")), errors.ModelNotFound)


async def test_a_build_that_is_set_to_serve_ends_the_back_off_of_the_leader(
    leader: Rig, follower: Rig
) -> None:
    await leader.worker("w1", kind="cpu", also=[follower.addresses.grpc])
    await becomes(lambda: follower.plane.view.workers)
    await follower.ready("a")
    place, backoff = ("w1", VersionKey("a", 1)), leader.plane.view.failures
    for _ in range(9):
        backoff.record(place, "LOAD_FAILED", "no such layer", time.monotonic())
    build = model_pb2.BuildModelRequest(
        model="a", backend="torch", precision="bf16", device_kind="cpu"
    )
    await follower.models.BuildModel(build, timeout=5)
    serve = model_pb2.SetVariantRequest(model="a", device_kind="cpu", variant="torch/bf16")
    await follower.models.SetVariant(serve, timeout=5)
    assert place not in backoff.current
    # Read at the follower, answered by the leader: the caller sees its own write.
    shown = await follower.models.GetModel(model_pb2.GetModelRequest(model="a"), timeout=5)
    assert list(shown.model.versions[0].served) == ["cpu"]


async def test_a_miss_is_wanted_by_the_leader(leader: Rig, follower: Rig) -> None:
    worker = await leader.worker("w1", models=1, also=[follower.addresses.grpc])
    await becomes(lambda: follower.plane.view.workers)
    await leader.ready("a", "b", "huge")
    answers = await asyncio.gather(*(follower.detect("a") for _ in range(20)))
    assert {answer.worker for answer in answers} == {"w1"}
    assert worker.assigned == ["a@1"]
    await leader.load("a", pin=True)
    assert isinstance(await refused(follower.detect("b")), errors.LedgerFull)
    worker.load_s = 60.0
    worker.replicas["a@1"].pinned = False
    await leader.keep("a", mode=types_pb2.RESIDENCY_MODE_NORMAL)
    error = await refused(follower.detect("b", timeout=1))
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.details["waited_for"] == "LOAD"
    worker.budget = 50
    worker.poke()
    error = await refused(follower.detect("huge"))
    assert isinstance(error, errors.ModelTooLarge)


async def test_a_leader_that_died_is_replaced_and_nobody_is_told_no(
    leader: Rig, follower: Rig
) -> None:
    worker = await leader.worker("w1", also=[follower.addresses.grpc])
    await becomes(lambda: follower.plane.view.workers)
    await leader.ready("a", "b")
    # As after a kill: it says nothing more and answers nobody.
    assert leader.plane._deciding is not None
    leader.plane._deciding.cancel()
    await leader.plane._server.server.stop(0)
    loaded = await follower.load("a")
    assert [replica.worker for replica in loaded.replicas] == ["w1"]
    assert (await follower.detect("b")).worker == "w1"
    assert follower.plane.view.leader_address == follower.addresses.grpc
    assert worker.assigned == ["a@1", "b@1"]


async def test_a_leader_that_stops_gives_the_lease_up_at_once(leader: Rig, follower: Rig) -> None:
    await leader.ready("a")
    await leader.plane._resign(Stop(10))
    assert await leader.registry.leader() is None
    await becomes(lambda: follower.plane.view.leader_address == follower.addresses.grpc)


async def test_what_the_leader_lacks_is_served_here(tmp_path: Path, leader: Rig) -> None:
    async with Rig(tmp_path / "elsewhere", leader.registry) as follower:
        await becomes(lambda: follower.plane.view.leader_address == leader.addresses.grpc)
        assert (await follower.register("a")).version.version == 1


async def test_a_leader_that_ends_in_a_call_makes_no_version_twice(
    leader: Rig, follower: Rig
) -> None:
    await follower.upload(b"weights")
    request = model_pb2.RegisterModelRequest(
        name="a", artifact=hashlib.sha256(b"weights").hexdigest(), wait=True
    )
    registering = asyncio.ensure_future(follower.models.RegisterModel(request, timeout=20))
    await becomes(lambda: leader.plane.view.desired.versions)
    assert leader.plane._deciding is not None
    leader.plane._deciding.cancel()
    await leader.plane._server.server.stop(0)
    await follower.import_next()
    assert (await registering).version.version.version == 1
    assert len(follower.plane.view.desired.versions) == 1
