"""A real worker over real gRPC: loads once, refuses with reasons, drains, and says what it holds.

On the simulated device for what is about order and time, on the CPU for what is about memory.
"""

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.models import SHAPES, Zoo, location
from tests.precisions import torch_computes_bf16
from worker.app import App
from worker.backends.base import Backend
from worker.backends.simulated import CONTEXT_BYTES, SimulatedBackend, TimeCurve
from worker.hardware import compute_class
from worker.packs.pack_store import PackStore
from worker.settings import read_settings
from yolopool import errors
from yolopool.server.grpc_server import GrpcServer
from yolopool.status import error_from_rpc
from yolopool.v1 import (
    fleet_pb2,
    membership_pb2,
    membership_pb2_grpc,
    types_pb2,
    worker_pb2,
    worker_pb2_grpc,
)

IMAGE = (SHAPES / "images" / "00000.png").read_bytes()
OTHER = (SHAPES / "images" / "00003.png").read_bytes()
SETTINGS = types_pb2.VersionSettings(
    image_size=320,
    confidence=0.25,
    iou=0.7,
    max_detections=300,
    shape_policy=types_pb2.SHAPE_POLICY_RECT,
)
Start = Callable[..., Any]


class Running:
    """A started worker with a stub to call it."""

    def __init__(self, app: App, channel: grpc.aio.Channel) -> None:
        self.app = app
        self.stub: Any = worker_pb2_grpc.WorkerServiceStub(channel)

    async def call(self, method: str, request: Any, timeout: float = 20.0) -> Any:
        try:
            return await getattr(self.stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from None

    async def assign(self, zoo: Zoo, name: str = "shapes", **fields: Any) -> Any:
        request = worker_pb2.AssignRequest(
            version=types_pb2.VersionKey(model=name, version=1),
            settings=SETTINGS,
            **{
                "pack": zoo.pack("shapes"),
                "variant": types_pb2.Variant(precision="fp32"),
                **fields,
            },
        )
        return await self.call("Assign", request)

    async def infer(self, name: str = "shapes", image: bytes = IMAGE, **kwargs: Any) -> Any:
        timeout = kwargs.pop("timeout", 20.0)
        request = worker_pb2.InferRequest(
            version=types_pb2.VersionKey(model=name, version=1), encoded=image, **kwargs
        )
        return await self.call("Infer", request, timeout)

    async def release(self, name: str = "shapes", **fields: Any) -> Any:
        version = types_pb2.VersionKey(model=name, version=1)
        return await self.call("Release", worker_pb2.ReleaseRequest(version=version, **fields))

    async def inventory(self) -> Any:
        return (await self.call("GetInventory", worker_pb2.GetInventoryRequest())).worker


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[tuple[App, grpc.aio.Channel]] = []

    async def start(backend: Backend | None = None, **flags: Any) -> Running:
        device = "sim:0" if backend is None or backend.device_kind == "sim" else "cpu"
        given = {"device": device, "data_dir": tmp_path, "control_planes": "127.0.0.1:1", **flags}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        app = App(read_settings(arguments), backend or SimulatedBackend(0, 8 * 1024**3))
        await app.start()
        channel = grpc.aio.insecure_channel(app.identity().address)
        started.append((app, channel))
        return Running(app, channel)

    yield start
    for app, channel in started:
        await channel.close()
        await app.stop()


async def test_from_assign_to_release(start: Start, zoo: Zoo) -> None:
    worker = await start()
    empty = (await worker.inventory()).ledger
    assert (empty.context_bytes, empty.weights_bytes) == (CONTEXT_BYTES, 0)
    assigned = await worker.assign(zoo)
    replica = assigned.replica
    assert replica.state == types_pb2.REPLICA_STATE_HOT
    assert (replica.loads_total, replica.weights_bytes) == (1, assigned.ledger.weights_bytes)
    assert assigned.ledger.workspace_bytes == replica.workspace_bytes > 0
    answer = await worker.infer(request_id="r1")
    result = answer.result
    assert (result.version.model, result.image_width, result.image_height) == ("shapes", 320, 320)
    assert (result.request_id, result.batch_size, result.device) == ("r1", 1, "sim:0")
    assert len(result.detections) == 1
    assert result.timing.decode_ms > 0
    assert result.timing.inference_ms > 0
    assert answer.load.queue_capacity == 64
    assert answer.device_ms > 0
    released = await worker.release()
    assert released.released_bytes == replica.weights_bytes
    assert released.ledger == empty
    assert (await worker.release()).released_bytes == 0
    with pytest.raises(errors.NotAssigned):
        await worker.infer()


async def test_many_assigns_are_one_load(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * 1024**3, TimeCurve(load_fixed_s=0.3)))
    answers = await asyncio.gather(*(worker.assign(zoo) for _ in range(20)))
    assert {answer.replica.loads_total for answer in answers} == {1}
    await worker.release()
    assert (await worker.assign(zoo)).replica.loads_total == 2


