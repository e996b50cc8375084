"""Aliases over real gRPC: a switch without a gap, whoever carries it on, and each place that names
a model.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control_plane.models import schedule_controller
from control_plane.rollout import switch, switch_controller
from control_plane.types.desired import WantSource
from control_plane.types.rollout.alias import Alias, AliasKey, point_of
from tests.contract.control_plane.test_changeover import change, held, wants
from tests.contract.control_plane_rig import HOT, Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import (
    aliases_pb2,
    detection_pb2,
    events_pb2,
    explain_pb2,
    model_pb2,
    schedule_pb2,
    types_pb2,
)

STABLE = AliasKey("shapes", "stable")
KINDS = aliases_pb2.AliasChangeKind


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch_controller, "TICK_S", 0.05)
    monkeypatch.setattr(schedule_controller, "TICK_S", 0.05)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


async def versions(rig: Rig, count: int) -> None:
    for number in range(count):
        await rig.register("shapes", b"weights %d" % number)
        await rig.import_next()


def promote(rig: Rig, version: int, wait: bool = True, timeout: float = 10, **more: Any) -> Any:
    request = aliases_pb2.PromoteModelRequest(
        model=f"shapes@{version}", alias="stable", wait=wait, **more
    )
    return rig.aliases.PromoteModel(request, timeout=timeout)


def share(rig: Rig, weights: dict[int, int], alias: str = "shapes:stable", **more: Any) -> Any:
    targets = [aliases_pb2.AliasTarget(version=v, weight=w) for v, w in weights.items()]
    request = aliases_pb2.SetAliasRequest(alias=alias, targets=targets, wait=True, **more)
    return rig.aliases.SetAlias(request, timeout=10)


def rollback(rig: Rig, wait: bool = True, **more: Any) -> Any:
    request = aliases_pb2.RollbackAliasRequest(alias="shapes:stable", wait=wait, **more)
    return rig.aliases.RollbackAlias(request, timeout=10)


def alias_of(rig: Rig) -> Alias:
    return rig.plane.view.desired.aliases[STABLE]


def means(rig: Rig) -> list[int]:
    return [target.version for target in alias_of(rig).targets]


async def answers(rig: Rig, **more: Any) -> int:
    """The version that answers for the alias."""
    return int((await rig.detect("shapes:stable", **more)).version.version)


def is_hot(worker: ScriptedWorker, version: int) -> bool:
    replica = worker.replicas.get(f"shapes@{version}")
    return replica is not None and replica.state == HOT


# --- a switch -----------------------------------------------------------------------------------


async def test_an_alias_moves_once_its_target_is_loaded_and_back_at_once(rig: Rig) -> None:
    await versions(rig, 2)
    worker = await rig.worker("w", models=3)
    made = (await promote(rig, 1, why="the first", keep_s=60.0)).alias
    assert (made.model, made.name, made.revision) == ("shapes", "stable", 1)
    await rig.load("shapes:stable")
    assert await answers(rig) == 1
    worker.may_load.clear()
    asked = asyncio.create_task(_awaited(promote(rig, 2, why="it is better")))
    await becomes(lambda: "shapes@2" in held(worker))
    assert await answers(rig) == 1
    shown = (await _get(rig)).alias
    assert [one.version for one in shown.switch.targets] == [2]
    assert "1 more replica of shapes@2" in shown.switch.waits_for
    worker.may_load.set()
    moved = (await asked).alias
    assert [one.version for one in moved.targets] == [2]
    assert [one.version for one in moved.previous] == [1]
    assert not moved.HasField("switch")
    assert await answers(rig) == 2
    # It stays, wanted for the alias alone, as long as a rollback may come.
    assert (await wants(rig))["shapes@1"].source is WantSource.ALIAS
    assert is_hot(worker, 1)
    worker.may_load.clear()  # nothing has to be loaded
    back = (await rollback(rig, why="it misses bolts")).alias
    assert [one.version for one in back.targets] == [1]
    assert await answers(rig) == 1
    assert [(KINDS.Name(one.kind), one.why) for one in back.history] == [
        ("ALIAS_CHANGE_KIND_SET", "the first"),
        ("ALIAS_CHANGE_KIND_PROMOTE", "it is better"),
        ("ALIAS_CHANGE_KIND_ROLLBACK", "it misses bolts"),
    ]
    error = await refused(rollback(rig))
    assert isinstance(error, errors.NothingToRollBack)


async def test_what_was_left_is_released_after_its_time_behind_its_last_request(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "DRAIN_S", 0.3)
    monkeypatch.setattr(switch_controller, "IN_USE_S", 0.0)
    await versions(rig, 2)
    worker = await rig.worker("w", models=3)
    await promote(rig, 1, keep_s=0.0)
    await rig.load("shapes@1", pin=True)
    worker.infer_s = 0.8
    last = asyncio.create_task(answers(rig))
    await becomes(lambda: len(worker.inferred) == 1)
    await promote(rig, 2)
    assert await last == 1
    worker.infer_s = 0.0
    await becomes(lambda: set(worker.replicas) == {"shapes@2"})
    assert worker.released == ["shapes@1"]
    assert not worker.forced
    (want,) = (await wants(rig)).values()
    assert (str(want.key), want.pinned, want.source) == ("shapes@2", True, WantSource.ADMIN)
    assert alias_of(rig).kept == ()
    # Further back than what is kept: it is loaded first.
    assert [one.version for one in (await rollback(rig)).alias.targets] == [1]


async def test_a_target_that_can_not_be_loaded_changes_nothing(rig: Rig) -> None:
    await versions(rig, 3)
    worker = await rig.worker("w", models=3)
    await promote(rig, 1)
    await rig.load("shapes@1")
    worker.refuse["shapes@2"] = errors.OutOfMemory("the device has 3 bytes left")
    error = await refused(promote(rig, 2))
    assert isinstance(error, errors.SwitchAbandoned)
    assert "3 bytes left" in error.message
    assert means(rig) == [1]
    assert set(await wants(rig)) == {"shapes@1"}
    # One that takes too long.
    worker.may_load.clear()
    error = await refused(promote(rig, 3, within_s=0.3))
    assert isinstance(error, errors.SwitchAbandoned)
    assert "was not loaded in 0.3 s" in error.message
    worker.may_load.set()
    worker.refuse.clear()
    assert [one.version for one in (await promote(rig, 2)).alias.targets] == [2]
    told = await _events(rig, kinds=[events_pb2.EVENT_KIND_ALIAS])
    assert [(one.version.version, one.reason) for one in told] == [
        (1, ""),
        (1, "SWITCH_ABANDONED"),
        (1, "SWITCH_ABANDONED"),
        (2, ""),
    ]


async def test_where_there_is_no_room_for_both_the_old_one_stays(rig: Rig) -> None:
    await versions(rig, 2)
    await rig.ready("other")
    worker = await rig.worker("w", models=1)
    await promote(rig, 1)
    await rig.load("shapes@1")
    asked = asyncio.create_task(refused(promote(rig, 2, within_s=1.5)))
    await becomes(lambda: rig.waits_for("shapes@2"))
    assert await answers(rig) == 1
    # Nor does a request for another model take its place meanwhile.
    error = await refused(rig.detect("other", timeout=0.5))
    assert isinstance(error, errors.DeadlineExceeded | errors.LedgerFull)
    assert await answers(rig) == 1
    assert isinstance(await asked, errors.SwitchAbandoned)
    assert worker.assigned == ["shapes@1"]
    assert means(rig) == [1]


async def test_a_later_order_takes_the_place_of_a_switch_and_a_rollback_ends_it(rig: Rig) -> None:
    await versions(rig, 3)
    worker = await rig.worker("w", models=4)
    await promote(rig, 1)
    await rig.load("shapes@1")
    worker.may_load.clear()
    first = asyncio.create_task(refused(promote(rig, 2)))
    await becomes(lambda: alias_of(rig).switch is not None)
    assert (await promote(rig, 3, wait=False)).alias.switch.targets[0].version == 3
    assert isinstance(await first, errors.SwitchAbandoned)
    ended = (await rollback(rig, wait=False)).alias
    assert not ended.HasField("switch")
    assert [one.version for one in ended.targets] == [1]
    assert set(await wants(rig)) == {"shapes@1"}
    worker.may_load.set()
    # By force nothing is waited for.
    worker.load_s = 0.3
    assert [one.version for one in (await promote(rig, 3, force=True)).alias.targets] == [3]
    assert await answers(rig) == 3


async def test_who_orders_what_it_means_now_ends_a_switch(rig: Rig) -> None:
    await versions(rig, 2)
    worker = await rig.worker("w", models=4)
    await promote(rig, 1)
    await rig.load("shapes@1")
    worker.may_load.clear()
    first = asyncio.create_task(refused(promote(rig, 2)))
    await becomes(lambda: alias_of(rig).switch is not None)
    stays = (await promote(rig, 1, why="not yet")).alias
    assert not stays.HasField("switch")
    assert [one.version for one in stays.targets] == [1]
    assert "another order came" in stays.history[-1].why
    assert isinstance(await first, errors.SwitchAbandoned)
    assert set(await wants(rig)) == {"shapes@1"}
    worker.may_load.set()
    await asyncio.sleep(0.2)
    assert means(rig) == [1]


async def test_who_expects_something_else_is_told(rig: Rig) -> None:
    await versions(rig, 3)
    await promote(rig, 1, expected_version=0)
    others: list[dict[str, Any]] = [
        {"expected_version": 2},
        {"expected_revision": 7},
        {"expected_version": 0},
    ]
    for wrong in others:
        assert isinstance(await refused(promote(rig, 2, **wrong)), errors.AliasChanged), wrong
    await promote(rig, 2, expected_version=1, expected_revision=1)
    assert means(rig) == [2]
    # Of two who saw the same one comes first.
    both = [promote(rig, n, expected_revision=2, request_id=f"r{n}") for n in (1, 3)]
    ends = await asyncio.gather(*map(_awaited, both), return_exceptions=True)
    assert sorted(isinstance(end, grpc.RpcError) for end in ends) == [False, True]
    # A repeat of an order that was taken orders nothing.
    before = alias_of(rig)
    await promote(rig, 2, request_id=alias_of(rig).history[-1].request_id)
    assert alias_of(rig) == before
    await rollback(rig, request_id="back")
    there = means(rig)
    await rollback(rig, request_id="back")
    assert means(rig) == there


# --- whoever leads -------------------------------------------------------------------------------


async def test_the_next_leader_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    async with Rig(tmp_path, reconciler_lease_s=1.0) as first:
        await becomes(lambda: first.plane.view.leader)
        async with Rig(tmp_path, first.registry, reconciler_lease_s=1.0) as second:
            await becomes(lambda: second.plane.view.leader_address == first.addresses.grpc)
            await first.worker("w", models=1, also=[second.addresses.grpc])
            await versions(first, 2)
            await promote(first, 1)
            await first.load("shapes@1")
            asked = asyncio.create_task(_awaited(promote(second, 2, timeout=60)))
            await becomes(lambda: first.waits_for("shapes@2"))
            await first.plane.stop()
            assert means(second) == [1]
            await second.worker("w2", models=1)  # there is room now
            assert [one.version for one in (await asked).alias.targets] == [2]
            assert await answers(second) == 2
            kinds = [change.kind for change in alias_of(second).history]
            assert kinds == ["SET", "PROMOTE"]  # once, by whoever led


# --- several versions ----------------------------------------------------------------------------


async def test_requests_are_shared_by_weight_and_a_key_keeps_to_one(rig: Rig) -> None:
    await versions(rig, 2)
    worker = await rig.worker("w", models=3)
    await share(rig, {1: 500, 2: 500})
    await rig.load("shapes:stable")
    assert held(worker) == {"shapes@1", "shapes@2"}
    drawn = {await answers(rig) for _ in range(40)}
    assert drawn == {1, 2}
    for key in ("camera-1", "camera-2", "camera-7"):
        expected = 1 if point_of(STABLE, key) < 500 else 2
        assert {await answers(rig, sticky_key=key) for _ in range(5)} == {expected}
    error = await refused(answers(rig, sticky_key="x" * 201))
    assert isinstance(error, errors.InvalidOption)


async def test_the_frames_of_a_stream_keep_to_one_and_follow_a_switch(rig: Rig) -> None:
    await versions(rig, 3)
    await rig.worker("w", models=3)
    await share(rig, {1: 500, 2: 500})
    await rig.load("shapes:stable")

    async def frames(count: int, **opening: Any) -> set[int]:
        call = rig.detection.DetectStream()
        start = detection_pb2.StreamOpening(model="shapes:stable", **opening)
        await call.write(detection_pb2.DetectStreamRequest(opening=start))
        for number in range(count):
            frame = detection_pb2.StreamFrame(frame_id=number, encoded=b"jpeg")
            await call.write(detection_pb2.DetectStreamRequest(frame=frame))
        await call.done_writing()
        return {one.response.version.version async for one in call if one.HasField("response")}

    alone = [await frames(6) for _ in range(12)]
    assert all(len(one) == 1 for one in alone)
    assert set.union(*alone) == {1, 2}  # another stream, another draw
    expected = 1 if point_of(STABLE, "camera-7") < 500 else 2
    assert await frames(6, sticky_key="camera-7") == {expected}
    await promote(rig, 3)
    assert await frames(6, sticky_key="camera-7") == {3}


@pytest.mark.parametrize(
    ("alias", "weights", "says"),
    [
        ("shapes:stable", {1: 999}, "sum to 999"),
        ("shapes:stable", {}, "1 to 16 targets"),
        ("shapes:stable", {1: 1000, 2: 0}, "weight of at least 1"),
        ("shapes:stable", {9: 1000}, "shapes@9"),
        ("shapes", {1: 1000}, "names no alias"),
        ("shapes+onnx-fp32-cpu:stable", {1: 1000}, "names no alias"),
        ("absent:stable", {1: 1000}, "absent"),
    ],
)
async def test_what_is_wrong_with_an_alias_is_said(
    rig: Rig, alias: str, weights: dict[int, int], says: str
) -> None:
    await versions(rig, 2)
    error = await refused(share(rig, weights, alias))
    assert says in error.message
    assert rig.plane.view.desired.aliases == {}


# --- every place that names a model --------------------------------------------------------------


async def test_what_operators_set_by_an_alias_is_set_of_all_that_it_means(rig: Rig) -> None:
    await versions(rig, 3)
    worker = await rig.worker("w", models=4)
    await share(rig, {2: 900, 1: 100})
    shown = await rig.models.GetModel(model_pb2.GetModelRequest(model="shapes:stable"), timeout=5)
    assert [one.version.version for one in shown.model.versions] == [2, 1]
    assert shown.model.default_version == 2
    loaded = await rig.load("shapes:stable", pin=True)
    assert loaded.version.version == 2
    assert loaded.pinned
    assert held(worker) == {"shapes@1", "shapes@2"}
    kept = await rig.keep("shapes:stable", mode=types_pb2.RESIDENCY_MODE_ON_DEMAND)
    assert kept.version.version == 2
    known = rig.plane.view.desired.versions
    modes = {key.number: version.given.residency.mode.name for key, version in known.items()}
    assert modes == {1: "ON_DEMAND", 2: "ON_DEMAND", 3: "NORMAL"}
    place = model_pb2.SetPlacementRequest(
        model="shapes:stable", placement=types_pb2.Placement(max_replicas=2)
    )
    await rig.models.SetPlacement(place, timeout=5)
    batch = model_pb2.SetBatchingRequest(
        model="shapes:stable", device_kind="sim", batching=types_pb2.Batching(max_batch=4)
    )
    await rig.models.SetBatching(batch, timeout=5)
    most = {key.number: one.given.placement.max_replicas for key, one in known.items()}
    assert most == {1: 2, 2: 2, 3: 0}
    assert {key.number for key, one in known.items() if one.given.batching} == {1, 2}
    await rig.models.UnloadModel(model_pb2.UnloadModelRequest(model="shapes:stable"), timeout=10)
    assert await wants(rig) == {}
    error = await refused(
        rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="shapes:stable"), timeout=5)
    )
    assert isinstance(error, errors.InvalidOption)


async def test_changeovers_and_schedules_mean_what_the_alias_means_then(rig: Rig) -> None:
    await versions(rig, 3)
    await rig.ready("night")
    worker = await rig.worker("w", models=4)
    await promote(rig, 1)
    await change(rig, "shapes:stable")
    assert held(worker) == {"shapes@1"}
    await change(rig, "night", "shapes:stable")
    await becomes(lambda: held(worker) == {"night@1"})
    load = model_pb2.LoadModelRequest(model="shapes:stable")
    one = schedule_pb2.Schedule(
        name="day",
        cron="0 8 * * *",
        lead_s=86_400.0,
        change=model_pb2.ChangeoverRequest(prepare=[load]),
    )
    # It prepares from now on; what it names is looked up at each step.
    await promote(rig, 2)
    await rig.schedules.SetSchedule(schedule_pb2.SetScheduleRequest(schedule=one), timeout=5)
    await becomes(lambda: held(worker) == {"night@1", "shapes@2"})
    await promote(rig, 3, force=True)
    await becomes(lambda: "shapes@3" in held(worker))


async def test_readiness_explanations_and_events_know_aliases(rig: Rig) -> None:
    await versions(rig, 2)
    await rig.worker("w", models=3)
    await share(rig, {1: 900, 2: 100})
    await rig.load("shapes@1")
    async with grpc.aio.insecure_channel(rig.addresses.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="model/shapes:stable")
        status = health_pb2.HealthCheckResponse.ServingStatus
        assert (await stub.Check(asked, timeout=5)).status == status.NOT_SERVING
        await rig.load("shapes@2")
        assert (await stub.Check(asked, timeout=5)).status == status.SERVING
    found = await rig.explain.ExplainModel(
        explain_pb2.ExplainModelRequest(model="shapes:stable"), timeout=5
    )
    assert found.version.version == 1
    assert list(found.aliases) == ["shapes:stable means 1 90 % + 2 10 %."]
    await promote(rig, 1)
    kept = await rig.explain.ExplainModel(
        explain_pb2.ExplainModelRequest(model="shapes@2"), timeout=5
    )
    assert "2 stays loaded for" in kept.aliases[0]
    moves = await _events(rig, model="shapes:stable", kinds=[events_pb2.EVENT_KIND_ALIAS])
    assert [one.message for one in moves] == [
        "shapes:stable set nothing -> 1 90 % + 2 10 %, by anonymous",
        "shapes:stable promote 1 90 % + 2 10 % -> 1, by anonymous",
    ]
    error = await refused(_events(rig, model="shapes:none"))
    assert isinstance(error, errors.AliasNotFound)


async def test_an_alias_that_is_deleted_is_unknown_and_keeps_nothing(rig: Rig) -> None:
    await versions(rig, 2)
    worker = await rig.worker("w", models=3)
    await promote(rig, 1)
    await rig.load("shapes@1")
    await promote(rig, 2)
    listed = await rig.aliases.ListAliases(aliases_pb2.ListAliasesRequest(), timeout=5)
    assert [(one.name, len(one.history)) for one in listed.aliases] == [("stable", 0)]
    other = aliases_pb2.ListAliasesRequest(name_prefix="other")
    assert not (await rig.aliases.ListAliases(other, timeout=5)).aliases
    gone = aliases_pb2.DeleteAliasRequest(alias="shapes:stable", expected_revision=1)
    assert isinstance(await refused(rig.aliases.DeleteAlias(gone, timeout=5)), errors.AliasChanged)
    gone.ClearField("expected_revision")
    await rig.aliases.DeleteAlias(gone, timeout=5)
    assert isinstance(await refused(answers(rig)), errors.AliasNotFound)
    assert isinstance(await refused(rig.aliases.DeleteAlias(gone, timeout=5)), errors.AliasNotFound)
    await becomes(lambda: held(worker) == {"shapes@2"})
    assert (await wants(rig))["shapes@2"].source is WantSource.ADMIN


async def _awaited(call: Any) -> Any:
    return await call


async def _get(rig: Rig) -> Any:
    return await rig.aliases.GetAlias(aliases_pb2.GetAliasRequest(alias="shapes:stable"), timeout=5)


async def _events(rig: Rig, **asked: Any) -> list[Any]:
    """What is stored by now; the recorder writes beside."""
    await asyncio.sleep(0.2)
    call = rig.events.WatchEvents(events_pb2.WatchEventsRequest(**asked), timeout=5)
    return [event async for event in call]
