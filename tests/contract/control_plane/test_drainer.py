"""Attempts that are cut, workers that are drained, models that leave by force; over real gRPC."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.routing.balancer import FLOOR_S
from control_plane.types.version import VersionKey
from tests.contract.control_plane_rig import Rig, ScriptedWorker, refused
from yolopool import errors
from yolopool.v1 import fleet_pb2, model_pb2


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as made:
        yield made


async def two(rig: Rig, inference_ms: float = 5.0) -> tuple[ScriptedWorker, ScriptedWorker]:
    """Two workers that hold `a`, the one that is preferred first."""
    workers = [await rig.worker("w1"), await rig.worker("w2")]
    for one in workers:
        one.inference_ms = inference_ms
    await rig.ready("a")
    await rig.load("a", replicas=2)
    name = (await rig.detect("a")).worker
    workers.sort(key=lambda one: one.name != name)
    return workers[0], workers[1]


def retries(rig: Rig, reason: str) -> float:
    """Retries by reason, as the metrics count them."""
    told = rig.plane._metrics.readings({"yolopool_retries_total"})
    return told.get(("yolopool_retries_total", (("reason", reason),)), 0.0)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0.01)


# --- attempts -------------------------------------------------------------------------------------


async def test_a_worker_that_never_answers_costs_one_retry(rig: Rig) -> None:
    first, second = await two(rig)
    await first.fall_silent()  # as a stopped process: no answer and no heartbeat
    first.infer_s = 60
    answers = await asyncio.gather(*[rig.detect("a", timeout=30) for _ in range(3)])
    assert {answer.worker for answer in answers} == {second.name}
    # The abandoned calls were cancelled at the worker, and counted.
    cut = len(first.inferred) - 1
    await until(lambda: first.cancelled == cut)
    assert retries(rig, "WORKER_SILENT") == cut > 0
    # It is passed over from now on.
    sent = len(first.inferred)
    assert (await rig.detect("a")).worker == second.name
    assert len(first.inferred) == sent
    assert rig.plane.view.outstanding == {}


async def test_a_suspect_that_is_heard_serves_again(rig: Rig) -> None:
    first, second = await two(rig)
    first.infer_s = 60
    assert (await rig.detect("a", timeout=30)).worker == second.name
    first.infer_s = 0.0
    first.poke()
    await until(lambda: not len(rig.plane.view.breaker))
    assert (await rig.detect("a")).worker == first.name


async def test_without_another_there_is_no_cut(rig: Rig) -> None:
    worker = await rig.worker("w1")
    worker.inference_ms = 5.0
    await rig.ready("a")
    await rig.load("a")
    worker.infer_s = 3 * FLOOR_S
    assert (await rig.detect("a")).worker == "w1"
    assert worker.cancelled == 0


async def test_a_worker_that_answers_others_is_slow_and_waited_for(rig: Rig) -> None:
    first, second = await two(rig)
    first.infer_s = 3 * FLOOR_S
    slow = asyncio.create_task(rig.detect("a"))
    await until(lambda: len(first.inferred) == 2)
    first.infer_s = 0.0
    while not slow.done():
        await rig.detect("a")
        await asyncio.sleep(FLOOR_S / 8)
    assert (await slow).worker == first.name
    assert first.cancelled == 0
    assert not second.cancelled


async def test_what_cannot_make_its_deadline_is_asked_elsewhere_or_told(rig: Rig) -> None:
    first, second = await two(rig)
    no_time = errors.DeadlineUnmeetable(
        "would be done in 2 s", details={"estimated_wait_s": "2", "deadline_in_s": "1"}
    )
    first.on_infer = no_time
    assert (await rig.detect("a")).worker == second.name
    assert retries(rig, "DEADLINE_UNMEETABLE") == 1
    assert not len(rig.plane.view.breaker)  # who refuses at once stands not still
    second.on_infer = no_time
    error = await refused(rig.detect("a"))
    assert isinstance(error, errors.DeadlineUnmeetable)
    assert error.details["estimated_wait_s"] == "2"
    await second.die()
    await until(lambda: len(rig.plane.view.replicas(VersionKey("a", 1))) == 1)
    assert isinstance(await refused(rig.detect("a")), errors.DeadlineUnmeetable)


# --- drains ---------------------------------------------------------------------------------------


async def drain(rig: Rig, worker: str, wait: bool = True, timeout: float = 10) -> Any:
    request = fleet_pb2.DrainWorkerRequest(worker=worker, wait=wait)
    return await rig.fleet.DrainWorker(request, timeout=timeout)


async def listed(rig: Rig) -> dict[str, bool]:
    answer = await rig.fleet.ListWorkers(fleet_pb2.ListWorkersRequest(), timeout=5)
    return {worker.id: worker.cordoned for worker in answer.workers}


async def test_a_worker_whose_models_are_elsewhere_leaves_at_once(rig: Rig) -> None:
    first, second = await two(rig)
    assert list((await drain(rig, first.name)).not_moved) == []
    assert await listed(rig) == {second.name: False}
    assert first.drained[0].counter > 0
    assert (await rig.detect("a")).worker == second.name


async def test_its_models_move_before_it_drains_and_requests_go_on(
    rig: Rig,
) -> None:
    first = await rig.worker("w1")
    await rig.ready("a", "b")
    await rig.load("a")
    await rig.load("b", pin=True)
    second = await rig.worker("w2")
    second.load_s = 0.3
    leaving = asyncio.create_task(drain(rig, "w1"))
    while not leaving.done():
        await rig.detect("a")
        await asyncio.sleep(0.02)
    assert list((await leaving).not_moved) == []
    assert sorted(second.assigned) == ["a@1", "b@1"]
    assert len(first.drained) == 1
    assert (await rig.detect("b")).worker == "w2"
    assert sorted(second.assigned) == ["a@1", "b@1"]


async def test_a_model_that_nobody_else_can_take_is_told_and_does_not_hold_the_drain(
    rig: Rig,
) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a")
    (stuck,) = (await drain(rig, "w1")).not_moved
    assert (stuck.model, stuck.version) == ("a", 1)
    assert len(worker.drained) == 1


async def test_a_cordon_is_listed_and_ends_with_the_process(rig: Rig) -> None:
    worker = await rig.worker("w1")
    worker.drained = []
    await rig.ready("a")
    await rig.load("a")
    await drain(rig, "w1", wait=False)
    await until(lambda: worker.drained)
    await until(lambda: "w1" not in rig.plane.view.workers)
    await rig.worker("w1")
    assert await listed(rig) == {"w1": False}
    assert (await rig.detect("a")).worker == "w1"


async def test_an_unknown_worker_is_said(rig: Rig) -> None:
    assert isinstance(await refused(drain(rig, "nobody")), errors.WorkerNotFound)


# --- by force -------------------------------------------------------------------------------------


async def test_an_unload_by_force_refuses_open_requests_and_loads_nothing_anew(rig: Rig) -> None:
    worker = await rig.worker("w1")
    await rig.ready("a")
    await rig.load("a")
    worker.infer_s = 0.5
    call = asyncio.create_task(refused(rig.detect("a")))
    await until(lambda: worker.inferred)
    request = model_pb2.UnloadModelRequest(model="a", wait=True, force=True)
    await rig.models.UnloadModel(request, timeout=10)
    assert worker.forced == ["a@1"]
    assert isinstance(await call, errors.NotAssigned)
    assert worker.assigned == ["a@1"]
    worker.infer_s = 0.0
    await rig.detect("a")
    assert worker.assigned == ["a@1", "a@1"]
    await asyncio.sleep(1.2)  # the force is over with the version that it was for
    assert worker.forced == ["a@1"]
