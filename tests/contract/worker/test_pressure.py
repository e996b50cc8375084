"""A worker short of memory or cut off: batches are split, idle models make room, a version whose
store began anew is loaded again, and a control plane that went silent is joined again.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.contract.worker.small_device import monitor_of, small_device
from tests.models import Zoo
from worker.app import App
from worker.backends.base import BatchResult
from worker.backends.simulated import CONTEXT_BYTES, SimulatedBackend
from worker.batching.config import BatchingConfig
from worker.engine.engine import Engine
from worker.engine.jobs import PATIENCE, Turn
from worker.engine.request import Request
from worker.membership import Membership
from worker.postprocess.outputs import Candidates, NmsOptions
from worker.settings import read_settings
from yolopool.errors import InferenceFailed, LedgerFull, OutOfMemory, QueueFull
from yolopool.server.grpc_server import GrpcServer
from yolopool.v1 import fleet_pb2, membership_pb2, membership_pb2_grpc, types_pb2, worker_pb2

IMAGE = np.zeros((32, 32, 3), np.uint8)
OPTIONS = NmsOptions((0.25,), 0.7, 300, agnostic=False)
NOTHING = Candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


class Narrow:
    """A model whose device holds `most` images; the first pass waits until it may go on."""

    weights_bytes = 1
    private_bytes = 0
    uses_host_memory = False

    def __init__(self, most: int, answer: Callable[[int], int] = lambda images: images) -> None:
        self.most = most
        self.answer = answer
        self.began, self.go_on = threading.Event(), threading.Event()
        self.passes: list[int] = []

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        return 0

    def stage(self, images: Any, options: Any) -> "NarrowPass":
        return NarrowPass(self, len(images))

    def self_test(self) -> str:
        return ""

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass
class NarrowPass:
    """One pass of it, in its stages."""

    model: Narrow
    images: int

    def forward(self) -> "NarrowPass":
        self.model.began.set()
        assert self.model.go_on.wait(20)
        self.model.passes.append(self.images)
        if self.images > self.model.most:
            raise OutOfMemory(f"{self.images} images do not fit")
        return self

    def finish(self) -> BatchResult:
        return BatchResult((NOTHING,) * self.model.answer(self.images), 0.0, 0.0, 0.0)


@asynccontextmanager
async def engine_with(model: Narrow, capacity: int = 64) -> AsyncIterator[Engine]:
    engine = Engine(capacity, time.monotonic)
    engine.models["m@1"] = model
    engine.start()
    try:
        yield engine
    finally:
        model.go_on.set()
        await engine.stop(5)


def request(version: str = "m@1") -> Request:
    return Request(version, OPTIONS, priority=1, deadline=1e12, batching=BatchingConfig(8))


async def queued_behind_one(engine: Engine, model: Narrow, count: int) -> list[Any]:
    """Tasks of `count` images that wait together while a first one runs, and that one's."""
    tasks = [asyncio.create_task(engine.submit(request(), IMAGE))]
    await asyncio.to_thread(model.began.wait, 20)
    tasks += [asyncio.create_task(engine.submit(request(), IMAGE)) for _ in range(count)]
    await asyncio.sleep(0)
    assert engine.load().outstanding == count + 1
    return tasks


async def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    model = Narrow(most=2)
    async with engine_with(model) as engine:
        tasks = await queued_behind_one(engine, model, 8)
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks)
        load = engine.load()
    assert model.passes == [1, 8, 4, 2, 2, 4, 2, 2]
    assert (load.passes_total, load.images_total) == (5, 9)  # that fitted
    assert [outcome.batch_size for outcome in outcomes] == [1] + [2] * 8


async def test_a_size_that_did_not_fit_is_not_tried_again() -> None:
    model = Narrow(most=2)
    async with engine_with(model) as engine:
        tasks = await queued_behind_one(engine, model, 8)
        model.go_on.set()
        await asyncio.gather(*tasks)
        model.passes.clear()
        model.began.clear()
        model.go_on.clear()
        tasks = await queued_behind_one(engine, model, 6)
        model.go_on.set()
        await asyncio.gather(*tasks)
    assert model.passes == [1, 2, 2, 2]