async def test_a_cancelled_assign_does_not_cancel_the_load(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * 1024**3, TimeCurve(load_fixed_s=0.5)))
    call = asyncio.ensure_future(worker.assign(zoo))
    await asyncio.sleep(0.2)
    call.cancel()
    assert (await worker.assign(zoo)).replica.loads_total == 1


async def test_a_release_waits_for_the_load_it_undoes(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * 1024**3, TimeCurve(load_fixed_s=0.3)))
    empty = (await worker.inventory()).ledger
    loads = [asyncio.ensure_future(worker.assign(zoo)) for _ in range(2)]
    await asyncio.sleep(0.15)
    late = asyncio.ensure_future(worker.assign(zoo))  # it is WARM by now, on its way
    released = await asyncio.gather(worker.release(), worker.release())
    assert max(answer.released_bytes for answer in released) > 0
    for load in [*loads, late]:
        assert (await load).replica.loads_total == 1
    assert (await worker.inventory()).ledger == empty
    assert (await worker.assign(zoo)).replica.loads_total == 2


async def test_a_lower_token_is_refused(start: Start, zoo: Zoo) -> None:
    worker = await start()
    token = types_pb2.FencingToken(epoch=5, counter=7)
    await worker.assign(zoo, token=token)
    for stale in (
        types_pb2.FencingToken(epoch=5, counter=6),
        types_pb2.FencingToken(epoch=4, counter=99),
    ):
        with pytest.raises(errors.StaleToken):
            await worker.assign(zoo, "other", token=stale)
        with pytest.raises(errors.StaleToken):
            await worker.release(token=stale)
    await worker.release(token=token)
    answer = await worker.call("GetInventory", worker_pb2.GetInventoryRequest())
    assert answer.highest_token == token


async def test_what_does_not_fit_is_refused_and_leaves_nothing(start: Start, zoo: Zoo) -> None:
    worker = await start()
    ledger = (await worker.assign(zoo)).ledger
    used = ledger.context_bytes + ledger.weights_bytes + ledger.workspace_bytes
    small = await start(memory_budget=str(used + 1))
    await small.assign(zoo, pin=True)
    before = (await small.inventory()).ledger
    with pytest.raises(errors.LedgerFull) as caught:
        await small.assign(zoo, "second")
    assert int(caught.value.details["free_bytes"]) >= 1
    assert (await small.inventory()).ledger == before
    failed = {r.version.model: r for r in (await small.inventory()).replicas}["second"]
    assert (failed.state, failed.reason) == (types_pb2.REPLICA_STATE_FAILED, "LEDGER_FULL")
    await small.assign(zoo)  # no longer pinned: they take turns
    assert (await small.assign(zoo, "second")).replica.state == types_pb2.REPLICA_STATE_HOT
    assert (await small.infer()).result.version.model == "shapes"


@pytest.mark.parametrize("step", ["load", "run"])
async def test_out_of_memory_while_loading_leaves_nothing(
    start: Start, zoo: Zoo, step: str
) -> None:
    def fail(now: str) -> None:
        if now == step and failing:
            raise errors.OutOfMemory("injected")

    failing = [True]
    worker = await start(SimulatedBackend(0, 8 * 1024**3, fail=fail))
    before = (await worker.inventory()).ledger
    with pytest.raises(errors.OutOfMemory):
        await worker.assign(zoo)
    assert (await worker.inventory()).ledger == before
    failing.clear()
    assert (await worker.assign(zoo)).replica.state == types_pb2.REPLICA_STATE_HOT


async def test_a_pack_that_is_not_there_or_damaged(start: Start, zoo: Zoo, tmp_path: Path) -> None:
    worker = await start()
    location = worker_pb2.PackLocation(uri=f"file://{tmp_path}/absent", digest="0" * 64)
    request = worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model="a", version=1), settings=SETTINGS, pack=location
    )
    with pytest.raises(errors.PackNotFound):
        await worker.call("Assign", request)
    good = zoo.pack("shapes")
    request.pack.CopyFrom(worker_pb2.PackLocation(uri=good.uri, digest="0" * 64))
    with pytest.raises(errors.DigestMismatch):
        await worker.call("Assign", request)


