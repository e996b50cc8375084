"""The batch-latency curve on real workers over real gRPC: what is measured, what is left out and
why, and that neither ledger nor traffic suffers.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.contract.control_plane_rig import Rig
from tests.contract.worker.test_worker import IMAGE, Running, Start, start
from tests.models import Zoo
from tests.waiting import becomes
from worker.backends.simulated import SimulatedBackend, TimeCurve
from yolopool import errors
from yolopool.status import error_from_rpc
from yolopool.v1 import bench_pb2, types_pb2, worker_pb2

__all__ = ["start"]  # the fixture
GIB = 1024**3


async def points_of(call: Any) -> list[Any]:
    """The last answer of each point, in the order in which they came first."""
    points: dict[tuple[int, int, int], Any] = {}
    try:
        async for answer in call:
            one = getattr(answer, "point", answer)
            points[one.shape.height, one.shape.width, one.batch] = answer
        return list(points.values())
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None


def bench(worker: Running, name: str = "shapes", timeout: float = 30.0, **sweep: Any) -> Any:
    sweep.setdefault("seconds", 0.001)
    request = worker_pb2.BenchRequest(
        version=types_pb2.VersionKey(model=name, version=1), sweep=bench_pb2.Sweep(**sweep)
    )
    return worker.stub.Bench(request, timeout=timeout)


def shape(height: int, width: int) -> bench_pb2.Shape:
    return bench_pb2.Shape(height=height, width=width)


def sizes(points: Sequence[Any]) -> list[tuple[int, int, int]]:
    return [(one.shape.height, one.shape.width, one.batch) for one in points]


async def test_a_sweep_of_a_simulated_device(start: Start, zoo: Zoo) -> None:
    curve = TimeCurve(fixed_s=0.004, per_image_s=0.002)
    worker = await start(SimulatedBackend(0, 8 * GIB, curve))
    before = (await worker.assign(zoo)).ledger
    shapes = [shape(320, 320), shape(64, 128)]
    points = await points_of(bench(worker, shapes=shapes, batch_sizes=[4, 1, 64, 4]))
    assert sizes(points) == [
        (320, 320, 1), (320, 320, 4), (320, 320, 64), (64, 128, 1), (64, 128, 4), (64, 128, 64),
    ]  # fmt: skip
    for one in points:
        assert (one.reason, one.boxes, one.done) == ("", 1.0, True)
        assert one.passes >= 5
        assert 0 < one.forward_ms <= one.p50_ms <= one.p99_ms
        assert one.workspace_bytes > 0
    # Sixteen times the images in much less than sixteen times the time.
    assert points[2].images_per_s > 2 * points[0].images_per_s
    after = await worker.inventory()
    assert after.ledger == before
    replica = after.replicas[0]
    assert (replica.requests_total, replica.outstanding) == (0, 0)
    assert replica.inference_ms > 0  # what was measured is known to the estimates


async def test_a_sweep_of_a_real_model_on_the_cpu(start: Start, zoo: Zoo) -> None:
    from worker.backends.pytorch.backend import TorchBackend

    worker = await start(TorchBackend("cpu", 1), memory_budget="8GiB")
    settings = types_pb2.VersionSettings(
        image_size=64, confidence=0.25, iou=0.7, max_detections=300,
        shape_policy=types_pb2.SHAPE_POLICY_RECT,
    )  # fmt: skip
    request = worker_pb2.AssignRequest(
        version=types_pb2.VersionKey(model="shapes", version=1),
        settings=settings,
        pack=zoo.pack("shapes"),
        variant=types_pb2.Variant(precision="fp32"),
    )
    await worker.call("Assign", request)
    points = await points_of(bench(worker, batch_sizes=[1, 2], image=IMAGE))
    drawn = await points_of(bench(worker, batch_sizes=[2]))
    assert sizes(points) == [(64, 64, 1), (64, 64, 2)]
    assert sizes(drawn) == [(64, 64, 2)]
    for one in points:
        assert one.copy_ms > 0
        assert one.nms_ms > 0
        assert one.copy_ms + one.forward_ms + one.nms_ms == pytest.approx(one.p50_ms, rel=0.5)
        assert one.boxes > 0
    assert points[0].boxes == points[1].boxes
    assert points[0].workspace_bytes < points[1].workspace_bytes


async def test_what_does_not_fit_is_left_out_and_all_that_is_larger(start: Start, zoo: Zoo) -> None:
    wide = await start()
    ledger = (await wide.assign(zoo)).ledger
    used = ledger.context_bytes + ledger.weights_bytes + ledger.workspace_bytes
    backend = SimulatedBackend(0, 8 * GIB)
    peak = 0

    def note(step: str) -> None:
        nonlocal peak
        peak = max(peak, worker.app.swapper.ledger.used_bytes)

    backend.fail = note
    budget = used + ledger.workspace_bytes
    worker = await start(backend, memory_budget=str(budget))
    before = (await worker.assign(zoo)).ledger
    most = before.workspace_bytes + budget - used  # of the largest batch that fits
    points = await points_of(bench(worker, batch_sizes=[1, 8, 24, 128, 256]))
    assert [one.reason for one in points] == ["", "", "", "LEDGER_FULL", "LEDGER_FULL"]
    assert "--memory-budget" in points[3].message
    assert "128" in points[4].message
    assert all(one.done for one in points)
    assert points[2].workspace_bytes <= most
    assert used < peak <= budget
    assert (await worker.inventory()).ledger == before


async def test_out_of_memory_and_passes_that_are_too_long_are_left_out(
    start: Start, zoo: Zoo
) -> None:
    backend = SimulatedBackend(0, 8 * GIB)
    worker = await start(backend)
    await worker.assign(zoo)
    calls = 0

    def fail(step: str) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise errors.OutOfMemory("injected")

    backend.fail = fail
    points = await points_of(bench(worker, batch_sizes=[1, 2, 4]))
    assert [one.reason for one in points] == ["", "OUT_OF_MEMORY", "OUT_OF_MEMORY"]
    backend.fail = lambda step: None
    backend.curve = TimeCurve(fixed_s=0.0, per_image_s=0.5)
    points = await points_of(bench(worker, batch_sizes=[1, 200], seconds=0.001))
    assert [one.reason for one in points] == ["", "TOO_LONG"]


async def test_a_deadline_ends_a_sweep_with_what_was_measured(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * GIB, TimeCurve(fixed_s=0.05)))
    await worker.assign(zoo)
    points = await points_of(bench(worker, batch_sizes=[1, 2, 4], seconds=60, timeout=1.5))
    assert {one.reason for one in points} == {"DEADLINE_EXCEEDED"}
    assert [one.done for one in points] == [False] * 3


async def test_requests_go_before_passes_and_are_answered_meanwhile(start: Start, zoo: Zoo) -> None:
    worker = await start(SimulatedBackend(0, 8 * GIB, TimeCurve(fixed_s=0.01)))
    await worker.assign(zoo)
    call = asyncio.create_task(points_of(bench(worker, batch_sizes=[1, 8], seconds=0.5)))
    done = 0
    while not call.done():
        await asyncio.gather(*(worker.infer() for _ in range(4)))
        done += 4
    points = await call
    assert [one.reason for one in points] == ["", ""]
    assert all(one.passes >= 5 for one in points)
    assert points[-1].busy > 0
    assert (await worker.inventory()).replicas[0].requests_total == done


async def test_one_that_waits_for_a_turn_is_brought_to_the_device(start: Start, zoo: Zoo) -> None:
    worker = await start(max_hot=1)
    await worker.assign(zoo)
    await worker.assign(zoo, "other")
    states = {one.version.model: one.state for one in (await worker.inventory()).replicas}
    assert states["shapes"] == types_pb2.REPLICA_STATE_WARM
    assert [one.reason for one in await points_of(bench(worker, batch_sizes=[2]))] == [""]
    assert (await worker.infer("other")).result.version.model == "other"


@pytest.mark.parametrize(
    ("sweep", "error"),
    [
        ({"batch_sizes": [0]}, errors.InvalidOption),
        ({"batch_sizes": [257]}, errors.InvalidOption),
        ({"shapes": [bench_pb2.Shape(height=100, width=64)]}, errors.InvalidOption),
        ({"shapes": [bench_pb2.Shape(height=8192, width=64)]}, errors.InvalidOption),
        ({"seconds": 61.0}, errors.InvalidOption),
        ({"seconds": float("nan")}, errors.InvalidOption),
        ({"image": b"no picture"}, errors.ImageNotDecodable),
    ],
)
async def test_a_sweep_that_can_not_be_is_refused(
    start: Start, zoo: Zoo, sweep: dict[str, Any], error: type[Exception]
) -> None:
    worker = await start()
    await worker.assign(zoo)
    with pytest.raises(error):
        await points_of(bench(worker, **sweep))
    with pytest.raises(errors.NotAssigned):
        await points_of(bench(worker, "absent"))


async def test_a_release_and_a_drain_end_a_sweep(start: Start, zoo: Zoo) -> None:
    worker = await start()
    await worker.assign(zoo)
    call = bench(worker, batch_sizes=[1, 2], seconds=60)
    sweep = asyncio.create_task(points_of(call))
    await becomes(lambda: worker.app.engine.image_s("shapes@1", (320, 320)) > 0)
    await worker.release()
    with pytest.raises(errors.NotAssigned):
        await sweep
    await worker.assign(zoo)
    sweep = asyncio.create_task(points_of(bench(worker, seconds=60)))
    await becomes(lambda: worker.app.engine.image_s("shapes@1", (320, 320)) > 0)
    await worker.call("Drain", worker_pb2.DrainRequest())
    with pytest.raises(errors.Draining):
        await sweep


async def test_a_caller_who_leaves_ends_the_sweep(start: Start, zoo: Zoo) -> None:
    worker = await start()
    before = (await worker.assign(zoo)).ledger
    call = bench(worker, batch_sizes=[200], seconds=60)
    reading = asyncio.create_task(points_of(call))
    await becomes(lambda: worker.app.swapper.ledger.workspace_bytes > before.workspace_bytes)
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await becomes(lambda: not worker.app.replicas.held()[0].outstanding)
    await worker.release()  # does not wait for a ticket that is gone
    assert not (await worker.inventory()).replicas


# --- through a control plane ------------------------------------------------------------------


def ask(rig: Rig, timeout: float = 10.0, **fields: Any) -> Any:
    request = bench_pb2.BenchModelRequest(
        model="shapes", sweep=bench_pb2.Sweep(batch_sizes=[1, 2]), **fields
    )
    return rig.bench.BenchModel(request, timeout=timeout)


async def test_a_curve_is_measured_where_the_version_is(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("shapes")
        worker = await rig.worker("box")
        answers = await points_of(ask(rig))  # loads it
        assert worker.assigned == ["shapes@1"]
        assert [one.point.images_per_s for one in answers] == [10.0, 20.0]
        first = answers[0]
        assert (first.worker, first.device_kind, first.device_name) == ("box", "sim", "sim:0")
        assert (first.version.model, first.variant.precision) == ("shapes", "fp32")
        assert len(await points_of(ask(rig, worker="box", device_kind="sim"))) == 2
        other = await rig.worker("second")
        for call in (ask(rig, worker="second"), ask(rig, device_kind="cuda")):
            with pytest.raises(errors.NotAssigned, match="load it there"):
                await points_of(call)
        assert not other.assigned
        with pytest.raises(errors.WorkerNotFound):
            await points_of(ask(rig, worker="nobody"))
        worker.infer_s = 60
        with pytest.raises(errors.DeadlineExceeded):
            await points_of(ask(rig, timeout=0.5))


async def test_a_caller_who_leaves_ends_the_workers_sweep(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("shapes")
        worker = await rig.worker("box")
        await points_of(ask(rig))
        worker.infer_s = 60
        call = ask(rig)
        reading = asyncio.create_task(points_of(call))
        await becomes(lambda: rig.plane.view.outstanding.get("box"))
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await becomes(lambda: worker.benched == 2)
        await becomes(lambda: not rig.plane.view.outstanding)


async def test_a_worker_that_dies_ends_the_stream(tmp_path: Path) -> None:
    async with Rig(tmp_path) as rig:
        await rig.ready("shapes")
        worker = await rig.worker("box")
        await points_of(ask(rig))
        worker.infer_s = 60
        reading = asyncio.create_task(points_of(ask(rig)))
        await becomes(lambda: rig.plane.view.outstanding.get("box"))
        await worker.die()
        with pytest.raises(errors.WorkerLost):
            await reading