async def test_what_waits_keeps_to_a_limit_that_came_later() -> None:
    model = Narrow(most=8)
    async with engine_with(model) as engine:
        tasks = await queued_behind_one(engine, model, 8)
        engine.limit("m@1", 2)
        model.go_on.set()
        await asyncio.gather(*tasks)
    assert model.passes == [1, 2, 2, 2, 2]


async def test_idle_jobs_go_behind_batches_but_not_for_ever() -> None:
    order: list[str] = []

    def note(images: int) -> int:
        order.append("batch")
        return images

    model = Narrow(most=1, answer=note)
    async with engine_with(model) as engine:
        one = replace(request(), batching=BatchingConfig(1))
        tasks = [asyncio.create_task(engine.submit(one, IMAGE)) for _ in range(PATIENCE + 5)]
        await asyncio.to_thread(model.began.wait, 20)
        idle = asyncio.create_task(engine.job(lambda: order.append("idle"), Turn.IDLE))
        urgent = asyncio.create_task(engine.job(lambda: order.append("urgent")))
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(*tasks, idle, urgent)
    # The one under way, what is urgent, as many as may go before, and then it.
    assert order[:2] == ["batch", "urgent"]
    assert order.index("idle") == 2 + PATIENCE
    assert order[-1] == "batch"


async def test_an_image_that_fits_not_even_alone_is_told_so() -> None:
    model = Narrow(most=0)
    async with engine_with(model) as engine:
        tasks = await queued_behind_one(engine, model, 3)
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, OutOfMemory) for outcome in outcomes)


async def test_answers_that_are_not_one_an_image_are_given_to_nobody() -> None:
    model = Narrow(most=8, answer=lambda images: images - 1)
    async with engine_with(model) as engine:
        model.go_on.set()
        with pytest.raises(InferenceFailed, match="0 answers to 1 images"):
            await engine.submit(request(), IMAGE)


async def test_a_cancelled_call_frees_its_place() -> None:
    model = Narrow(most=8)
    async with engine_with(model, capacity=2) as engine:
        tasks = await queued_behind_one(engine, model, 2)
        with pytest.raises(QueueFull):
            await engine.submit(request(), IMAGE)
        gone = tasks.pop()
        gone.cancel()
        await asyncio.wait([gone])
        tasks.append(asyncio.create_task(engine.submit(request(), IMAGE)))
        await asyncio.sleep(0)
        model.go_on.set()
        await asyncio.gather(*tasks)
    assert sorted(model.passes) == [1, 2]


# --- More models than fit -------------------------------------------------------------------------


