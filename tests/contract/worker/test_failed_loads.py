"""A load that fails, in whatever step: all who wait hear why at once, also those whose image was
still decoded, nothing is left on the device, and the next load is a new try.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.worker.small_device import SmallDevice, small_device
from tests.models import Zoo
from worker.backends.simulated import SimulatedModel
from worker.batching.admission import AdmissionRequest
from worker.batching.config import BatchingConfig
from worker.concurrency.reply import Reply
from worker.engine.request import Request
from worker.engine.runner import Outcome
from worker.postprocess.outputs import NmsOptions
from yolopool.errors import InferenceFailed, LoadFailed, OutOfMemory

BATCHING = BatchingConfig(1)


def reserve(here: SmallDevice, key: str) -> Callable[[], Awaitable[Outcome]]:
    """A request whose image is being decoded; what is returned queues it, and waits."""
    now = time.monotonic()
    place = here.engine.reserve(AdmissionRequest(key, 1, now + 60, now, BATCHING))
    request = Request(
        key, NmsOptions((0.25,) * 3, 0.7, 300, agnostic=False), 1, now + 60, BATCHING, place
    )

    async def decoded() -> Outcome:
        reply = Reply[Outcome]()
        here.engine.put(request, np.zeros((320, 320, 3), np.uint8), reply)
        return await asyncio.wait_for(reply.future, 20)

    return decoded


def failing(step: str, error: Exception, here: SmallDevice, monkeypatch: Any) -> None:
    """Lets each load fail in a step from now on."""

    def fail(now: str) -> None:
        if now == step:
            raise error

    def raises(*_: Any) -> Any:
        raise error

    here.fail = fail
    if step == "read":
        monkeypatch.setattr(here.swapper.reader, "load_weights", raises)
    if step == "measure":
        monkeypatch.setattr(SimulatedModel, "workspace_bytes", raises)
    if step in ("run", "close"):
        here.swapper.warmup._warm_s.clear()  # so that there is a warm-up pass to fail
    if step == "close":  # of the model whose warm-up failed

        def fails_then_closes_badly(now: str) -> None:
            if now == "run":
                monkeypatch.setattr(SimulatedModel, "close", raises)
                raise error

        here.fail = fails_then_closes_badly


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("step", ["read", "load", "run", "measure", "close"])
@pytest.mark.parametrize(
    "error", [InferenceFailed("scores are not within 0..1"), OutOfMemory("none")]
)
async def test_who_comes_while_a_load_fails_hears_why_at_once(
    step: str,
    error: Exception,
    beside: bool,
    zoo: Zoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one:
        one.backend.beside = beside
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))
        assert one.states() == {"a": "WARM", "b": "HOT"}
        failing(step, error, one, monkeypatch)
        with one.replicas.ticket("a@1"):
            decoded = reserve(one, "a@1")
            answers = await asyncio.gather(
                *(one.infer("a") for _ in range(3)), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [type(error)] * 3
            with pytest.raises(type(error)):
                await decoded()
        await one.swapper.side_load.until_done("a@1")
        async with one.swapper.lock:
            monkeypatch.undo()
        assert not one.ledger.reserved
        assert not one.ledger.holds("a@1")
        if step == "close":
            return  # it left its bytes on the device
        one.fail = lambda now: None
        one.assert_exact()
        with one.replicas.hold("b@1"):  # it goes on
            assert (await one.infer("b")).batch_size == 1
        await one.replicas.assign(one.order("a"))  # whoever asks again gets another try
        assert (await one.infer("a")).batch_size == 1
        one.assert_exact()


async def test_who_comes_to_a_load_whose_pack_is_gone_hears_why(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(location: Any) -> Any:
        raise LoadFailed("the pack is gone")

    async with small_device(zoo, tmp_path, room_for=1) as one:
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))
        with one.replicas.ticket("a@1") as replica:
            decoded = reserve(one, "a@1")
            one.swapper.fail(replica, LoadFailed("a first one"))
            monkeypatch.setattr(one.replicas, "_prepare", none)
            with pytest.raises(LoadFailed, match="gone"):
                await one.replicas.assign(one.order("a"))
            with pytest.raises(LoadFailed, match="gone"):
                await decoded()


async def test_a_version_that_leaves_while_its_load_fails_can_still_leave(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one:
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))

        def fail(step: str) -> None:
            raise LoadFailed("injected")

        one.fail = fail
        waiting = asyncio.create_task(one.infer("a"))
        await asyncio.sleep(0)
        await one.replicas.release("a@1")
        with pytest.raises(LoadFailed):
            await waiting
        assert one.states() == {"b": "WARM"}
        one.assert_exact()
