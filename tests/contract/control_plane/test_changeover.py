"""Changeovers over real gRPC: all or nothing, whatever hinders them, and for whoever goes away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from control_plane.convert import validation
from control_plane.types.desired import Want
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.v1 import events_pb2, model_pb2, types_pb2

CHANGEOVER = events_pb2.EVENT_KIND_CHANGEOVER
STANDBY = types_pb2.RESIDENCY_MODE_HOT_STANDBY


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


LONG_S, MARGIN_S = 5.0, 4.5


@pytest.fixture
def ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane gives up MARGIN_S before its caller, whose clock would else win where much
    else runs: a call of LONG_S gives up after the difference.
    """
    monkeypatch.setattr(validation, "_MARGIN", 1.0)
    monkeypatch.setattr(validation, "_MAX_MARGIN_S", MARGIN_S)


def change(rig: Rig, prepare: str, release: str = "", timeout: float = 10, **more: Any) -> Any:
    loads = [model_pb2.LoadModelRequest(model=one, **more) for one in prepare.split()]
    request = model_pb2.ChangeoverRequest(prepare=loads, release=release.split())
    return rig.models.Changeover(request, timeout=timeout)


async def wants(rig: Rig) -> dict[str, Want]:
    """As the store has them."""
    return {str(key): want for key, want in (await rig.registry.desired()).wants.items()}


def held(worker: ScriptedWorker) -> set[str]:
    return set(worker.replicas)


async def test_one_set_is_loaded_and_then_the_other_ends(rig: Rig) -> None:
    await rig.ready("a", "b", "c", "d")
    worker = await rig.worker("w", models=4)
    await rig.load("a", pin=True)
    await rig.keep("b", mode=STANDBY)
    await becomes(lambda: "b@1" in held(worker))
    answer = await change(rig, "c d a", "a b", pin=True)
    assert [str(one.version.model) for one in answer.prepared] == ["c", "d", "a"]
    assert all(one.pinned and one.replicas[0].replica.pinned for one in answer.prepared)
    assert [one.model for one in answer.released] == ["b"]  # what is prepared too stays
    desired = await rig.registry.desired()
    assert {str(key) for key in desired.all_wants()} == {"a@1", "c@1", "d@1"}
    assert rig.plane.view.desired.all_wants() == desired.all_wants()
    again = await change(rig, "c d a", "a b", pin=True)
    assert again == answer
    assert (await rig.registry.desired()).revision == desired.revision


async def test_nothing_is_released_while_one_still_loads(rig: Rig) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    worker.load_s = 0.5
    call = change(rig, "b", "a")
    await becomes(lambda: "b@1" in held(worker))
    assert "a@1" in await wants(rig)
    await call
    assert set(await wants(rig)) == {"b@1"}


async def test_one_that_fails_leaves_all_as_it_was(rig: Rig) -> None:
    await rig.ready("a", "b", "c")
    worker = await rig.worker("w", models=3)
    await rig.load("a", pin=True)
    await rig.load("b", replicas=1)
    before = await wants(rig)
    worker.refuse["c@1"] = errors.OutOfMemory("the device has 3 bytes left")
    error = await refused(change(rig, "b c", "a", pin=True))
    assert isinstance(error, errors.ChangeoverFailed)
    assert error.details == {"model": "c@1", "reason": "LOAD_FAILED"}
    assert "3 bytes left" in error.message
    assert await wants(rig) == before
    assert rig.plane.view.desired.wants == (await rig.registry.desired()).wants
    await becomes(lambda: rig.plane.view.waits == {})
    worker.refuse.clear()
    await change(rig, "b c", "a", pin=True)
    assert set(await wants(rig)) == {"b@1", "c@1"}


async def test_what_pinned_models_leave_no_room_for(rig: Rig) -> None:
    await rig.ready("a", "b", "c")
    await rig.worker("w", models=2)
    await rig.load("a", pin=True)
    error = await refused(change(rig, "b c", "a", pin=True))
    assert isinstance(error, errors.ChangeoverFailed)
    assert error.details["reason"] == "LEDGER_FULL"
    assert set(await wants(rig)) == {"a@1"}


async def test_for_what_never_fits_nothing_leaves(rig: Rig) -> None:
    await rig.ready("a", "b", "c", "d", "e")
    worker = await rig.worker("w", models=2)
    for name in "ab":
        await rig.load(name)
    before = await rig.registry.desired()
    error = await refused(change(rig, "c d e", "a b"))
    assert isinstance(error, errors.ChangeoverFailed)
    assert error.details["reason"] == "LEDGER_FULL"
    assert "load fewer" in error.message or "memory" in error.message
    assert held(worker) == {"a@1", "b@1"}
    assert (await rig.registry.desired()).revision == before.revision
    await change(rig, "c d", "a b")
    assert held(worker) == {"c@1", "d@1"}
    events = rig.events.WatchEvents(events_pb2.WatchEventsRequest(kinds=[CHANGEOVER]))
    told = [event.version.model async for event in events if event.reason]
    assert told == [error.details["model"].partition("@")[0]]


