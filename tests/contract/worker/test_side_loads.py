"""A load that runs beside passes: requests and other swaps go on meanwhile, one such load at a
time, and what is loading neither leaves nor is forgotten.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.worker.small_device import SmallDevice, small_device
from tests.models import Zoo
from worker.backends.simulated import SimulatedModel
from worker.hardware import host
from worker.replicas import side_load
from yolopool.errors import LoadFailed, NotAssigned, OutOfMemory

# The steps of a load that run beside passes: its weights, and its first pass.
STEPS = ("load", "run")


class Held:
    """A step of loads beside passes begins and then waits until it may go on."""

    def __init__(self, here: SmallDevice, step: str = "load") -> None:
        self.began, self.go_on = threading.Event(), threading.Event()
        self.step = step
        self.loads = 0
        self.error: Exception | None = None
        here.backend.beside = True
        here.fail = self._step

    def _step(self, step: str) -> None:
        if step != self.step or threading.current_thread().name != "load":
            return
        self.loads += 1
        self.began.set()
        assert self.go_on.wait(20)
        if self.error is not None:
            raise self.error

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 20)


@asynccontextmanager
async def holding(here: SmallDevice, step: str = "load") -> AsyncIterator[Held]:
    held = Held(here, step)
    try:
        yield held
    finally:
        held.go_on.set()


@pytest.mark.parametrize("step", STEPS)
async def test_requests_and_other_swaps_go_on_meanwhile(
    step: str, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=3) as three:
        await three.replicas.assign(three.order("a"))
        async with holding(three, step) as held:
            loading = asyncio.create_task(three.replicas.assign(three.order("b")))
            await held.until_begun()
            activity = three.swapper.side_load.activity()
            assert activity is not None
            assert activity.what == "the load of b@1"
            assert (await three.infer("a")).batch_size == 1
            waits = asyncio.create_task(three.infer("b"))
            three.backend.beside = False
            await three.replicas.assign(three.order("c"))
            assert three.states() == {"a": "HOT", "b": "WARM", "c": "HOT"}
            assert three.ledger.reserved.keys() == {"b@1"}
            held.go_on.set()
            await loading
            assert (await waits).batch_size == 1
            assert three.swapper.side_load.activity() is None
            three.assert_exact()


async def test_requests_are_answered_between_the_steps_of_a_load(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path) as two:
        await two.replicas.assign(two.order("a"))
        happened: list[str] = []
        begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

        def step(name: str) -> None:
            if threading.current_thread().name == "load":
                happened.append(f"{name} begins")
                begun.release()
                assert go_on.acquire(timeout=20)
                happened.append(f"{name} ends")

        two.fail, two.backend.beside = step, True
        loading = asyncio.create_task(two.replicas.assign(two.order("b")))
        for _ in STEPS:
            assert await asyncio.to_thread(begun.acquire, timeout=20)
            await two.infer("a")
            happened.append("answered")
            go_on.release()
        await loading
        assert happened == [
            *("load begins", "answered", "load ends"),
            *("run begins", "answered", "run ends"),
        ]
        two.assert_exact()


async def test_what_the_first_pass_leaves_in_use_is_of_the_model(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path, room_for=3) as three:

        def keep(step: str) -> None:
            if step == "run" and threading.current_thread().name == "load":
                three.backend.allocate(1000)

        three.fail, three.backend.beside = keep, True
        replica = await three.replicas.assign(three.order("a"))
        assert replica.claim.weights_bytes == three.weights_bytes + 1000
        three.assert_exact()
        await three.replicas.release("a@1")
        three.assert_exact()


async def test_a_self_test_that_fails_beside_fails_the_load_and_leaves_nothing(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[str] = []
    wrong = "rows differ"

    def self_test(model: SimulatedModel) -> str:
        tested.append(threading.current_thread().name)
        return wrong

    monkeypatch.setattr(SimulatedModel, "self_test", self_test)
    async with small_device(zoo, tmp_path) as two:
        two.backend.beside = True
        with pytest.raises(LoadFailed, match="rows differ"):
            await two.replicas.assign(two.order("a"))
        assert two.states() == {"a": "FAILED"}
        two.assert_exact()
        wrong = ""
        assert (await two.replicas.assign(two.order("a"))).state == "HOT"
        await two.replicas.assign(two.order("b"))  # of the same pack, which has answered
        assert tested == ["load", "load"]
        two.assert_exact()


@pytest.mark.parametrize("comes", [True, False])
async def test_bytes_that_others_take_or_give_back_meanwhile_are_not_its_own(
    comes: bool, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=3) as three:
        await three.replicas.assign(three.order("a"))
        async with holding(three) as held:
            loading = asyncio.create_task(three.replicas.assign(three.order("b")))
            await held.until_begun()
            three.backend.beside = False
            if comes:
                await three.replicas.assign(three.order("c"))
            else:
                await three.replicas.release("a@1")
            held.go_on.set()
            replica = await loading
            assert replica.claim.weights_bytes == three.weights_bytes
            three.assert_exact()


async def test_one_at_a_time_and_what_is_loading_does_not_leave(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one, holding(one) as held:
        tasks = [asyncio.create_task(one.replicas.assign(one.order("a")))]
        await held.until_begun()
        tasks.append(asyncio.create_task(one.replicas.assign(one.order("b"))))
        one.backend.beside = False  # nor may one of another kind take its place
        tasks.append(asyncio.create_task(one.replicas.assign(one.order("c"))))
        await asyncio.sleep(0.1)
        assert one.states() == {"a": "WARM", "b": "WARM", "c": "WARM"}
        one.backend.beside = True
        one.swapper.wake()
        await asyncio.sleep(0.05)
        assert (held.loads, set(one.ledger.reserved)) == (1, {"a@1"})
        held.go_on.set()
        await asyncio.gather(*tasks)
        assert [replica.swaps_total for replica in one.replicas.held()] == [1, 1, 1]
        one.assert_exact()


@pytest.mark.parametrize("held_step", STEPS)
@pytest.mark.parametrize("times", [1, 2])
async def test_memory_that_runs_out_is_tried_once_more(
    times: int, held_step: str, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        two.backend.beside = True
        left = times

        def fail(step: str) -> None:
            nonlocal left
            if step == held_step and left:
                left -= 1
                raise OutOfMemory("injected")

        two.fail = fail
        if times == 1:
            assert (await two.replicas.assign(two.order("a"))).state == "HOT"
        else:
            with pytest.raises(OutOfMemory):
                await two.replicas.assign(two.order("a"))
        two.assert_exact()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("force", [False, True])
async def test_a_release_waits_for_a_load_which_can_not_be_stopped(
    force: bool, step: str, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two, holding(two, step) as held:
        loading = asyncio.create_task(two.replicas.assign(two.order("a")))
        await held.until_begun()
        released = asyncio.create_task(two.replicas.release("a@1", force))
        with pytest.raises(NotAssigned):
            await loading
        await asyncio.sleep(0.02)
        assert not released.done()
        assert two.ledger.reserved.keys() == {"a@1"}
        held.go_on.set()
        await released
        assert two.states() == {}
        two.assert_exact()


@pytest.mark.parametrize("step", STEPS)
async def test_a_worker_ends_though_a_load_does_not(step: str, zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path) as two:
        held = Held(two, step)
        loading = asyncio.create_task(two.replicas.assign(two.order("a")))
        await held.until_begun()
    loading.cancel()
    held.go_on.set()


async def test_a_load_is_left_though_the_device_thread_hangs(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_load, "LEAVE_S", 0.05)
    async with small_device(zoo, tmp_path) as two, holding(two) as held:
        loading = asyncio.create_task(two.replicas.assign(two.order("a")))
        await held.until_begun()
        hangs, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            hangs.set()
            assert go_on.wait(20)

        hanging = asyncio.create_task(two.engine.job(hang))
        assert await asyncio.to_thread(hangs.wait, 20)
        await two.swapper.side_load.cancel()
        assert not hanging.done()
        assert two.ledger.reserved.keys() == {"a@1"}, "what still loads is not given away"
        go_on.set()
        await hanging
        loading.cancel()


LEFT = """
import sys, threading
import onnxruntime
from worker.__main__ import leave
graph, began = open(sys.argv[1], "rb").read(), threading.Event()
def load():
    while True:
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        began.set()
threading.Thread(target=load, name="load", daemon=True).start()
began.wait()
sys.exit(leave(0))
"""


def test_a_load_that_is_left_does_not_abort_a_worker_that_ends(zoo: Zoo) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT, str(zoo.graph("shapes"))], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def priority() -> tuple[int, int]:
    """The scheduling class and the niceness of this thread."""
    thread = threading.get_native_id()
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, thread)


@pytest.mark.parametrize("leave", [True, False])
def test_a_thread_that_yields_to_passes_leaves_others_as_they_were(
    leave: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "others_leave_time", lambda: leave)
    seen: list[tuple[int, int]] = []

    def beside() -> None:
        host.yield_to_passes()
        seen.append(priority())

    kind, nice = before = priority()
    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    lower = (os.SCHED_IDLE, nice) if leave else (kind, min(19, nice + host.BESIDE_NICE))
    assert seen == [lower]
    assert priority() == before != lower