async def test_the_idle_model_of_least_worth_makes_room_and_comes_back(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        held = two.replicas
        for name in "ab":
            await held.assign(two.order(name))
        await two.infer("a")
        await held.assign(two.order("c"))  # b was never used
        assert two.states() == {"a": "HOT", "b": "WARM", "c": "HOT"}
        await asyncio.gather(*(two.infer("b") for _ in range(20)))
        assert two.hot() == {"a", "b"}
        two.assert_exact()
        assert [replica.swaps_total for replica in held.held()] == [1, 2, 1]
        for name in "abc":
            await held.release(f"{name}@1")
        assert two.ledger.used_bytes == CONTEXT_BYTES == two.backend.memory().used_bytes


async def test_more_models_than_fit_are_served_in_turns(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path, room_for=2) as two:
        names = "abcdef"
        for name in names:
            await two.replicas.assign(two.order(name))
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(two.infer(names[number % 6]))
        # Turns: not one swap a request, though each was for another model than the one before.
        swapper = sum(replica.swaps_total for replica in two.replicas.held())
        assert swapper < 6 + 20
        two.assert_exact()


async def test_a_pinned_model_stays_and_comes_first(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path) as two:
        held = two.replicas
        await held.assign(two.order("a", pinned=True))
        await held.assign(two.order("b", pinned=True))
        before = two.ledger
        with pytest.raises(LedgerFull, match="2 pinned replicas"):
            await held.assign(two.order("c"))
        assert two.states() == {"a": "HOT", "b": "HOT", "c": "FAILED"}
        assert two.ledger == before
        await held.assign(two.order("b"))
        await held.assign(two.order("c"))
        assert two.hot() == {"a", "c"}


async def test_an_unpinned_model_in_use_gives_its_place_to_a_pinned_one(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one:
        await one.replicas.assign(one.order("a"))
        tasks = [asyncio.create_task(one.infer("a")) for _ in range(10)]
        await asyncio.sleep(0)
        await one.replicas.assign(one.order("b", pinned=True))
        assert one.hot() == {"b"}
        with pytest.raises(LedgerFull, match="pinned"):
            await asyncio.gather(*tasks)


async def test_a_limit_of_count_stands_beside_that_of_bytes(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path, room_for=5, max_hot=2) as five:
        for name in "abc":
            await five.replicas.assign(five.order(name))
        assert len(five.hot()) == 2
        await asyncio.gather(*(five.infer(name) for name in "abcabc"))
        assert len(five.hot()) == 2


async def test_a_release_waits_for_tickets_that_wait_for_their_turn(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one:
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))
        waiting = asyncio.create_task(one.infer("a"))
        await asyncio.sleep(0)
        await one.replicas.release("a@1")
        assert (await waiting).batch_size == 1
        assert one.states() == {"b": "WARM"}
        one.assert_exact()


async def test_other_weights_under_the_same_name_are_loaded_anew(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path) as two:
        held = two.replicas
        first = await held.assign(two.order("a"))
        assert await held.assign(replace(two.order("a"), pinned=True)) is first
        assert first.pinned
        other = replace(two.order("a"), settings=types_pb2.VersionSettings(image_size=256))
        second = await held.assign(other)
        assert (second is first, second.shape, second.loads_total) == (False, (256, 256), 2)
        assert two.ledger.weights_bytes == two.weights_bytes
        nowhere = worker_pb2.PackLocation(uri=f"file://{tmp_path}/none", digest="0" * 64)
        with pytest.raises(Exception, match="none"):
            await held.assign(replace(two.order("a"), pack=nowhere))
        assert two.ledger.used_bytes == CONTEXT_BYTES


# --- Out of memory, though the ledger said that it fits -------------------------------------------


def failing(step: str, times: int) -> Callable[[str], None]:
    """Runs out of memory at a step of the device, so many times."""
    left = times

    def fail(now: str) -> None:
        nonlocal left
        if now == step and left:
            left -= 1
            raise OutOfMemory(f"injected at {step}")

    return fail


@pytest.mark.parametrize("step", ["load", "run"])
async def test_out_of_memory_once_on_the_way_is_tried_again(
    step: str, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        two.fail = failing(step, times=1)
        replica = await two.replicas.assign(two.order("a"))
        assert (replica.state, replica.max_batch) == ("HOT", 2)
        two.assert_exact()


async def test_tickets_that_waited_for_it_run_in_passes_that_the_ledger_knows(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=1, max_batch=4) as one:
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))
        one.fail = failing("load", times=1)
        answers = await asyncio.gather(*(one.infer("a") for _ in range(6)))
        assert max(answer.batch_size for answer in answers) == 2
        assert one.ledger.committed["a@1"].workspace_bytes == one.workspace(2)


