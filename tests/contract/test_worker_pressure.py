"""A worker short of memory or cut off: batches are split, idle models make room, a version whose
store began anew is loaded again, and a control plane that went silent is joined again.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import Zoo
from worker.app import App
from worker.backends.base import BatchResult, Candidates, NmsOptions
from worker.backends.simulated import CONTEXT_BYTES, SimulatedBackend, TimeCurve
from worker.engine import Engine, Request
from worker.ledger import Ledger
from worker.lifecycle import ReplicaState
from worker.membership import Membership
from worker.packs import PackDoor
from worker.replicas import Limits, Order, Replicas
from worker.settings import read_settings
from yolopool.errors import InferenceFailed, LedgerFull, OutOfMemory, QueueFull
from yolopool.serving import GrpcServer
from yolopool.v1 import fleet_pb2, membership_pb2, membership_pb2_grpc, types_pb2, worker_pb2

IMAGE = np.zeros((32, 32, 3), np.uint8)
OPTIONS = NmsOptions((0.25,), 0.7, 300, agnostic=False)
NOTHING = Candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))


class Narrow:
    """A model whose device holds `most` images; the first pass waits until it may go on."""

    weights_bytes = 1

    def __init__(self, most: int, answer: Callable[[int], int] = lambda images: images) -> None:
        self.most = most
        self.answer = answer
        self.began, self.go_on = threading.Event(), threading.Event()
        self.passes: list[int] = []

    def workspace_bytes(self, shape: tuple[int, int], batch: int) -> int:
        return 0

    def run(self, images: Any, options: Any) -> BatchResult:
        self.began.set()
        assert self.go_on.wait(20)
        self.passes.append(len(images))
        if len(images) > self.most:
            raise OutOfMemory(f"{len(images)} images do not fit")
        return BatchResult((NOTHING,) * self.answer(len(images)), 0.0, 0.0, 0.0)

    def close(self) -> None:
        """There is nothing to give back."""


@asynccontextmanager
async def engine_with(model: Narrow, capacity: int = 64) -> AsyncIterator[Engine]:
    engine = Engine(capacity)
    engine.models["m@1"] = model
    engine.start()
    try:
        yield engine
    finally:
        model.go_on.set()
        await engine.stop(5)


def request(version: str = "m@1") -> Request:
    return Request(version, IMAGE, OPTIONS, priority=1, deadline=1e12, max_batch=8)


async def queued_behind_one(engine: Engine, model: Narrow, count: int) -> list[Any]:
    """Tasks of `count` images that wait together while a first one runs, and that one's."""
    tasks = [asyncio.create_task(engine.submit(request()))]
    await asyncio.to_thread(model.began.wait, 20)
    tasks += [asyncio.create_task(engine.submit(request())) for _ in range(count)]
    await asyncio.sleep(0)
    assert engine.load().outstanding == count + 1
    return tasks


async def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    model = Narrow(most=2)
    async with engine_with(model) as engine:
        tasks = await queued_behind_one(engine, model, 8)
        model.go_on.set()
        outcomes = await asyncio.gather(*tasks)
    assert model.passes == [1, 8, 4, 2, 2, 4, 2, 2]
    assert [outcome.batch_size for outcome in outcomes] == [1] + [2] * 8


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
            await engine.submit(request())


async def test_a_cancelled_call_frees_its_place() -> None:
    model = Narrow(most=8)
    async with engine_with(model, capacity=2) as engine:
        tasks = await queued_behind_one(engine, model, 2)
        with pytest.raises(QueueFull):
            await engine.submit(request())
        gone = tasks.pop()
        gone.cancel()
        await asyncio.wait([gone])
        tasks.append(asyncio.create_task(engine.submit(request())))
        model.go_on.set()
        await asyncio.gather(*tasks)
    assert sorted(model.passes) == [1, 2]


# --- Two tiers: host memory beside the device's ---------------------------------------------------


