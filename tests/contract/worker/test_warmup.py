"""Warm-up: kinds of passes run once before requests need them, and never in the way of a swap."""

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.contract.worker.small_device import monitor_of, small_device
from tests.models import Zoo
from worker.backends.base import LoadedModel
from worker.backends.simulated import TimeCurve
from worker.engine.jobs import Turn
from worker.replicas import warmup
from worker.replicas.replica import Replica


async def test_what_has_been_idle_is_warmed_again(zoo: Zoo, tmp_path: Path) -> None:
    passes: list[str] = []
    async with small_device(zoo, tmp_path) as two:
        device_monitor = monitor_of(two, [], rewarm_idle_s=0.01)
        await two.replicas.assign(two.order("a"))
        two.fail = passes.append
        await device_monitor.look()
        await asyncio.sleep(0.02)
        await device_monitor.look()
        assert passes == ["run"]


@pytest.mark.parametrize("begun", [True, False])
async def test_no_weights_go_under_a_pass_whose_caller_was_cancelled(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    order: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def holds(step: str) -> None:
        began.set()
        assert go_on.wait(20)
        order.append(step)

    async with small_device(zoo, tmp_path, max_batch=4) as two:
        await two.replicas.assign(two.order("a"))
        monkeypatch.setattr(Replica, "drop_weights", lambda one: order.append("dropped"))
        two.backend.device_kind = "cpu"
        two.fail = holds if begun else order.append
        if not begun:
            before = asyncio.create_task(two.engine.job(partial(holds, "another")))
            await asyncio.sleep(0)
        warming = asyncio.create_task(two.swapper.warmup.warm_batch())
        await asyncio.to_thread(began.wait, 20)
        warming.cancel()
        await asyncio.wait([warming])
        closing = asyncio.create_task(two.replicas.close())
        await asyncio.sleep(0.05)
        assert order == []
        go_on.set()
        await closing
        if not begun:
            await before
        # Behind all: nothing is run of what has gone.
        await two.engine.job(lambda: None, Turn.IDLE)
        assert order == (["run"] if begun else ["another", "run"]) + ["dropped"]


def passes_of(model: LoadedModel, fail_at: int = 0) -> list[tuple[int, tuple[int, int]]]:
    """Images of each pass from now on and their shape; those of one number fail."""
    passes: list[tuple[int, tuple[int, int]]] = []
    stage = model.stage

    def noted(images: Any, options: Any) -> Any:
        passes.append((len(images), images[0].shape[:2]))
        if len(images) == fail_at:
            raise ValueError(f"{fail_at} images are too many")
        return stage(images, options)

    model.stage = noted  # type: ignore[method-assign]  # listens
    return passes


async def test_batches_are_warmed_up_on_a_cpu_once_each(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = (320, 320)
    monkeypatch.setattr(warmup, "MAX_WARM_UP_S", 1e9)  # this machine may stand still
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        device_monitor = monitor_of(two, [])
        await two.replicas.assign(two.order("a"))
        passes = passes_of(two.engine.models["a@1"], fail_at=3)
        await device_monitor.look()
        assert passes == [], "other devices have their kernels"
        two.backend.device_kind = "cpu"
        for _ in range(5):
            await device_monitor.look()
        assert passes == [(2, square), (3, square), (4, square)]
        # Its architecture has run them.
        await two.replicas.assign(two.order("b"))
        passes = passes_of(two.engine.models["b@1"])
        await device_monitor.look()
        assert passes == []
        # Of what its images come in; of larger ones no memory is promised.
        two.engine.note_pass("b@1", (640, 640), 1, 0.01)
        wide = (192, 320)
        await two.infer("b", shape=wide)
        await two.infer("b", shape=wide)
        await device_monitor.look()
        assert passes == [(1, wide), (1, wide), (2, wide)]
        monkeypatch.setattr(warmup, "MAX_KINDS", 7)
        for _ in range(2):
            await device_monitor.look()
        assert passes[3:] == [(3, wide)], "no more kernels are kept"


async def test_a_batch_that_fails_in_its_warm_up_is_not_tried_with_requests(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmup, "MAX_WARM_UP_S", 1e9)
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        two.backend.device_kind = "cpu"
        await two.replicas.assign(two.order("a"))
        passes = passes_of(two.engine.models["a@1"], fail_at=2)
        await two.swapper.warmup.warm_batch()
        answers = await asyncio.gather(*(two.infer("a") for _ in range(4)))
        assert [answer.batch_size for answer in answers] == [1] * 4
        assert [images for images, _ in passes] == [2, 1, 1, 1, 1]


class Slow(TimeCurve):
    """Each pass takes as long."""

    def pass_s(self, shape: tuple[int, int], images: int, parameters: int) -> float:
        return 0.05


async def test_no_batch_is_warmed_up_that_is_long_or_while_somebody_waits(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        two.backend.device_kind = "cpu"
        two.backend.curve = Slow(load_fixed_s=0.01)
        await two.replicas.assign(two.order("a"))
        passes = passes_of(two.engine.models["a@1"])
        with two.replicas.hold("a@1"):  # an image of it is decoded
            await two.swapper.warmup.warm_batch()
        # Another is loaded, or will be next: it is not waited for.
        async with two.swapper.lock:
            await asyncio.wait_for(two.swapper.warmup.warm_batch(), 20)
            next_one = asyncio.create_task(two.swapper.lock.acquire())
            await asyncio.sleep(0)
        await asyncio.wait_for(two.swapper.warmup.warm_batch(), 20)
        await next_one
        two.swapper.lock.release()
        assert passes == []
        await two.infer("a")
        image_s = two.engine.image_s("a@1", (320, 320))
        monkeypatch.setattr(warmup, "MAX_WARM_UP_S", 2.5 * image_s)
        for _ in range(3):
            await two.swapper.warmup.warm_batch()
        assert [images for images, _ in passes] == [1, 2]