async def test_what_gave_its_room_to_a_failed_change_is_wanted_again(rig: Rig) -> None:
    await rig.ready("a", "b", "c")
    worker = await rig.worker("w", models=2)
    await rig.load("a")
    before = await wants(rig)
    worker.refuse["c@1"] = errors.OutOfMemory("no bytes")
    worker.load_s = 0.3
    assert isinstance(await refused(change(rig, "b c", "a", pin=True)), errors.ChangeoverFailed)
    assert await wants(rig) == before
    await becomes(lambda: "a@1" in held(worker))


@pytest.mark.usefixtures("ends_first")
async def test_time_that_runs_out_changes_nothing(rig: Rig) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    before = await wants(rig)
    worker.may_load.clear()
    error = await refused(change(rig, "b", "a", timeout=LONG_S))
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.details["model"] == "b@1"
    assert "Nothing was changed" in error.message
    assert await wants(rig) == before


async def test_a_caller_who_leaves_changes_nothing(rig: Rig) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    await rig.load("a")
    before = await wants(rig)
    worker.load_s = 30.0
    call = change(rig, "b", "a")
    await becomes(lambda: "b@1" in held(worker))
    assert set(await wants(rig)) == {"a@1", "b@1"}
    call.cancel()
    await becomes(
        lambda: set(rig.plane.view.desired.wants) == {want.key for want in before.values()}
    )
    assert await wants(rig) == before


async def test_without_a_worker(rig: Rig) -> None:
    await rig.ready("a")
    error = await refused(change(rig, "a"))
    assert isinstance(error, errors.ChangeoverFailed)
    assert error.details["reason"] == "NO_WORKER"
    assert await wants(rig) == {}


async def test_wrong_references_touch_nothing(rig: Rig) -> None:
    await rig.ready("a")
    await rig.register("raw", b"raw")
    await rig.worker("w")
    revision = (await rig.registry.desired()).revision
    kinds = {
        ("a", "absent"): errors.ModelNotFound,
        ("a absent", ""): errors.ModelNotFound,
        ("a@2", ""): errors.VersionNotFound,
        ("a raw", ""): errors.ModelNotReady,
        ("a A!", ""): errors.InvalidModelReference,
        ("a a@1", ""): errors.InvalidOption,
        ("", ""): errors.InvalidOption,
    }
    for (prepare, release), kind in kinds.items():
        assert type(await refused(change(rig, prepare, release))) is kind
    assert isinstance(await refused(change(rig, "a", replicas=1001)), errors.InvalidOption)
    assert (await rig.registry.desired()).revision == revision


async def test_a_placement_is_set_and_comes_back(rig: Rig) -> None:
    await rig.ready("a", "b")
    worker = await rig.worker("w")
    place = types_pb2.Placement(max_replicas=1)
    await change(rig, "a", placement=place)
    worker.refuse["b@1"] = errors.OutOfMemory("no bytes")
    await refused(change(rig, "b", placement=place))
    versions = (await rig.registry.desired()).versions
    assert {str(k): v.given.placement.max_replicas for k, v in versions.items()} == {
        "a@1": 1,
        "b@1": 0,
    }


@pytest.mark.usefixtures("ends_first")
async def test_two_of_the_same_models_come_after_each_other(rig: Rig) -> None:
    await rig.ready("a", "b", "c")
    worker = await rig.worker("w", models=3)
    worker.may_load.clear()
    first = change(rig, "a b", timeout=60)
    await becomes(lambda: "a@1" in held(worker))
    other = change(rig, "c", timeout=60)  # shares no model with them
    second = change(rig, "b", "a", timeout=60)
    late = await refused(change(rig, "a", timeout=LONG_S))
    worker.may_load.set()
    assert isinstance(late, errors.DeadlineExceeded)
    assert late.details["waited_for"] == "CHANGEOVER"
    await asyncio.gather(first, other, second)
    assert set(await wants(rig)) == {"b@1", "c@1"}


async def test_a_registry_that_goes_away_is_said_and_all_comes_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ready("a", "b")
    await rig.worker("w")
    await rig.load("a")
    before, calls = await wants(rig), []
    change_wants = rig.registry.change_wants

    async def break_the_switch(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) in (2, 3):  # the switch, and the first try to bring back what was
            raise errors.RegistryUnavailable("Redis does not answer")
        return await change_wants(*arguments)

    monkeypatch.setattr(rig.registry, "change_wants", break_the_switch)
    assert isinstance(await refused(change(rig, "b", "a")), errors.RegistryUnavailable)
    assert len(calls) == 4
    assert await wants(rig) == before


async def test_a_stop_in_the_middle_brings_back_what_was(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("a", "b")
        worker = await rig.worker("w")
        await rig.load("a")
        before = await wants(rig)
        worker.load_s = 30.0
        call = change(rig, "b", "a")
        await becomes(lambda: "b@1" in held(worker))
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
    assert await wants(rig) == before