class Tiers:
    """Replicas on a simulated device that has room for so many of the demo model."""

    def __init__(self, engine: Engine, zoo: Zoo, folder: Path, room_for: int, waiting: int) -> None:
        self.location = zoo.pack("shapes")
        door = PackDoor(folder)
        manifest = door.fetch(self.location, weights=False).manifest
        self.weights_bytes = manifest.weights_bytes
        backend = SimulatedBackend(0, 8 * 1024**3, TimeCurve(load_fixed_s=0.05))
        backend.open()
        limits = Limits(1, promoting=waiting, skip_warmup=True, two_tiers=True, fetch_weights=False)
        self.replicas = Replicas(
            engine, backend, door, Ledger(0, CONTEXT_BYTES), limits, lambda: None
        )
        self.backend = backend
        pixels = 320 * 320
        workspace = pixels * manifest.activation_bytes_per_megapixel // 10**6 + pixels * 15
        self.replicas.ledger = Ledger(
            CONTEXT_BYTES + room_for * self.weights_bytes + workspace, CONTEXT_BYTES
        )

    def order(self, name: str, pinned: bool = False) -> Order:
        settings = types_pb2.VersionSettings(image_size=320)
        return Order(f"{name}@1", name, 1, settings, self.location, "fp32", 1, pinned)

    def states(self) -> dict[str, ReplicaState]:
        return {replica.order.model: replica.state for replica in self.replicas.held()}


@asynccontextmanager
async def tiers(
    zoo: Zoo, folder: Path, room_for: int = 2, waiting: int = 64
) -> AsyncIterator[Tiers]:
    engine = Engine(64)
    engine.start()
    try:
        yield Tiers(engine, zoo, folder, room_for, waiting)
    finally:
        await engine.stop(5)


async def test_the_least_recently_used_idle_model_makes_room_and_comes_back(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with tiers(zoo, tmp_path) as two:
        held = two.replicas
        await held.assign(two.order("a"))
        await held.assign(two.order("b"))
        with held.ticket("a@1"):
            await held.assign(two.order("c"))  # b makes room: a has a ticket
            assert two.states() == {"a": "HOT", "b": "WARM", "c": "HOT"}
        with held.ticket("b@1") as replica:
            await asyncio.gather(*(held.ensure_hot(replica) for _ in range(20)))
        assert sorted(two.states().values()) == ["HOT", "HOT", "WARM"]
        assert two.states()["b"] == "HOT"
        assert held.ledger.weights_bytes == 2 * two.weights_bytes
        for name in "abc":
            await held.release(f"{name}@1")
        assert held.ledger.used_bytes == CONTEXT_BYTES == two.backend.memory().used_bytes


async def test_pinned_and_busy_models_stay_and_the_refusal_leaves_nothing(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with tiers(zoo, tmp_path) as two:
        held = two.replicas
        await held.assign(two.order("a", pinned=True))
        await held.assign(two.order("b"))
        before = held.ledger
        with held.ticket("b@1"), pytest.raises(LedgerFull):
            await held.assign(two.order("c"))
        assert two.states() == {"a": "HOT", "b": "HOT", "c": "FAILED"}
        assert held.ledger == before
        await held.assign(two.order("c"))
        assert two.states() == {"a": "HOT", "b": "WARM", "c": "HOT"}


async def test_so_many_wait_for_a_model_on_its_way_and_one_more_is_refused(
    zoo: Zoo, tmp_path: Path
) -> None:
    async with tiers(zoo, tmp_path, room_for=1, waiting=3) as one:
        held = one.replicas
        await held.assign(one.order("a"))
        await held.assign(one.order("b"))
        with held.ticket("a@1") as replica:
            waits = [asyncio.create_task(held.ensure_hot(replica)) for _ in range(4)]
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(QueueFull) == 1
        assert one.states() == {"a": "HOT", "b": "WARM"}


async def test_other_weights_under_the_same_name_are_loaded_anew(zoo: Zoo, tmp_path: Path) -> None:
    async with tiers(zoo, tmp_path) as two:
        held = two.replicas
        first = await held.assign(two.order("a"))
        assert await held.assign(replace(two.order("a"), pinned=True)) is first
        assert first.pinned
        other = replace(two.order("a"), settings=types_pb2.VersionSettings(image_size=256))
        second = await held.assign(other)
        assert (second is first, second.shape, second.loads_total) == (False, (256, 256), 2)
        assert held.ledger.weights_bytes == two.weights_bytes
        nowhere = worker_pb2.PackLocation(uri=f"file://{tmp_path}/none", digest="0" * 64)
        with pytest.raises(Exception, match="none"):
            await held.assign(replace(two.order("a"), pack=nowhere))
        assert held.ledger.used_bytes == CONTEXT_BYTES


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