async def test_answers_are_never_swapped(start: Start, zoo: Zoo) -> None:
    worker = await start()
    await worker.assign(zoo)
    await worker.assign(zoo, "two")
    alone = {image: (await worker.infer(image=image)).result for image in (IMAGE, OTHER)}
    asked = [(name, image) for name in ("shapes", "two") for image in (IMAGE, OTHER)] * 15
    answers = await asyncio.gather(*(worker.infer(name, image) for name, image in asked))
    assert max(answer.result.batch_size for answer in answers) > 1
    for (name, image), answer in zip(asked, answers, strict=True):
        assert answer.result.version.model == name
        assert answer.result.detections == alone[image].detections


async def test_batching_is_taken_over_without_a_load(start: Start, zoo: Zoo) -> None:
    slow = SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.2))
    worker = await start(slow, max_batch=2)
    loaded = (await worker.assign(zoo)).replica
    eight = types_pb2.Batching(max_batch=8, preferred_sizes=[3, 8], max_delay_ms=1)
    changed = (await worker.assign(zoo, batching=eight)).replica
    assert (loaded.variant.max_batch, changed.variant.max_batch) == (2, 8)
    assert (changed.batching, changed.swaps_total) == (eight, loaded.swaps_total)
    assert changed.workspace_bytes == 4 * loaded.workspace_bytes
    assert (await worker.inventory()).ledger.workspace_bytes == changed.workspace_bytes
    running = asyncio.ensure_future(worker.infer())
    await until(lambda: worker.app.engine.load().outstanding == 1)
    answers = await asyncio.gather(*(worker.infer() for _ in range(5)))
    assert max(answer.result.batch_size for answer in answers) == 3
    await running
    back = (await worker.assign(zoo)).replica
    assert (back.variant.max_batch, back.HasField("batching")) == (2, False)


async def test_a_fixed_batch_is_filled_up_and_its_answers_are_the_same(
    start: Start, zoo: Zoo
) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    worker = await start(TorchBackend("cpu", 1))
    await worker.assign(zoo)
    plain = await worker.infer()
    await worker.assign(zoo, batching=types_pb2.Batching(max_batch=3, fixed=True))
    filled = await worker.infer()
    assert filled.result.batch_size == 1
    for one, other in zip(filled.result.detections, plain.result.detections, strict=True):
        assert one.class_name == other.class_name
        # Sums of another batch are rounded otherwise.
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert one.box.x_min == pytest.approx(other.box.x_min, abs=0.01)


async def test_a_full_queue_refuses_at_once_and_a_late_ticket_is_dropped(
    start: Start, zoo: Zoo
) -> None:
    slow = SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.4))
    worker = await start(slow, queue_capacity=2, max_batch=1)
    await worker.assign(zoo)

    async def outcome(timeout: float) -> str:
        try:
            await worker.infer(timeout=timeout)
        except errors.YolopoolError as error:
            return error.reason
        return "OK"

    found = await asyncio.gather(*(outcome(20.0) for _ in range(8)))
    assert "QUEUE_FULL" in found
    assert "OK" in found
    first = asyncio.ensure_future(outcome(20.0))
    await asyncio.sleep(0.1)
    assert await outcome(0.15) in ("DEADLINE_EXCEEDED", "DEADLINE_UNMEETABLE")
    assert await first == "OK"