async def test_a_larger_batch_is_not_run_before_its_memory_is_promised(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        order = replace(two.order("a"), batching=BatchingConfig(2))
        replica = await two.replicas.assign(order)
        async with two.swapper.lock:
            wider = replace(order, batching=BatchingConfig(4))
            rebatched = asyncio.create_task(two.replicas.assign(wider))
            for _ in range(5):
                await asyncio.sleep(0)
            assert replica.batching.max_batch == 2
        await rebatched
        assert replica.batching.max_batch == 4
        assert two.ledger.committed["a@1"].workspace_bytes == two.workspace(4)


@pytest.mark.parametrize("step", ["load", "run"])
async def test_out_of_memory_again_fails_the_load_and_leaves_nothing(
    step: str, zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path) as two:
        await two.replicas.assign(two.order("b"))
        before = two.ledger
        two.fail = failing(step, times=2)
        two.swapper.warmup._warm_s.clear()  # so that there is a warm-up pass to fail
        with pytest.raises(OutOfMemory, match="injected"):
            await two.replicas.assign(two.order("a"))
        assert two.ledger == before
        two.assert_exact()
        assert (await two.infer("b")).batch_size == 1
        await two.replicas.assign(two.order("a"))  # whoever asks again gets another try
        two.assert_exact()


async def test_tickets_of_a_model_that_cannot_come_back_hear_why(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path, room_for=1) as one:
        await one.replicas.assign(one.order("a"))
        await one.replicas.assign(one.order("b"))
        one.fail = failing("load", times=2)
        answers = await asyncio.gather(*(one.infer("a") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(answer, OutOfMemory) for answer in answers)
        assert one.states()["a"] == "FAILED"
        one.assert_exact()
        assert (await one.infer("b")).batch_size == 1


async def test_out_of_memory_in_a_pass_is_tried_again_smaller_and_once_more(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, max_batch=4) as two:
        await two.replicas.assign(two.order("a"))
        two.fail = failing("run", times=1)
        assert (await two.infer("a")).batch_size == 1
        two.fail = failing("run", times=2)
        with pytest.raises(OutOfMemory):
            await two.infer("a")
        assert (await two.infer("a")).batch_size == 1
        two.assert_exact()


async def test_no_host_memory_for_weights_is_out_of_memory(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: Any, **options: Any) -> Any:
        raise OSError("Cannot allocate memory")

    async with small_device(zoo, tmp_path) as two:
        reader = two.swapper.reader
        reader._limits = replace(reader._limits, fetch_weights=True)
        monkeypatch.setattr("worker.packs.host_memory.mmap.mmap", none)
        with pytest.raises(OutOfMemory, match="the host has no"):
            await two.replicas.assign(two.order("a"))
        monkeypatch.undo()
        two.assert_exact()
        assert (await two.replicas.assign(two.order("a"))).state == "HOT"


# --- Others on the device, and memory that does not come back ---------------------------------


async def test_foreign_use_shrinks_the_budget_and_what_is_over_leaves(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with small_device(zoo, tmp_path, room_for=2) as two:
        device_monitor = monitor_of(two, [])
        for name in "ab":
            await two.replicas.assign(two.order(name))
        configured = two.ledger.budget_bytes
        two.backend.foreign_bytes = two.backend.memory().available_bytes  # all that was free
        await device_monitor.look()
        assert device_monitor.foreign_bytes == two.workspace(1)
        await asyncio.gather(*(two.infer(name) for name in "abab"))
        assert len(two.hot()) == 1
        two.assert_exact()
        two.backend.foreign_bytes = 0
        await device_monitor.look()
        assert (device_monitor.foreign_bytes, two.ledger.budget_bytes) == (0, configured)
        await asyncio.gather(*(two.infer(name) for name in "ab"))
        assert two.hot() == {"a", "b"}


async def test_memory_that_does_not_come_back_is_noticed_once(zoo: Zoo, tmp_path: Path) -> None:
    recycled: list[str] = []
    async with small_device(zoo, tmp_path) as two:
        device_monitor = monitor_of(two, recycled, drift_limit=1000)
        await two.replicas.assign(two.order("a"))
        two.backend.allocate(two.workspace(1) + 999)  # a leak, beyond what passes may take
        for _ in range(20):
            await device_monitor.look()
        assert (device_monitor.drift_bytes, recycled) == (999, [])
        two.backend.allocate(2)
        for _ in range(20):
            await device_monitor.look()
        assert device_monitor.drift_bytes == 1001
        assert len(recycled) == 1
        assert "1001 bytes did not come back" in recycled[0]


async def test_on_a_cpu_what_is_held_beyond_the_ledger_is_reserved(
    zoo: Zoo, tmp_path: Path
) -> None:
    recycled: list[str] = []
    async with small_device(zoo, tmp_path, room_for=3) as three:
        three.backend.device_kind = "cpu"
        three.swapper.warmup._skip = True
        device_monitor = monitor_of(three, recycled, drift_limit=3 * three.weights_bytes)
        device_monitor.opened_bytes = CONTEXT_BYTES
        for name in "abc":
            await three.replicas.assign(three.order(name))
        held = three.workspace(1) + three.weights_bytes // 2
        three.backend.allocate(held)  # a cache that grows, and peaks of passes
        freed: list[int] = []

        def reclaim() -> None:
            freed.append(three.weights_bytes // 8)
            three.backend.free(freed[-1])

        three.backend.reclaim = reclaim  # type: ignore[method-assign]  # what was free of it
        for _ in range(25):
            await device_monitor.look()
        async with three.swapper.lock:
            grown = three.weights_bytes // 2 - freed[0]
            assert three.ledger.context_bytes == CONTEXT_BYTES + grown
        async with asyncio.timeout(20):
            while three.ledger.free_bytes < 0:  # noqa: ASYNC110 - the swapper's next round
                await asyncio.sleep(0.01)
        assert len(three.hot()) == 2
        assert len(freed) == 1
        for _ in range(25):
            await device_monitor.look()
        assert three.ledger.context_bytes == CONTEXT_BYTES + grown, "it does not count twice"
        assert three.backend.memory().used_bytes <= three.ledger.budget_bytes
        assert not recycled
        three.backend.free(held - freed[0])
        for _ in range(25):
            await device_monitor.look()
        assert three.ledger.context_bytes == CONTEXT_BYTES, "it came back"


async def test_a_release_that_gives_less_back_is_counted(zoo: Zoo, tmp_path: Path) -> None:
    async with small_device(zoo, tmp_path) as two:
        await two.replicas.assign(two.order("a"))
        await two.replicas.release("a@1")
        assert two.swapper.not_returned_bytes == 0
        await two.replicas.assign(two.order("a"))
        model = two.engine.models["a@1"]
        close = model.close

        def leaks() -> None:
            close()
            two.backend.allocate(77)

        model.close = leaks  # type: ignore[method-assign]  # a backend with a fault
        await two.replicas.release("a@1")
        assert two.swapper.not_returned_bytes == 77


# --- A control plane that goes silent -------------------------------------------------------------


class Silent(membership_pb2_grpc.MembershipServiceServicer):
    """Answers the first heartbeat of each stream and no other."""

    def __init__(self) -> None:
        self.joins = 0
        self.joined_again = asyncio.Event()

    async def Join(self, request: Any, context: Any) -> Any:
        self.joins += 1
        if self.joins == 3:
            self.joined_again.set()
        return membership_pb2.JoinResponse(cluster="c", heartbeat_interval_s=0.05, lease_s=0.2)

    async def Heartbeat(self, requests: Any, context: Any) -> Any:
        yield membership_pb2.HeartbeatResponse(lease_s=0.2)
        await asyncio.Event().wait()

    async def ReportExit(self, request: Any, context: Any) -> Any:
        return membership_pb2.ReportExitResponse()

    async def Leave(self, request: Any, context: Any) -> Any:
        return membership_pb2.LeaveResponse()


async def joins_again(inventory: Callable[[], fleet_pb2.Worker]) -> None:
    plane, server = Silent(), GrpcServer([])
    membership_pb2_grpc.add_MembershipServiceServicer_to_server(plane, server.server)
    port = await server.start("127.0.0.1", 0)
    membership = Membership([f"127.0.0.1:{port}"], inventory, types_pb2.FencingToken)
    member = asyncio.create_task(membership.run())
    try:
        async with asyncio.timeout(20):
            await plane.joined_again.wait()
        assert not member.done()
    finally:
        member.cancel()
        await asyncio.wait([member])
        await server.stop(0)


async def test_heartbeats_without_answers_end_in_a_new_join() -> None:
    await joins_again(lambda: fleet_pb2.Worker(id="w"))


async def test_a_fault_of_the_inventory_does_not_end_the_membership() -> None:
    calls = 0

    def inventory() -> fleet_pb2.Worker:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise RuntimeError("injected")
        return fleet_pb2.Worker(id="w")

    await joins_again(inventory)


# --- A device that can't be taken --------------------------------------------------------------


class Gone(SimulatedBackend):
    """A device that is not there."""

    def open(self) -> int:
        raise RuntimeError("no such device")


async def test_a_device_that_is_not_there_ends_the_start_and_leaves_no_thread(
    tmp_path: Path,
) -> None:
    app = App(read_settings(["--device=sim:0", f"--data-dir={tmp_path}"]), Gone(0, 1))
    with pytest.raises(OSError, match="sim:0 can't be taken: no such device"):
        await app.start()
    assert "device" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", app.port)
