"""What the fleet says of itself over real gRPC: events as they happen, plans, explanations."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.app import ControlPlane
from control_plane.events import observer
from control_plane.events.recorder import MAX_UNWRITTEN, EventRecorder
from control_plane.store.memory_registry import MemoryRegistry
from control_plane.types.event import EventKind
from tests.contract.control_plane_rig import Rig, refused
from tests.waiting import becomes
from yolopool import errors
from yolopool.server.clock import Clock
from yolopool.v1 import (
    events_pb2,
    explain_pb2,
    fleet_pb2,
    importing_pb2,
    model_pb2,
    types_pb2,
)

STEP = explain_pb2.PlannedStep


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as one:
        yield one


def word(event: events_pb2.Event) -> str:
    return events_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_")


def told(event: events_pb2.Event) -> str:
    """KIND worker version, of what is there."""
    version = f"{event.version.model}@{event.version.version}" if event.version.model else ""
    return " ".join(filter(None, (word(event), event.worker, version)))


async def events(rig: Rig, **asked: Any) -> list[events_pb2.Event]:
    request = events_pb2.WatchEventsRequest(**asked)
    return [event async for event in rig.events.WatchEvents(request, timeout=10)]


class Follower:
    """Follows in the background; `seen` grows."""

    def __init__(self, rig: Rig, **asked: Any) -> None:
        self.seen: list[events_pb2.Event] = []
        request = events_pb2.WatchEventsRequest(follow=True, **asked)
        self.call = rig.events.WatchEvents(request)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for event in self.call:
            self.seen.append(event)

    async def sees(self, line: str) -> events_pb2.Event:
        await becomes(lambda: any(told(event) == line for event in self.seen))
        return next(event for event in self.seen if told(event) == line)


# --- events ----------------------------------------------------------------------------------


async def test_a_life_of_a_fleet_is_told_in_order(rig: Rig) -> None:
    follower = Follower(rig)
    takeover = await follower.sees("TAKEOVER")
    assert takeover.control_plane
    one = await rig.worker("w1", models=1)
    await follower.sees("WORKER_JOINED w1")
    await rig.ready("a", "b")
    assert "by anonymous" in (await follower.sees("REGISTERED a@1")).message
    await rig.load("a")
    assert "it took" in (await follower.sees("ASSIGNED w1 a@1")).message
    await rig.detect("a")
    await rig.detect("b")
    released = await follower.sees("RELEASED w1 a@1")
    assert released.reason == "ROOM"
    assert "b@1" in released.message
    await follower.sees("ASSIGNED w1 b@1")
    await rig.models.DeleteModel(model_pb2.DeleteModelRequest(model="b"), timeout=5)
    await follower.sees("DELETED b@1")
    await one.die()
    lost = await follower.sees("WORKER_LOST w1")
    assert "lease" in lost.message
    ids = [tuple(map(int, event.id.split("-"))) for event in follower.seen]
    assert ids == sorted(set(ids))
    assert follower.seen == await events(rig)
    follower.call.cancel()
    await asyncio.gather(follower.task, return_exceptions=True)


async def test_events_are_chosen_by_kind_model_worker_and_age(rig: Rig) -> None:
    follower = Follower(rig)
    for name in ("w1", "w2"):
        await rig.worker(name)
        await follower.sees(f"WORKER_JOINED {name}")
    await rig.ready("a", "b")
    await rig.load("a", replicas=2)
    await follower.sees("ASSIGNED w2 a@1")
    await follower.sees("ASSIGNED w1 a@1")
    kinds = [events_pb2.EVENT_KIND_REGISTERED, events_pb2.EVENT_KIND_WORKER_JOINED]
    chosen = [told(event) for event in await events(rig, kinds=kinds)]
    assert chosen == [
        "WORKER_JOINED w1", "WORKER_JOINED w2", "REGISTERED a@1", "REGISTERED b@1"
    ]  # fmt: skip
    newest = await events(rig, kinds=kinds, last=1)
    assert [told(event) for event in newest] == ["REGISTERED b@1"]
    assert {event.version.model for event in await events(rig, model="a")} == {"a"}
    assert await events(rig, model="a@2") == []
    assert {event.worker for event in await events(rig, worker="w2")} == {"w2"}
    everything = await events(rig)
    assert await events(rig, after=everything[2].id) == everything[3:]
    assert await events(rig, last=2) == everything[-2:]
    only = Follower(rig, worker="w3", last=1)
    await rig.worker("w3")
    await only.sees("WORKER_JOINED w3")
    assert len(only.seen) == 1
    for one in (follower, only):
        one.call.cancel()
        await asyncio.gather(one.task, return_exceptions=True)


async def test_what_can_not_be_asked_for_is_said(rig: Rig) -> None:
    wrong: list[dict[str, Any]] = [{"after": "yesterday"}, {"kinds": [99]}]
    for asked in wrong:
        assert isinstance(await refused(events(rig, **asked)), errors.InvalidOption)
    assert isinstance(await refused(events(rig, model="a:stable")), errors.ModelNotFound)


async def test_a_version_that_fails_everywhere_is_told_once(rig: Rig) -> None:
    worker = await rig.worker("w1")
    worker.on_assign = errors.LoadFailed("no such layer")
    await rig.ready("a")
    follower = Follower(rig)
    await refused(rig.load("a"))
    failed = await follower.sees("LOAD_FAILED w1 a@1")
    assert (failed.reason, "no such layer" in failed.message) == ("LOAD_FAILED", True)
    await follower.sees("VERSION_FAILED a@1")
    await becomes(lambda: sum(told(e) == "LOAD_FAILED w1 a@1" for e in follower.seen) >= 2)
    worker.on_assign = None
    await follower.sees("ASSIGNED w1 a@1")
    assert [told(event) for event in follower.seen].count("VERSION_FAILED a@1") == 1
    follower.call.cancel()
    await asyncio.gather(follower.task, return_exceptions=True)


async def test_followers_end_cleanly_when_the_server_stops(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        follower = Follower(rig)
        await follower.sees("TAKEOVER")
        await rig.plane.stop()
        await follower.task  # no error
        rig.plane = ControlPlane(rig.settings, rig.registry)
        await rig.plane.start()
        rig._stack.push_async_callback(rig.plane.stop)


async def test_a_store_that_goes_away_ends_the_stream(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(rig)
    await follower.sees("TAKEOVER")

    async def away(*_: Any) -> Any:
        raise errors.RegistryUnavailable("Redis does not answer: check the server")

    monkeypatch.setattr(rig.registry, "next_events", away)
    error = await refused(follower.task)
    assert isinstance(error, errors.RegistryUnavailable)


async def test_of_two_control_planes_one_reports_and_the_next_what_was_missed(
    tmp_path: Path,
) -> None:
    registry = MemoryRegistry()
    async with Rig(tmp_path / "a", registry, reconciler_lease_s=0.6) as first:
        one = await first.worker("w1")
        follower = Follower(first)
        await follower.sees("WORKER_JOINED w1")
        await becomes(lambda: registry._workers)
        settings = first.settings.model_copy(update={"data_dir": tmp_path / "b"})
        second = ControlPlane(settings, registry)
        await second.start()
        try:
            # The host of the leader goes down, and a worker with it.
            first.plane._election._token = None
            assert first.plane._deciding is not None
            first.plane._deciding.cancel()
            for task in first.plane._tasks:
                if task.get_name() == "chronicler":
                    task.cancel()
            await one.die()
            await follower.sees("WORKER_LOST w1")
            lines = [told(event) for event in follower.seen]
            assert lines.count("WORKER_JOINED w1") == lines.count("WORKER_LOST w1") == 1
            assert lines.count("TAKEOVER") == 2
            assert await registry.workers() == ()
        finally:
            follower.call.cancel()
            await asyncio.gather(follower.task, return_exceptions=True)
            await second.stop()


class Away(MemoryRegistry):
    """A store that answers only when it is told to."""

    is_away = True

    async def append_event(self, event: Any) -> str:
        if self.is_away:
            raise errors.RegistryUnavailable("away")
        return await super().append_event(event)


async def test_notes_wait_for_the_store_and_the_newest_are_kept() -> None:
    registry = Away()
    recorder = EventRecorder("c1", registry, Clock(lambda: 0.0, lambda: 1.0), retry_s=0.01)
    running = asyncio.create_task(recorder.run())
    for number in range(MAX_UNWRITTEN + 5):
        recorder.record(EventKind.ASSIGNED, message=str(number))
    await asyncio.sleep(0.03)
    assert await registry.events() == ()
    recorder.record(EventKind.RELEASED)
    registry.is_away = False
    await becomes(lambda: len(registry._events.read("", 0)) == MAX_UNWRITTEN)
    kept = await registry.events()
    assert (kept[0].message, kept[-1].kind) == ("6", EventKind.RELEASED)
    assert {event.control_plane for event in kept} == {"c1"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# --- explanations -----------------------------------------------------------------------------


async def planned(rig: Rig, model: str, **more: Any) -> list[Any]:
    request = explain_pb2.PlanLoadRequest(model=model, **more)
    return list((await rig.explain.PlanLoad(request, timeout=5)).steps)


async def test_a_plan_says_what_a_load_would_do_and_does_nothing(rig: Rig) -> None:
    worker = await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    (step,) = await planned(rig, "a")
    assert (step.action, step.worker, step.version.model) == (STEP.ASSIGN, "w1", "a")
    assert step.line == f"assign a@1 to w1: {step.why}"
    await rig.load("a", pin=True)
    assert await planned(rig, "a", pin=True) == []
    (step,) = await planned(rig, "b")
    assert (step.action, step.reason, step.worker) == (STEP.WAIT, "LEDGER_FULL", "")
    await rig.models.SetResidency(
        model_pb2.SetResidencyRequest(model="a", residency=types_pb2.Residency()), timeout=5
    )
    await becomes(lambda: not worker.replicas["a@1"].pinned)
    await rig.detect("a")
    steps = await planned(rig, "b")
    assert [(s.action, s.version.model) for s in steps] == [(STEP.RELEASE, "a"), (STEP.ASSIGN, "b")]
    assert worker.assigned.count("b@1") == 0
    assert "a@1" in worker.replicas
    assert isinstance(await refused(planned(rig, "c")), errors.ModelNotFound)
    assert isinstance(await refused(planned(rig, "a", replicas=1001)), errors.InvalidOption)


async def explained(rig: Rig, model: str) -> Any:
    request = explain_pb2.ExplainModelRequest(model=model)
    return await rig.explain.ExplainModel(request, timeout=5)


async def test_a_model_is_explained_worker_by_worker(rig: Rig) -> None:
    await rig.worker("w1", models=1)
    await rig.ready("a", "b")
    await rig.load("a", pin=True)
    await rig.worker("w2", models=1)
    answer = await explained(rig, "a")
    assert (answer.version.model, answer.waiting_reason) == ("a", "")
    assert "1 replica is wanted, pinned on the device, asked for by name" in answer.wants[0]
    here, there = answer.workers
    assert (here.worker, here.state, here.feasible) == ("w1", types_pb2.REPLICA_STATE_HOT, True)
    assert (there.worker, there.state) == ("w2", types_pb2.REPLICA_STATE_UNSPECIFIED)
    assert (there.feasible, there.free_bytes, there.weights_bytes) == (True, 100, 100)
    first, second = (await explained(rig, "b")).workers
    assert (first.feasible, first.reason) == (False, "LEDGER_FULL")
    assert "pinned models leave no room" in first.why
    assert second.feasible
    assert isinstance(await refused(explained(rig, "c")), errors.ModelNotFound)
    assert isinstance(await refused(explained(rig, "a@7")), errors.VersionNotFound)


async def test_demand_is_summed_over_replicas(rig: Rig) -> None:
    workers = [await rig.worker("w1"), await rig.worker("w2")]
    await rig.ready("a")
    await rig.load("a", replicas=2)
    for worker in workers:
        worker.replicas["a@1"].rates.CopyFrom(types_pb2.Rates(fast=2, middle=2, slow=2))
        worker.poke()
    view = rig.plane.view
    await becomes(
        lambda: all(r.rates.slow for w in view.workers.values() for r in w.replicas.values())
    )
    answer = await explained(rig, "a")
    assert (answer.rates.slow, answer.rate) == (4, 4)
    assert answer.value_per_gib > 0


async def test_a_request_is_found_by_its_id(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")

    async def traced(request_id: str) -> list[Any]:
        request = explain_pb2.ExplainRequestRequest(request_id=request_id)
        return list((await rig.explain.ExplainRequest(request, timeout=5)).requests)

    await rig.detect("a", request_id="r1")
    await rig.detect("a", request_id="r1")
    newest, oldest = await traced("r1")
    assert (newest.hit, oldest.hit) == (True, False)
    assert (newest.outcome, newest.worker, newest.model) == ("OK", "w1", "a")
    assert (newest.version.version, newest.inference_ms, newest.batch_size) == (1, 2, 1)
    assert oldest.load_wait_ms > 0
    assert oldest.unix_s > 1e9
    await refused(rig.detect("a", request_id="r2", encoded=b""))
    (atdoor,) = await traced("r2")
    assert (atdoor.outcome, atdoor.worker) == ("IMAGE_EMPTY", "")
    worker.on_infer = errors.InferenceFailed("a kernel said no")
    await refused(rig.detect("a", request_id="r3"))
    (failed,) = await traced("r3")
    assert (failed.outcome, failed.message) == ("INFERENCE_FAILED", "a kernel said no")
    assert isinstance(await refused(traced("r4")), errors.RequestNotFound)


async def test_a_failed_import_is_the_reason_everywhere(rig: Rig) -> None:
    await rig.worker("w1")
    await rig.register("bad")
    await rig.import_next(importing_pb2.ImportFailure(reason="ARTIFACT_UNSAFE", message="code"))
    (verdict,) = (await explained(rig, "bad")).workers
    assert (verdict.feasible, verdict.reason) == (False, "MODEL_IMPORT_FAILED")
    assert "ARTIFACT_UNSAFE" in verdict.why


async def test_changes_cordons_and_differences_are_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "DISCREPANCY_LASTS_S", 0.0)
    follower, one = Follower(rig), await rig.worker("w1")
    await rig.ready("a", "b")
    await rig.load("b")
    change = model_pb2.ChangeoverRequest(
        prepare=[model_pb2.LoadModelRequest(model="a")], release=["b"]
    )
    await rig.models.Changeover(change, timeout=10)
    said = await follower.sees("CHANGEOVER a@1")
    assert said.message == "loaded a@1; released b@1"
    await follower.sees("CHANGEOVER b@1")
    one.terms["foreign_bytes"] = one.budget
    one.poke()
    assert "other processes use" in (await follower.sees("DIFFERENCE w1")).message
    await rig.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(worker="w1"), timeout=5)
    assert "drain" in (await follower.sees("WORKER_CORDONED w1")).message
    follower.call.cancel()