async def test_a_flood_of_one_tenant_neither_refuses_nor_holds_up_another(
    start: Start, zoo: Zoo
) -> None:
    slow = SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.2))
    worker = await start(slow, queue_capacity=8, max_batch=1)
    await worker.assign(zoo)
    answered, refused = [], []

    async def ask(number: int) -> None:
        try:
            await worker.infer(tenant="b", timeout=60.0)
        except errors.QueueFull:
            refused.append(number)
        else:
            answered.append(number)

    flood = [asyncio.ensure_future(ask(number)) for number in range(20)]
    await until(lambda: len(refused) >= 8)
    before = len(answered)
    await worker.infer(tenant="a", weight=1.0, timeout=60.0)
    # What was begun when it came, and when its image was decoded.
    assert len(answered) - before <= 4
    for one in flood:
        one.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_what_cannot_make_its_deadline_is_refused_on_arrival_with_the_estimate(
    start: Start, zoo: Zoo
) -> None:
    slow = SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.4))
    worker = await start(slow, max_batch=1)
    await worker.assign(zoo)
    await worker.infer()  # measured now
    urgent = types_pb2.PRIORITY_INTERACTIVE
    tasks = [asyncio.ensure_future(worker.infer(priority=urgent)) for _ in range(3)]
    await until(lambda: worker.app.engine.load().outstanding == 3)
    with pytest.raises(errors.DeadlineUnmeetable) as refused:
        await worker.infer(timeout=1.0)
    assert float(refused.value.details["estimated_wait_s"]) > 1.0
    assert 0 < float(refused.value.details["deadline_in_s"]) < 1.1
    # As urgent, and due earlier than those who wait, it goes before them.
    await worker.infer(timeout=5.0, priority=urgent)
    assert not all(task.done() for task in tasks)
    assert len(await asyncio.gather(*tasks)) == 3
    # Alone it is let through: an estimate that is wrong is put right by the pass.
    with pytest.raises(errors.DeadlineExceeded) as late:
        await worker.infer(timeout=0.1)
    assert late.value.reason == "DEADLINE_EXCEEDED"


async def test_a_release_by_force_refuses_what_waits_behind_the_pass_under_way(
    start: Start, zoo: Zoo
) -> None:
    worker = await start(SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.5)), max_batch=1)
    empty = (await worker.inventory()).ledger
    weights = (await worker.assign(zoo)).replica.weights_bytes
    running = asyncio.ensure_future(worker.infer())
    await until(lambda: worker.app.engine.load().outstanding == 1)
    waiting = [asyncio.ensure_future(worker.infer()) for _ in range(3)]
    await until(lambda: worker.app.engine.load().outstanding == 4)
    plain = asyncio.ensure_future(worker.release())
    await until(lambda: worker.app.replicas.held()[0].state == "RELEASING")
    assert (await worker.release(force=True)).released_bytes == weights
    for one in waiting:
        with pytest.raises(errors.NotAssigned) as refused:
            await one
        assert refused.value.details == {"forced": "true"}
    assert (await running).result.batch_size == 1
    assert (await plain).ledger == empty
    assert (await worker.assign(zoo)).replica.loads_total == 2
    assert (await worker.infer()).result.batch_size == 1


async def test_a_drain_that_a_control_plane_asked_for_ends_the_process(
    tmp_path: Path, zoo: Zoo
) -> None:
    flags = ["--device=sim:0", f"--data-dir={tmp_path}", "--control-planes=127.0.0.1:1"]
    backend = SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.3))
    app = App(read_settings(flags), backend)
    await app.start()
    process = asyncio.create_task(app.run(asyncio.Event().wait))
    async with grpc.aio.insecure_channel(app.identity().address) as channel:
        worker = Running(app, channel)
        token = types_pb2.FencingToken(epoch=1, counter=2)
        await worker.assign(zoo, token=token)
        stale = worker_pb2.DrainRequest(token=types_pb2.FencingToken(epoch=1, counter=1))
        with pytest.raises(errors.StaleToken):
            await worker.call("Drain", stale)
        opened = asyncio.ensure_future(worker.infer())
        await until(lambda: app.engine.load().outstanding == 1)
        drained = await worker.call("Drain", worker_pb2.DrainRequest(token=token))
        assert drained.left == 0
        assert (await opened).result.batch_size == 1
        async with asyncio.timeout(20):
            await process


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - of another thread's doing
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image": b""}, errors.ImageEmpty),
        ({"image": b"no image"}, errors.ImageNotDecodable),
        ({"options": {"confidence": 1.5}}, errors.InvalidOption),
        ({"options": {"iou": float("nan")}}, errors.InvalidOption),
        ({"options": {"max_detections": 0}}, errors.InvalidOption),
        ({"options": {"classes": [3]}}, errors.InvalidOption),
        ({"options": {"region_of_interest": {"x_max": 999, "y_max": 10}}}, errors.InvalidOption),
    ],
)
async def test_bad_requests_are_said(
    start: Start, zoo: Zoo, change: dict[str, Any], error: type[errors.YolopoolError]
) -> None:
    worker = await start()
    await worker.assign(zoo)
    with pytest.raises(error):
        await worker.infer(**change)
    assert (await worker.infer()).result.batch_size == 1


async def test_a_drain_answers_what_is_open_and_takes_nothing_new(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * 1024**3, TimeCurve(fixed_s=0.5)))
    await worker.assign(zoo)
    opened = asyncio.ensure_future(worker.infer())
    await asyncio.sleep(0.2)
    drained = asyncio.ensure_future(worker.call("Drain", worker_pb2.DrainRequest()))
    await asyncio.sleep(0.05)
    with pytest.raises(errors.Draining):
        await worker.infer()
    with pytest.raises(errors.Draining):
        await worker.assign(zoo, "two")
    assert len((await opened).result.detections) == 1
    assert (await drained).left == 0
    assert (await worker.inventory()).state == fleet_pb2.WORKER_STATE_DRAINING


class ControlPlane(membership_pb2_grpc.MembershipServiceServicer):
    """Notes who joins and what they say."""

    def __init__(self) -> None:
        self.joined: list[Any] = []
        self.heard: list[Any] = []
        self.left: list[str] = []
        self.exits: list[Any] = []
        self.news = asyncio.Condition()

    async def _note(self, where: list[Any], what: Any) -> None:
        async with self.news:
            where.append(what)
            self.news.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(holds)

    async def Join(self, request: Any, context: Any) -> Any:
        await self._note(self.joined, request.worker)
        return membership_pb2.JoinResponse(cluster="c", heartbeat_interval_s=30, lease_s=90)

    async def Heartbeat(self, requests: Any, context: Any) -> Any:
        async for request in requests:
            await self._note(self.heard, request.worker)
            yield membership_pb2.HeartbeatResponse(lease_s=90)

    async def ReportExit(self, request: Any, context: Any) -> Any:
        await self._note(self.exits, request)
        return membership_pb2.ReportExitResponse()

    async def Leave(self, request: Any, context: Any) -> Any:
        await self._note(self.left, request.incarnation)
        return membership_pb2.LeaveResponse()


async def test_membership_tells_changes_at_once_rejoins_and_leaves(start: Start, zoo: Zoo) -> None:
    async def serve(port: int) -> tuple[ControlPlane, GrpcServer, int]:
        plane, server = ControlPlane(), GrpcServer([])
        membership_pb2_grpc.add_MembershipServiceServicer_to_server(plane, server.server)
        return plane, server, await server.start("127.0.0.1", port)

    first, server, port = await serve(0)
    worker = await start(control_planes=f"127.0.0.1:{port}")
    member = asyncio.create_task(worker.app.membership.run())
    await first.until(lambda: bool(first.joined and first.heard))
    assert first.joined[0].state == fleet_pb2.WORKER_STATE_READY
    await worker.assign(zoo)
    # The interval is 30 s: these come because the replica's state changed.
    await first.until(
        lambda: any(r.state == types_pb2.REPLICA_STATE_HOT for r in first.heard[-1].replicas)
    )
    await server.stop(0)
    assert len((await worker.infer()).result.detections) == 1  # serves with no control plane
    second, server, _ = await serve(port)
    await second.until(lambda: bool(second.joined))
    assert second.joined[0].replicas[0].version.model == "shapes"
    member.cancel()
    await worker.app.membership.leave()
    assert second.left == [worker.app.incarnation]
    await server.stop(0)


async def test_on_the_cpu_models_take_turns_and_answer_as_if_alone(start: Start, zoo: Zoo) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    alone = await start(TorchBackend("cpu", 1), max_batch=1)
    await alone.assign(zoo)
    expected = (await alone.infer()).result.detections
    ledger = (await alone.inventory()).ledger
    # The context of the next is what this process has in memory when it starts: all of it now.
    # One image a pass, as alone: in a batch the last bits of a box may differ.
    room_bytes = ledger.measured_bytes + ledger.workspace_bytes + ledger.weights_bytes * 5 // 2
    worker = await start(TorchBackend("cpu", 1), memory_budget=str(room_bytes), max_batch=1)
    worker.app.device_monitor.opened_bytes = 0  # what this process comes to hold is not its own
    names = ("one", "two", "three", "four")
    for name in names:
        await worker.assign(zoo, name)
    room = (await worker.inventory()).ledger
    answers = await asyncio.gather(*(worker.infer(name) for name in names * 6))
    assert all(answer.result.detections == expected for answer in answers)
    after = await worker.inventory()
    assert after.ledger.weights_bytes < 4 * ledger.weights_bytes
    assert after.ledger.budget_bytes >= room.context_bytes + after.ledger.weights_bytes
    states = [replica.state for replica in after.replicas]
    assert types_pb2.REPLICA_STATE_WARM in states
    assert types_pb2.REPLICA_STATE_HOT in states


async def test_a_hostile_pack_runs_nothing_and_the_worker_lives_on(
    start: Start, zoo: Zoo, tmp_path: Path
) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    canary = tmp_path / "canary"
    folder = Path(shutil.copytree(zoo.pack("shapes").uri.removeprefix("file://"), tmp_path / "p"))
    skeleton = json.loads((folder / "skeleton.json").read_text())
    layer = skeleton["root"]["children"]["model"]["children"]["0"]
    layer["class"], layer["attributes"]["command"] = "os.system", f"touch {canary}"
    text = json.dumps(skeleton).encode()
    (folder / "skeleton.json").write_bytes(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["architecture_key"] = hashlib.sha256(text).hexdigest()
    manifest["skeleton_bytes"] = str(len(text))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    worker = await start(TorchBackend("cpu", 1))
    before = (await worker.inventory()).ledger
    request = worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model="hostile", version=1),
        settings=SETTINGS,
        pack=location(folder),
    )
    with pytest.raises(errors.PackInvalid, match=r"os\.system.*not allowed"):
        await worker.call("Assign", request)
    assert not canary.exists()
    assert (await worker.inventory()).ledger.weights_bytes == before.weights_bytes
    await worker.assign(zoo)
    assert len((await worker.infer()).result.detections) == 2


async def test_on_the_cpu_weights_are_memory_that_comes_back(start: Start, zoo: Zoo) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    worker = await start(TorchBackend("cpu", 1))
    await worker.assign(zoo)
    found = (await worker.infer()).result
    assert [d.class_name for d in found.detections] == ["circle", "circle"]
    before = await worker.inventory()
    await worker.assign(zoo, "two")
    both = await worker.inventory()
    grown = both.ledger.weights_bytes - before.ledger.weights_bytes
    assert grown == both.replicas[1].weights_bytes
    await worker.release("two")
    after = await worker.inventory()
    assert after.ledger.weights_bytes == before.ledger.weights_bytes
    # The mapping of the weights is gone; the allocator's own pages may stay.
    assert after.ledger.measured_bytes < both.ledger.measured_bytes - grown // 2


async def test_a_worker_of_another_precision_says_so_and_takes_half(
    start: Start, zoo: Zoo, tmp_path: Path
) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    worker = await start(TorchBackend("cpu", 1), precision="bf16")
    told = (await worker.inventory()).variant
    assert (told.backend, told.precision, told.device_kind) == ("torch", "bf16", "cpu")
    if not torch_computes_bf16():
        with pytest.raises(errors.InvalidOption, match=r"'bf16' is not computed.*use fp32"):
            await worker.assign(zoo, variant=types_pb2.Variant())
        assert (await worker.inventory()).ledger.weights_bytes == 0
        return
    # Whoever orders nothing gets what is made here.
    await worker.assign(zoo, variant=types_pb2.Variant())
    found = (await worker.infer()).result
    assert [d.class_name for d in found.detections] == ["circle", "circle"]
    assert found.variant.precision == "bf16"
    before = await worker.inventory()
    fp32 = PackStore(tmp_path).fetch(zoo.pack("shapes"), weights=False).manifest.weights_bytes
    assert before.replicas[0].footprint.weights_bytes < 0.51 * fp32
    # The pack's memory was given back: it is not taken beside the weights.
    assert before.ledger.host_bytes == 0
    assert before.ledger.load_transient_bytes == 0
    await worker.release()
    assert (await worker.inventory()).ledger.weights_bytes == 0


async def test_a_worker_says_its_compute_class_and_answers_with_it(start: Start, zoo: Zoo) -> None:
    worker = await start()
    told = await worker.inventory()
    assert (told.variant.compute_class, told.labels["compute-class"]) == ("sim", "sim")
    await worker.assign(zoo)
    assert (await worker.infer()).result.variant.compute_class == "sim"
    other = await start(compute_class="amx", labels="zone=a")
    told = await other.inventory()
    assert told.variant.compute_class == "amx"
    assert told.labels == {"compute-class": "amx", "zone": "a", "sandbox": "none"}


async def test_a_cpu_worker_is_of_the_class_of_its_processor(start: Start) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    worker = await start(TorchBackend("cpu", 1))
    assert (await worker.inventory()).variant.compute_class == compute_class.of_host()
